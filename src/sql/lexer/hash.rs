//! A keyed hash of 128 bits, so that nobody who does not know the key can make two texts collide: NH (the universal
//! hash of UMAC, RFC 4418) over blocks of 256 bytes, SipHash-1-3 over what is left of each. Two NH with keys shifted
//! against each other collide for two different blocks with a probability of 2^-128; they need one multiplication per
//! eight bytes where SipHash alone needs fourteen steps that wait for each other.

use super::swar;

/// So many bytes are taken at once.
pub const BLOCK: usize = 256;

/// Words of a block, and the pair by which the second NH is shifted.
const KEY_WORDS: usize = BLOCK / 8 + 2;

/// What the hash is keyed with.
#[derive(Clone, Copy)]
pub struct HashKey {
    sip: [u64; 2],
    nh: [u64; KEY_WORDS],
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// Everything from a seed, by SipHash.
    pub const fn from_seed(seed: [u64; 2]) -> HashKey {
        let mut nh = [0; KEY_WORDS];
        let mut at = 0;
        while at < KEY_WORDS {
            nh[at] = derived(seed, at as u64);
            at += 1;
        }
        HashKey { sip: [derived(seed, KEY_WORDS as u64), derived(seed, KEY_WORDS as u64 + 1)], nh }
    }

    /// The hash of these bytes.
    pub fn hash(&self, domain: Domain, bytes: &[u8]) -> u128 {
        let mut sip = self.start(domain);
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(&mut sip, block);
        }
        self.end(sip, rest, bytes.len())
    }

    /// The beginning of a hash.
    pub fn start(&self, domain: Domain) -> Sip128 {
        Sip128::new([self.sip[0] ^ domain as u64, self.sip[1]])
    }

    /// A whole block.
    #[inline]
    pub fn block(&self, sip: &mut Sip128, block: &[u8; BLOCK]) {
        let pairs = block.as_chunks::<16>().0;
        self.nh(pairs).into_iter().for_each(|word| sip.word(word));
    }

    /// What is left behind the last whole block, and the length of everything.
    #[inline]
    pub fn end(&self, mut sip: Sip128, rest: &[u8], length: usize) -> u128 {
        let (pairs, odd) = rest.as_chunks::<16>();
        self.nh(pairs).into_iter().for_each(|word| sip.word(word));
        sip.word(swar::load(odd, 0));
        if odd.len() > 8 {
            sip.word(swar::load(odd, 8));
        }
        sip.word(length as u64);
        sip.finish()
    }

    #[inline]
    fn nh(&self, pairs: &[[u8; 16]]) -> [u64; 4] {
        let (mut one, mut two) = (0_u128, 0_u128);
        for (pair, keys) in pairs.iter().zip(self.nh.windows(4).step_by(2)) {
            let pair = u128::from_le_bytes(*pair);
            let (low, high) = (pair as u64, (pair >> 64) as u64);
            if let [a, b, c, d] = *keys {
                one = one.wrapping_add(u128::from(low.wrapping_add(a)) * u128::from(high.wrapping_add(b)));
                two = two.wrapping_add(u128::from(low.wrapping_add(c)) * u128::from(high.wrapping_add(d)));
            }
        }
        [one as u64, (one >> 64) as u64, two as u64, (two >> 64) as u64]
    }
}

const fn derived(seed: [u64; 2], number: u64) -> u64 {
    let mut sip = Sip128::new(seed);
    sip.word(number);
    sip.finish() as u64
}

/// What is hashed: two texts of different domains have nothing to do with each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Domain {
    /// A text as it is.
    Exact = 1,
    /// Its shape.
    Shape = 2,
}

/// SipHash-1-3 with 128 bits, fed with whole words.
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
    pub const fn new(key: [u64; 2]) -> Sip128 {
        Sip128 {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }

    #[inline]
    const fn round(&mut self) {
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
    pub const fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
        self.words = self.words.wrapping_add(1);
    }

    /// The hash.
    #[inline]
    pub const fn finish(mut self) -> u128 {
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
        (high as u128) << 64 | low as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u128 {
        HashKey::from_seed([1, 2]).hash(Domain::Exact, bytes)
    }

    #[test]
    fn every_byte_and_the_length_are_part_of_the_hash() {
        let mut seen = std::collections::HashSet::new();
        for length in (0..40).chain([255, 256, 257, 271, 272, 273, 511, 512, 513]) {
            let mut text = vec![0; length];
            assert!(seen.insert(hash(&text)), "{length}");
            for at in 0..length {
                text[at] = 1;
                assert!(seen.insert(hash(&text)), "{length} {at}");
                text[at] = 0;
            }
        }
    }

    #[test]
    fn pairs_and_words_do_not_change_places() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let before = hash(&text);
        for size in [8, 16, 256] {
            for at in 1..text.len() / size {
                let mut other = text.clone();
                other[..(at + 1) * size].rotate_left(at * size);
                assert_ne!(other, text);
                assert_ne!(hash(&other), before, "{size} {at}");
            }
        }
    }

    #[test]
    fn key_and_domain_decide() {
        for length in [0, 7, 300] {
            let text = vec![7; length];
            let hash = |seed, domain| HashKey::from_seed(seed).hash(domain, &text);
            assert_ne!(hash([1, 2], Domain::Exact), hash([1, 3], Domain::Exact));
            assert_ne!(hash([1, 2], Domain::Exact), hash([2, 2], Domain::Exact));
            assert_ne!(hash([1, 2], Domain::Exact), hash([1, 2], Domain::Shape));
        }
    }

    #[test]
    fn the_words_of_the_key_are_all_different() {
        let key = HashKey::from_seed([0, 0]);
        let words: std::collections::HashSet<u64> = key.nh.iter().chain(&key.sip).copied().collect();
        assert_eq!(words.len(), KEY_WORDS + 2);
    }
}
