use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    directory::{Generation, Revision, Snapshot},
    endpoint::{known::Known, member::Endpoint, tried::Tried},
};

/// The endpoints that the newest snapshot called callable when this was built: where a call looks
/// for one. May be stale; the gates are not.
pub(crate) struct Roster<S> {
    /// The set's version that this was built at.
    pub(crate) version: u64,
    /// The snapshot's revision.
    pub(crate) revision: Revision,
    /// Whether the registry had answered.
    pub(crate) known: bool,
    /// Shared with the roster before, if that was of the same ones.
    endpoints: Arc<[Arc<Endpoint<S>>]>,
    /// Their generations: what is still there is found by these, and no endpoint is looked at.
    generations: Arc<[Generation]>,
    /// How many, from the front, are in the preferred cluster.
    preferred: usize,
    cursor: AtomicUsize,
}

/// What a look through a [`Roster`] found.
pub(crate) enum Found<S> {
    /// One to call, and whether it is to be probed.
    One(Arc<Endpoint<S>>, bool),
    /// None, but one may be about to open, or has just closed: look again after the next change.
    Changing,
    /// None.
    Nobody,
}

impl<S> Roster<S> {
    /// A roster of these, of which so many, from the front, are in the preferred cluster.
    pub(super) fn new(
        version: u64,
        snapshot: &Snapshot,
        former: Option<&Self>,
        generations: Vec<Generation>,
        preferred: usize,
        mut endpoint: impl FnMut(usize) -> Arc<Endpoint<S>>,
    ) -> Self {
        let same = former.filter(|former| *former.generations == *generations);
        let (endpoints, generations) = match same {
            Some(former) => (
                Arc::clone(&former.endpoints),
                Arc::clone(&former.generations),
            ),
            None => {
                let mut known = former.map(|former| Known::new(&former.generations));
                let all = generations.iter().enumerate().map(|(at, generation)| {
                    let known = known.as_mut().and_then(|known| known.find(*generation));
                    let known = known.zip(former);
                    let known = known.and_then(|(at, former)| former.endpoints.get(at));
                    known.map_or_else(|| endpoint(at), Arc::clone)
                });
                (all.collect(), generations.into())
            }
        };
        Self {
            version,
            revision: snapshot.revision(),
            known: snapshot.is_known() || snapshot.ended,
            endpoints,
            generations,
            preferred,
            cursor: AtomicUsize::new(former.map_or(0, Self::cursor)),
        }
    }

    /// Where the next look starts.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Relaxed)
    }

    /// The endpoints.
    #[inline]
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint<S>>] {
        &self.endpoints
    }

    /// Their generations.
    pub(crate) const fn generations(&self) -> &Arc<[Generation]> {
        &self.generations
    }

    /// Whether a probe is on offer.
    pub(crate) fn offers_probe(&self) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|endpoint| endpoint.gate.state().offers_probe())
    }

    /// Finds one that was not tried: in the preferred cluster if there is one, else anywhere.
    /// Only those that `allow` says yes to.
    pub(crate) fn find(
        &self,
        tried: &Tried,
        probes: bool,
        gated: bool,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Found<S> {
        let (near, far) = self.endpoints.split_at(self.preferred);
        let mut changing = false;
        if probes && let Some(endpoint) = self.find_probe(tried, &allow) {
            return Found::One(endpoint, true);
        }
        for range in [near, far] {
            if let Some(endpoint) = self.choose(range, tried, gated, &allow, &mut changing) {
                return Found::One(Arc::clone(endpoint), false);
            }
        }
        if changing {
            Found::Changing
        } else {
            Found::Nobody
        }
    }

    /// Takes a probe that is on offer at one that was not tried and that `allow` says yes to.
    pub(crate) fn find_probe(
        &self,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Option<Arc<Endpoint<S>>> {
        let probed = self.endpoints.iter().find(|endpoint| {
            !tried.contains(endpoint.generation())
                && endpoint.gate.state().offers_probe()
                && allow(endpoint)
                && endpoint.take_probe()
        });
        probed.map(Arc::clone)
    }

    /// One that was not tried, that `allow` says yes to, and that nothing but its health check keeps out.
    pub(crate) fn find_refused(
        &self,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Option<Arc<Endpoint<S>>> {
        let start = self.cursor.fetch_add(1, Ordering::Relaxed) % self.endpoints.len().max(1);
        let (tail, head) = self.endpoints.split_at(start);
        let found = head.iter().chain(tail).find(|endpoint| {
            let gate = endpoint.gate.state();
            gate.is_refused()
                && gate.admits_refused()
                && !tried.contains(endpoint.generation())
                && allow(endpoint)
        });
        found.map(Arc::clone)
    }

    /// Of the next two open ones the less loaded.
    fn choose<'a>(
        &self,
        range: &'a [Arc<Endpoint<S>>],
        tried: &Tried,
        gated: bool,
        allow: impl Fn(&Endpoint<S>) -> bool,
        changing: &mut bool,
    ) -> Option<&'a Arc<Endpoint<S>>> {
        if range.is_empty() {
            return None;
        }
        let start = self.cursor.fetch_add(1, Ordering::Relaxed) % range.len();
        let (tail, head) = range.split_at(start);
        let mut first: Option<&Arc<Endpoint<S>>> = None;
        for endpoint in head.iter().chain(tail) {
            if tried.contains(endpoint.generation()) || !allow(endpoint) {
                continue;
            }
            let state = endpoint.gate.state();
            if !state.is_open() && gated {
                *changing |= state.is_evicted() || state.is_closed();
                continue;
            }
            match first {
                None => first = Some(endpoint),
                Some(first) if endpoint.load() < first.load() => return Some(endpoint),
                Some(first) => return Some(first),
            }
        }
        first
    }
}
