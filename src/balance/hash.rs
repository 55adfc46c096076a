/// A hash that is the same in every process and version: FNV-1a over the bytes, then mixed.
///
/// ```
/// use tower_nacos::balance::stable_hash;
///
/// assert_eq!(stable_hash(b"user 7"), stable_hash(b"user 7"));
/// assert_ne!(stable_hash(b"user 7"), stable_hash(b"user 8"));
/// ```
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// Has every bit depend on every other (the finalizer of SplitMix64).
pub(super) const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
