/// Finds in a request what its call should stick to, for [`Maglev`](crate::balance::Maglev) and
/// policies like it. Every closure `Fn(&Req) -> Option<u64>` is one.
pub trait KeyOf<Req> {
    /// The hash of it, if it is there.
    fn key_of(&self, request: &Req) -> Option<u64>;
}

/// The default of [`KeyOf`]: nothing to stick to.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoKey;

/// A hash key in the extensions of a request; [`HashKey::of_request`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(u64);

impl HashKey {
    /// The key of these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(stable_hash(bytes.as_ref()))
    }

    /// The hash.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What is in the request's extensions: give this to the builder's `hash_key`.
    pub fn of_request<B>(request: &http::Request<B>) -> Option<u64> {
        request.extensions().get::<Self>().map(|key| key.0)
    }
}

impl<Req, F: Fn(&Req) -> Option<u64>> KeyOf<Req> for F {
    fn key_of(&self, request: &Req) -> Option<u64> {
        self(request)
    }
}

impl<Req> KeyOf<Req> for NoKey {
    fn key_of(&self, _: &Req) -> Option<u64> {
        None
    }
}

/// A hash that is the same in every process and version: FNV-1a over the bytes, then mixed.
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
