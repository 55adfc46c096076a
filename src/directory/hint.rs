use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What probably is the matter with a service that has no instances, in words. One cell for a
/// service, which all of its snapshots show: a hint comes later than the empty list that it is
/// about, and publishing that list again would wake everybody for nothing.
#[derive(Clone, Default)]
pub(crate) struct Hint(Arc<Mutex<Option<Arc<str>>>>);

impl Hint {
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.lock().clone()
    }

    pub(super) fn set(&self, text: Option<Arc<str>>) {
        *self.lock() = text;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}
