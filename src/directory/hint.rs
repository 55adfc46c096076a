use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::owner::Owner;

/// What probably is the matter with a service that has no instances, in words. One cell for a
/// service, which all of its snapshots show: a hint comes later than the empty list that it is
/// about, and publishing that list again would wake everybody for nothing.
#[derive(Clone, Default)]
pub(crate) struct Hint {
    own: Arc<Mutex<Option<Arc<str>>>>,
    /// Who knows whether there is a connection at all.
    owner: Option<Arc<Owner>>,
}

impl Hint {
    pub(super) fn of(owner: Option<Arc<Owner>>) -> Self {
        Self {
            owner,
            ..Self::default()
        }
    }

    /// Without a connection it is that, whatever the last one said.
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        let outage = self.owner.as_ref().and_then(|owner| owner.outage());
        outage.or_else(|| self.lock().clone())
    }

    pub(super) fn set(&self, text: Option<Arc<str>>) {
        *self.lock() = text;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}
