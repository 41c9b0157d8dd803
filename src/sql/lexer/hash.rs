//! SipHash-1-3 with 128 bits: keyed, so that nobody who does not know the key can make two shapes
//! collide. Fed with whole words; the caller delimits.

/// A running hash.
#[derive(Clone, Debug)]
pub struct Sip128 {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip128 {
    /// Starts with a key.
    pub fn new(key: [u64; 2]) -> Sip128 {
        Sip128 {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    /// Takes one word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
        self.words = self.words.wrapping_add(1);
    }

    /// Takes bytes with a tag, seven to a word; the length is part of it.
    #[inline]
    pub fn bytes(&mut self, tag: u8, bytes: &[u8], fold: Fold) {
        let mut rest = bytes;
        // One load takes eight bytes, of which the last belongs to the next word.
        while let Some(eight) = rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight) & (u64::MAX >> 8);
            self.word(fold.apply(word) | u64::from(tag | 0x80) << 56);
            rest = &rest[7..];
        }
        if rest.len() == 7 {
            self.word(fold.apply(load(rest)) | u64::from(tag | 0x80) << 56);
            rest = &[];
        }
        self.word(fold.apply(load(rest)) | u64::from(tag | (rest.len() as u8) << 4) << 56);
    }

    /// The hash.
    #[inline]
    pub fn finish(mut self) -> u128 {
        let words = self.words;
        self.word(words << 8);
        self.v2 ^= 0xee;
        self.round();
        self.round();
        self.round();
        let low = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        self.v1 ^= 0xdd;
        self.round();
        self.round();
        self.round();
        let high = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Are ASCII capitals to be read as small letters?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// As PostgreSQL reads unquoted words. Bytes of 128 and more stay as they are.
    Ascii,
    /// Byte by byte.
    No,
}

impl Fold {
    #[inline]
    fn apply(self, word: u64) -> u64 {
        match self {
            Fold::Ascii => fold(word),
            Fold::No => word,
        }
    }
}

/// Up to seven bytes, little-endian, in two overlapping loads instead of a loop.
#[inline]
fn load(bytes: &[u8]) -> u64 {
    let last = bytes.len().saturating_sub(1);
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let shift = 8 * (bytes.len() - 4);
        return u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << shift;
    }
    match (bytes.first(), bytes.get(last / 2), bytes.get(last)) {
        (Some(&a), Some(&b), Some(&c)) => {
            u64::from(a) | u64::from(b) << (8 * (last / 2)) | u64::from(c) << (8 * last)
        }
        _ => 0,
    }
}

/// Eight bytes at once: those from `A` to `Z` get bit 5.
#[inline]
fn fold(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let above_z = low + ONES * u64::from(0x7f - b'Z');
    let from_a = low + ONES * u64::from(0x80 - b'A');
    let upper = (from_a ^ above_z) & !word & (ONES * 0x80);
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_little_endian_at_every_length() {
        let bytes = [1u8, 2, 3, 4, 5, 6, 7];
        for length in 0..=7 {
            let mut whole = [0u8; 8];
            whole[..length].copy_from_slice(&bytes[..length]);
            assert_eq!(load(&bytes[..length]), u64::from_le_bytes(whole), "{length}");
        }
    }

    #[test]
    fn only_ascii_capitals_fold() {
        for byte in 0..=255u8 {
            let folded = fold(u64::from(byte)).to_le_bytes()[0];
            assert_eq!(folded, byte.to_ascii_lowercase());
        }
    }

    #[test]
    fn bytes_are_taken_seven_to_a_word_whatever_their_number() {
        let text: Vec<u8> = (1..=40).collect();
        for length in 0..=text.len() {
            let (mut whole, mut by_word) = (Sip128::new([1, 2]), Sip128::new([1, 2]));
            whole.bytes(3, &text[..length], Fold::No);
            let mut chunks = text[..length].chunks_exact(7);
            chunks.by_ref().for_each(|chunk| by_word.word(load(chunk) | 0x83 << 56));
            let rest = chunks.remainder();
            by_word.word(load(rest) | (3 | (rest.len() as u64) << 4) << 56);
            assert_eq!(whole.finish(), by_word.finish(), "{length}");
        }
    }

    #[test]
    fn length_and_tag_are_part_of_the_hash() {
        let hash = |tag, bytes: &[u8]| {
            let mut sip = Sip128::new([1, 2]);
            sip.bytes(tag, bytes, Fold::No);
            sip.finish()
        };
        assert_ne!(hash(1, b"abc"), hash(2, b"abc"));
        assert_ne!(hash(1, b"abc"), hash(1, b"abc\0"));
        assert_ne!(hash(1, b"abcdefg"), hash(1, b"abcdefg\0"));
        assert_ne!(hash(1, b""), hash(1, b"\0"));
    }

    #[test]
    fn the_key_decides() {
        let hash = |key| {
            let mut sip = Sip128::new(key);
            sip.word(7);
            sip.finish()
        };
        assert_ne!(hash([1, 2]), hash([1, 3]));
        assert_ne!(hash([1, 2]), hash([2, 2]));
    }
}
