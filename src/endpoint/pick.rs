use std::sync::Arc;

use crate::endpoint::{
    admission::Place, choice::Picked, member::Endpoint, shared::Shared, tried::Tried,
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

/// Any open instance.
#[cfg(feature = "testing")]
pub(crate) struct Any<S, R, C, V>(pub(crate) Arc<Shared<S, R, C, V>>);

/// One's own instance; another when that one is shut or was tried.
pub(crate) struct OwnFirst<S, R, C, V> {
    pub(crate) shared: Arc<Shared<S, R, C, V>>,
    pub(crate) own: Option<Arc<Endpoint<S>>>,
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
            if state.offers_probe() && own.take_probe() {
                return Picked::Place(Place::new(Arc::clone(own), true));
            }
        }
        set.pick(tried, |_| true)
    }
}
