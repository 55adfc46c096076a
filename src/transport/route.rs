use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use crate::model::Address;

/// In a request's extensions: where its tries went, for whoever tells of the call. Noted only by transports
/// that were made to ([`MakeTransport::noting`](super::MakeTransport::noting)).
#[derive(Clone, Default)]
pub(crate) struct Route(Arc<Noted>);

#[derive(Default)]
struct Noted {
    sent: AtomicU32,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    instance: Option<Address>,
    /// Whether it answered: of two at once the other is not of interest.
    answered: bool,
}

impl Route {
    /// The request is at this instance.
    pub(super) fn comes_to(&self, instance: &Address) {
        self.note(instance, false);
    }

    /// A connection is given it.
    pub(super) fn goes_out(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection gave it back, or was told that nobody read it.
    pub(super) fn did_not_go_out(&self) {
        self.0.sent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, instance: &Address) {
        self.note(instance, true);
    }

    fn note(&self, instance: &Address, answered: bool) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if answered || !last.answered {
            last.instance = Some(instance.clone());
            last.answered = answered;
        }
    }

    /// Who answered, or who had it last.
    pub(crate) fn instance(&self) -> Option<Address> {
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.instance.clone()
    }

    /// How often it was sent after the first time.
    pub(crate) fn resends(&self) -> u32 {
        self.0.sent.load(Ordering::Relaxed).saturating_sub(1)
    }
}
