use std::{fmt, sync::Arc};

use crate::{
    directory::Generation,
    endpoint::{CallError, Endpoint, Shared, admission::Place},
};

/// How a call chooses its instance, and among whose.
///
/// It is all that a call holds of its consumer, so that a call costs one reference count: which,
/// is the picker's affair.
pub(crate) trait Pick<S, R, C, V> {
    /// What the calls of the consumer share.
    fn shared(&self) -> &Shared<S, R, C, V>;

    /// Chooses one that is not among `tried`.
    fn pick(&self, tried: &Tried) -> Picked<S>;
}

/// What a [`Pick`] says.
pub(crate) enum Picked<S> {
    /// Call this one.
    Place(Place<S>),
    /// There is none now, and there may be one after the set's next change.
    Wait,
    /// There is none. Boxed, so that what is handed on at each call stays in registers.
    Nobody(Box<CallError>),
}

/// Any open instance.
#[cfg(feature = "testing")]
pub(crate) struct Any<S, R, C, V>(pub(crate) Arc<Shared<S, R, C, V>>);

/// One's own instance; another when that one is shut or was tried.
pub(crate) struct OwnFirst<S, R, C, V> {
    pub(crate) shared: Arc<Shared<S, R, C, V>>,
    pub(crate) own: Option<Arc<Endpoint<S>>>,
}

/// The instances that one call was refused by. Costs a word until there is one.
#[derive(Default)]
pub(crate) struct Tried(Option<Box<Refusers>>);

struct Refusers {
    /// The first `len` count.
    generations: [Generation; MOST_TRIES],
    len: usize,
}

impl Tried {
    #[cold]
    pub(crate) fn push(&mut self, generation: Generation) {
        let list = self.0.get_or_insert_with(|| {
            Box::new(Refusers {
                generations: [Generation(0); MOST_TRIES],
                len: 0,
            })
        });
        if let Some(place) = list.generations.get_mut(list.len) {
            *place = generation;
            list.len += 1;
        }
    }

    #[inline]
    pub(crate) fn contains(&self, generation: Generation) -> bool {
        self.0.is_some() && self.all().contains(&generation)
    }

    /// Whether one more try would be too many.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.0.is_some() && self.all().len() == MOST_TRIES
    }

    fn all(&self) -> &[Generation] {
        let list = self.0.as_ref();
        list.map_or(&[], |list| &list.generations[..list.len])
    }
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tried").field(&self.all()).finish()
    }
}

#[cfg(feature = "testing")]
impl<S, R, C, V> Pick<S, R, C, V> for Any<S, R, C, V> {
    #[inline]
    fn shared(&self) -> &Shared<S, R, C, V> {
        &self.0
    }

    fn pick(&self, tried: &Tried) -> Picked<S> {
        self.0.set().pick(tried, |_| true)
    }
}

impl<S, R, C, V> Pick<S, R, C, V> for OwnFirst<S, R, C, V> {
    #[inline]
    fn shared(&self) -> &Shared<S, R, C, V> {
        &self.shared
    }

    fn pick(&self, tried: &Tried) -> Picked<S> {
        let set = self.shared.set();
        if let Some(own) = &self.own
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
        set.pick(tried, |_| true)
    }
}

/// Each callable instance is tried at most once, and no more than these.
const MOST_TRIES: usize = 10;
