//! Whether bytes of a list are those of the last one.
//!
//! A seeded hash finds where they might be, and the bytes decide. Tests have all hashes collide, and count.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// Nobody outside of the process knows what collides.
static SEEDS: LazyLock<[[u64; 2]; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [[0, 1], [2, 3]].map(|pair: [u8; 2]| pair.map(|n| random.hash_one(n)))
});

/// Of texts of a hundred bytes and more, by the thousand: eight bytes a multiplication, whose halves are mixed,
/// as wyhash does. Where many of equal hash would be looked through, the number of these is limited.
pub(super) fn hash(text: &[u8]) -> u64 {
    #[cfg(test)]
    if counted::COLLIDE.get() {
        return 7;
    }
    fold(text, SEEDS[0])
}

/// So long that it stands for the text.
pub(super) fn digest(text: &[u8]) -> [u64; 2] {
    SEEDS.map(|seed| fold(text, seed))
}

fn fold(text: &[u8], [seed, key]: [u64; 2]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]);
    let hash = words.fold(seed ^ text.len() as u64, |hash, word| {
        mixed(hash ^ u64::from_le_bytes(*word), key)
    });
    mixed(hash, seed)
}

fn mixed(a: u64, b: u64) -> u64 {
    // An even factor would lose a bit each time.
    let product = u128::from(a) * u128::from(b | 1);
    product as u64 ^ (product >> 64) as u64
}

pub(super) fn begins_with(json: &[u8], text: &[u8]) -> bool {
    #[cfg(test)]
    counted::compared(json, text);
    json.starts_with(text)
}

pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    #[cfg(test)]
    counted::compared(one, other);
    one == other
}

#[cfg(test)]
pub(super) mod counted {
    use std::cell::Cell;

    thread_local! {
        /// Whether all hashes are the same.
        pub(in crate::wire) static COLLIDE: Cell<bool> = const { Cell::new(false) };
        /// How many bytes were looked at in comparisons.
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    /// Those that are equal, and the first that is not.
    pub(super) fn compared(one: &[u8], other: &[u8]) {
        let same = one.iter().zip(other).take_while(|(a, b)| a == b);
        BYTES.set(BYTES.get() + same.count() + 1);
    }

    /// How many bytes `what` compares.
    pub(in crate::wire) fn bytes(what: impl FnOnce()) -> usize {
        let before = BYTES.get();
        what();
        BYTES.get() - before
    }
}
