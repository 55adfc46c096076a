use std::sync::Arc;

use crate::{
    directory::Generation,
    endpoint::{CallError, Endpoint, EndpointSet, admission::Place},
};

/// How a call chooses its instance.
pub(crate) trait Pick<S> {
    /// Chooses one that is not among `tried`.
    fn pick(&self, set: &EndpointSet<S>, tried: &Tried) -> Picked<S>;
}

/// What a [`Pick`] says.
pub(crate) enum Picked<S> {
    /// Call this one.
    Place(Place<S>),
    /// There is none now, and there may be one after the set's next change.
    Wait,
    /// There is none.
    Nobody(CallError),
}

/// Any open instance.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Any;

/// One's own instance; another when that one is shut or was tried.
pub(crate) struct OwnFirst<S>(pub(crate) Option<Arc<Endpoint<S>>>);

/// The instances that one call was refused by.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    generations: [Option<Generation>; MOST_TRIES],
    len: usize,
}

impl Tried {
    pub(crate) fn push(&mut self, generation: Generation) {
        if let Some(place) = self.generations.get_mut(self.len) {
            *place = Some(generation);
            self.len += 1;
        }
    }

    pub(crate) fn contains(&self, generation: Generation) -> bool {
        self.generations[..self.len].contains(&Some(generation))
    }

    /// Whether one more try would be too many.
    pub(crate) const fn is_full(&self) -> bool {
        self.len == MOST_TRIES
    }
}

#[cfg(feature = "testing")]
impl<S> Pick<S> for Any {
    fn pick(&self, set: &EndpointSet<S>, tried: &Tried) -> Picked<S> {
        set.pick(tried)
    }
}

impl<S> Pick<S> for OwnFirst<S> {
    fn pick(&self, set: &EndpointSet<S>, tried: &Tried) -> Picked<S> {
        if let Some(own) = &self.0
            && !tried.contains(own.generation())
        {
            let state = own.gate.state();
            if state.is_open() || !set.is_gated() {
                return Picked::Place(Place::new(Arc::clone(own), false));
            }
            if state.offers_probe() && own.gate.take_probe() {
                return Picked::Place(Place::new(Arc::clone(own), true));
            }
        }
        set.pick(tried)
    }
}

/// Each callable instance is tried at most once, and no more than these.
const MOST_TRIES: usize = 10;
