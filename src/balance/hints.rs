use std::sync::Arc;

use crate::{
    balance::{
        selector::{Scope, Selector},
        stable_hash,
    },
    model::{Address, Instance},
};

/// What one request asks of the pick.
///
/// Nothing by default, which costs nothing. Make one, keep it, and clone it for each request: a
/// clone costs a reference count at most. The builder's
/// [`hints`](crate::balance::BalanceBuilder::hints) says how a balancer finds them in a request;
/// [`InExtensions`] looks in the extensions of an HTTP request.
///
/// Different clusters and selectors should be few: 64 of them have tables at a time, one that was
/// not asked for in 10 to 20 s makes place for another, and for what is beyond that the instances
/// are looked through one by one, without the policy.
///
/// ```
/// use tower_nacos::balance::Hints;
///
/// let gray = Hints::new().prefer(("version", "gray")).cluster("HZ");
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(gray.clone().key("user 7"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hints {
    key: Option<u64>,
    /// In one allocation, so that calls carry little.
    wish: Option<Arc<Wish>>,
}

/// What goes beyond a hash key.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    cluster: Option<Arc<str>>,
    only: Option<Selector>,
    prefer: Option<Selector>,
    /// Below what part of their usual weight those that are preferred do not get everything.
    spill_below: Option<f64>,
    excluded: Arc<[Address]>,
    /// What is looked through first.
    pub(super) narrow: Scope,
    /// What is looked through when nothing is found there.
    pub(super) wide: Scope,
}

/// Finds what a request asks of the pick. Every closure `Fn(&Req) -> Hints` does.
///
/// Example: [hints in a request](crate::balance::Hints)
pub trait HintsOf<Req> {
    /// What it asks.
    fn hints_of(&self, request: &Req) -> Hints;
}

/// The default of [`HintsOf`]: no request asks for anything.
///
/// Example: [hints in a request](crate::balance::Hints)
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoHints;

/// Takes the [`Hints`] in the extensions of an HTTP request, if there are any.
///
/// Example: [hints in a request](crate::balance::Hints)
#[derive(Clone, Copy, Debug, Default)]
pub struct InExtensions;

/// Makes [`Hints`] of what yields a hash key.
///
/// Example: [`Maglev`](crate::balance::Maglev)
#[derive(Clone, Copy, Debug)]
pub struct KeyOnly<F>(pub(super) F);

impl Hints {
    /// Nothing.
    #[inline]
    pub const fn new() -> Self {
        Self {
            key: None,
            wish: None,
        }
    }

    /// The call sticks to the instance that these bytes fall to, under
    /// [`Maglev`](crate::balance::Maglev) and policies like it.
    #[must_use]
    pub fn key(self, bytes: impl AsRef<[u8]>) -> Self {
        self.hash_key(stable_hash(bytes.as_ref()))
    }

    /// The same with the hash of them: [`stable_hash`] makes one.
    #[must_use]
    #[inline]
    pub const fn hash_key(mut self, hash: u64) -> Self {
        self.key = Some(hash);
        self
    }

    /// This cluster comes first, before those that the balancer prefers; see
    /// [`prefer_cluster`](crate::balance::BalanceBuilder::prefer_cluster) for how much of the calls
    /// it gets. A cluster that no instance has is passed by, with one warning.
    #[must_use]
    pub fn cluster(self, cluster: impl Into<Arc<str>>) -> Self {
        let cluster = cluster.into();
        self.with(|wish| wish.cluster = (!cluster.is_empty()).then_some(cluster))
    }

    /// Only instances with this metadata: if none can be called, the call fails with
    /// [`NoMatch`](crate::endpoint::CallError::NoMatch), which says what values there are, or with
    /// the error that says why those that have it are out.
    #[must_use]
    pub fn only(self, selector: impl Into<Selector>) -> Self {
        let selector = selector.into();
        self.with(|wish| wish.only = Some(selector))
    }

    /// Instances with this metadata first: if none can be called, the others, with one warning if
    /// none has it.
    #[must_use]
    pub fn prefer(self, selector: impl Into<Selector>) -> Self {
        let selector = selector.into();
        self.with(|wish| wish.prefer = Some(selector))
    }

    /// Those that [`prefer`](Self::prefer) names get all of these calls only while they weigh, all that
    /// are open together, so much of what they usually do, from 0 to 1; below that, what they weigh
    /// divided by that, and the rest goes to everybody by weight. So the one survivor of a first choice
    /// does not get everything: with 0.7, of four one is left, it gets 0.25 ÷ 0.7 = 36 % of the calls
    /// and its share of the others. A call with a hash key stays or goes by its key.
    ///
    /// What is usual is the most that they weighed in the list in the last 10 minutes, as with
    /// [`prefer_cluster`](crate::balance::BalanceBuilder::prefer_cluster): so it takes that long to
    /// believe in a smaller number, and a balancer that has just started knows none. 0.7 does what that
    /// does (Envoy's over-provisioning factor, 1.4). Default: 0, they get everything while one is open.
    /// What is no number counts as 0.7.
    #[must_use]
    pub fn spill_below(self, part: f64) -> Self {
        let part = if part.is_nan() {
            SPILL_BELOW
        } else {
            part.clamp(0.0, 1.0)
        };
        self.with(|wish| wish.spill_below = (part > 0.0).then_some(part))
    }

    /// Not these, as if they had been tried and had failed. If no other is left, the call fails
    /// with [`NoMatch`](crate::endpoint::CallError::NoMatch): whoever excludes knows best whether
    /// calling one of them again is better than that. Meant for a few; each costs a comparison a
    /// look.
    #[must_use]
    pub fn exclude(self, addresses: impl IntoIterator<Item = Address>) -> Self {
        let excluded = addresses.into_iter().collect();
        self.with(|wish| wish.excluded = excluded)
    }

    /// Whether nothing is asked for.
    pub const fn is_empty(&self) -> bool {
        self.key.is_none() && self.wish.is_none()
    }

    /// The hash key.
    #[inline]
    pub const fn get_key(&self) -> Option<u64> {
        self.key
    }

    /// The addresses that are excluded.
    pub fn excluded(&self) -> &[Address] {
        self.wish.as_ref().map_or(&[], |wish| &wish.excluded)
    }

    #[inline]
    pub(super) fn wish(&self) -> Option<&Wish> {
        self.wish.as_deref()
    }

    fn with(mut self, change: impl FnOnce(&mut Wish)) -> Self {
        let wish = Arc::make_mut(self.wish.get_or_insert_default());
        change(wish);
        let both = match (&wish.only, &wish.prefer) {
            (Some(only), Some(prefer)) => Some(only.and(prefer)),
            (only, prefer) => only.clone().or_else(|| prefer.clone()),
        };
        wish.narrow = Scope::new(wish.cluster.clone(), both);
        wish.wide = Scope::new(wish.cluster.clone(), wish.only.clone());
        self
    }
}

impl Wish {
    /// Whether a call may go there.
    pub(super) fn allows(&self, instance: &Instance) -> bool {
        self.only.as_ref().is_none_or(|only| only.matches(instance))
            && !self.excluded.contains(instance.address())
    }

    /// Whether there are instances that a call may not go to.
    pub(super) fn restricts(&self) -> bool {
        self.only.is_some() || self.excludes()
    }

    pub(super) fn excludes(&self) -> bool {
        !self.excluded.is_empty()
    }

    pub(super) fn excluded(&self) -> &[Address] {
        &self.excluded
    }

    /// Whether it says where in the service to go: which metadata, which cluster.
    pub(super) const fn chooses(&self) -> bool {
        self.only.is_some() || self.prefer.is_some() || self.cluster.is_some()
    }

    /// Below what part of their usual weight those that are preferred do not get everything.
    #[inline]
    pub(super) const fn spills_below(&self) -> Option<f64> {
        match self.prefer {
            Some(_) => self.spill_below,
            None => None,
        }
    }

    pub(super) const fn only(&self) -> Option<&Selector> {
        self.only.as_ref()
    }
}

impl<Req, F: Fn(&Req) -> Hints> HintsOf<Req> for F {
    #[inline]
    fn hints_of(&self, request: &Req) -> Hints {
        self(request)
    }
}

impl<Req> HintsOf<Req> for NoHints {
    #[inline]
    fn hints_of(&self, _: &Req) -> Hints {
        Hints::new()
    }
}

impl<B> HintsOf<http::Request<B>> for InExtensions {
    fn hints_of(&self, request: &http::Request<B>) -> Hints {
        let hints = request.extensions().get::<Hints>();
        hints.cloned().unwrap_or_default()
    }
}

impl<Req, F: Fn(&Req) -> Option<u64>> HintsOf<Req> for KeyOnly<F> {
    #[inline]
    fn hints_of(&self, request: &Req) -> Hints {
        Hints {
            key: (self.0)(request),
            wish: None,
        }
    }
}

/// What a first choice may lose before others get some of its calls: 1 ÷ 1.4, rounded.
pub(super) const SPILL_BELOW: f64 = 0.7;
