//! Eight bytes of a text at once, in a word: the first byte is the lowest.

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = ONES * 0x7f;
const HIGH: u64 = ONES * 0x80;

/// The eight bytes from here on; zeros behind the end.
#[inline(always)]
pub fn load(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => load_end(text, at),
    }
}

#[cold]
#[inline(never)]
fn load_end(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    match text.last_chunk::<8>() {
        Some(eight) if !rest.is_empty() => u64::from_le_bytes(*eight) >> (8 * (8 - rest.len())),
        Some(_) => 0,
        None => rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    }
}

/// Which of eight bytes comes first of those whose highest bit is set; 8: none.
#[inline(always)]
pub fn first(marked: u64) -> usize {
    (marked.trailing_zeros() / 8) as usize
}

/// Marks bytes from `from` to `to`, both below 128, among bytes whose highest bit is clear.
#[inline(always)]
const fn within(low: u64, from: u8, to: u8) -> u64 {
    (low + ONES * (0x80 - from as u64)) & !(low + ONES * (0x7f - to as u64)) & HIGH
}

/// Marks what no word goes on with. (And the dollar, which it may: rare, and one test more for everybody.)
#[inline(always)]
pub const fn not_word(word: u64) -> u64 {
    let low = word & LOW;
    let letters = within(low | (ONES * 0x20), b'a', b'z');
    let digits = within(low, b'0', b'9');
    let underscores = !((low ^ (ONES * b'_' as u64)) + LOW);
    !(letters | digits | underscores | word) & HIGH
}

/// Marks this byte, up to its first: behind that, others may be marked, too.
#[inline(always)]
pub const fn equal(word: u64, byte: u8) -> u64 {
    let other = word ^ (ONES * byte as u64);
    other.wrapping_sub(ONES) & !other & HIGH
}

/// ASCII capitals become small letters, in a word: of its bytes below 128 only capitals and the underscore lack bit 5,
/// and the underscore becomes 0x7f, which no word contains.
#[inline(always)]
pub const fn fold(word: u64) -> u64 {
    word | ((ONES * 0x20) & !((word & HIGH) >> 2))
}

/// Marks bytes that are not this one, below 128, from the first on.
#[inline(always)]
pub const fn differs(word: u64, byte: u8) -> u64 {
    let other = word ^ (ONES * byte as u64);
    (((other & LOW) + LOW) | other) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_little_endian_and_zero_behind_the_end() {
        let text: Vec<u8> = (1..=20).collect();
        for length in 0..=text.len() {
            for at in 0..=length + 9 {
                let mut whole = [0; 8];
                let rest = text[..length].get(at..).unwrap_or_default();
                let here = rest.len().min(8);
                whole[..here].copy_from_slice(&rest[..here]);
                assert_eq!(load(&text[..length], at), u64::from_le_bytes(whole), "{length} {at}");
            }
        }
    }

    /// Each byte at each of the eight places, among others that are marked and that are not.
    #[test]
    fn bytes_are_told_apart_at_every_place() {
        let of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 128;
        for around in [0, b'"', b'a', b'Z', 0x7f, 0x80, 0xff] {
            for (at, byte) in (0..8).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut bytes = [around; 8];
                bytes[at] = byte;
                let word = u64::from_le_bytes(bytes);
                let expected =
                    |marked: &dyn Fn(u8) -> bool| bytes.iter().position(|&byte| marked(byte)).unwrap_or(8);
                assert_eq!(first(not_word(word)), expected(&|byte| !of_word(byte)), "{bytes:?}");
                assert_eq!(first(equal(word, b'"')), expected(&|byte| byte == b'"'), "{bytes:?}");
                assert_eq!(first(differs(word, b' ')), expected(&|byte| byte != b' '), "{bytes:?}");
                assert_eq!(first(differs(word, b'a')), expected(&|byte| byte != b'a'), "{bytes:?}");
            }
        }
    }

    #[test]
    fn of_the_bytes_of_words_only_capitals_fold_together() {
        let fold = |byte: u8| fold(u64::from(byte)) as u8;
        let of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        for one in (0..=255).filter(of_word) {
            for other in (0..=255).filter(of_word) {
                let same = one.eq_ignore_ascii_case(&other);
                assert_eq!(fold(one) == fold(other), same, "{one} {other}");
            }
        }
    }
}
