//! Whether bytes of a list are those of the last one.
//!
//! Kept of a text are its length and a digest of 128 bits from two seeds that nobody outside of the process knows:
//! who has both equal is taken for the same. So it costs 24 bytes to know a text again, however long it is. Tests
//! have all places collide, and count.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// Nobody outside of the process knows what collides.
static SEEDS: LazyLock<[Seed; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [[0, 1, 2], [3, 4, 5]].map(|three: [u8; 3]| {
        let [one, other, key] = three.map(|n| random.hash_one(n));
        // An even factor would lose a bit each time.
        ([one, other], key | 1)
    })
});

/// Where its two lanes begin, and the factor.
type Seed = ([u64; 2], u64);

/// What a text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    digest: [u64; 2],
    len: usize,
}

impl Digest {
    pub(super) fn of(text: &[u8]) -> Self {
        #[cfg(test)]
        counted::digested(text);
        Self {
            digest: digest(text),
            len: text.len(),
        }
    }

    /// How many bytes it is of.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where to look for it among many. Others may be there too.
    pub(super) fn place(&self) -> u64 {
        #[cfg(test)]
        if counted::COLLIDE.get() {
            return 7;
        }
        self.digest[0]
    }
}

/// Of texts of a hundred bytes and more, by the thousand: eight bytes a multiplication, whose halves are mixed, as
/// wyhash does, in four lanes that do not wait for each other.
fn digest(text: &[u8]) -> [u64; 2] {
    let seeds = *SEEDS;
    let mut lanes = seeds.map(|([one, other], _)| [one ^ text.len() as u64, other]);
    let mut take = |block: &[u8; 16]| {
        let block = u128::from_le_bytes(*block);
        let words = [block as u64, (block >> 64) as u64];
        for (lanes, (_, key)) in lanes.iter_mut().zip(seeds) {
            *lanes = [
                mixed(lanes[0] ^ words[0], key),
                mixed(lanes[1] ^ words[1], key),
            ];
        }
    };
    let (blocks, rest) = text.as_chunks::<16>();
    blocks.iter().for_each(&mut take);
    if !rest.is_empty() {
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        take(&last);
    }
    [0, 1].map(|half| {
        let ([one, other], ([seed, _], key)) = (lanes[half], seeds[half]);
        mixed(mixed(one, key) ^ other, seed | 1)
    })
}

fn mixed(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
pub(super) mod counted {
    use std::cell::Cell;

    thread_local! {
        /// Whether all are looked for in the same place.
        pub(in crate::wire) static COLLIDE: Cell<bool> = const { Cell::new(false) };
        /// How many bytes were digested.
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn digested(text: &[u8]) {
        BYTES.set(BYTES.get() + text.len());
    }

    /// How many bytes `what` digests.
    pub(in crate::wire) fn bytes(what: impl FnOnce()) -> usize {
        let before = BYTES.get();
        what();
        BYTES.get() - before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each bit of a text counts, and where it stands, in both halves.
    #[test]
    fn texts_that_differ_anywhere_differ_in_both_halves() {
        let text: Vec<u8> = (0..67).collect();
        let mut texts = vec![text.clone()];
        for bit in 0..text.len() * 8 {
            let mut other = text.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            texts.push(other);
        }
        for len in 0..text.len() {
            texts.push(text[..len].to_vec());
            texts.push(vec![0; len]);
        }
        for (a, b) in [(0, 1), (0, 2), (1, 3), (0, 3)] {
            let mut other = text.clone();
            let (mut one, mut two) = ([0; 8], [0; 8]);
            one.copy_from_slice(&text[a * 8..][..8]);
            two.copy_from_slice(&text[b * 8..][..8]);
            other[a * 8..][..8].copy_from_slice(&two);
            other[b * 8..][..8].copy_from_slice(&one);
            texts.push(other);
        }
        let texts: HashSet<_> = texts.into_iter().collect();
        for half in 0..2 {
            let digests: HashSet<_> = texts.iter().map(|text| digest(text)[half]).collect();
            assert_eq!(digests.len(), texts.len());
        }
        assert_eq!(Digest::of(&text), Digest::of(&text));
    }
}
