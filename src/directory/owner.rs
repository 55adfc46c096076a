use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The client that a local copy belongs to, as far as lines of the log and errors tell of it. One
/// for all of its services, so that an outage is noted once and not once a service.
#[derive(Debug)]
pub(crate) struct Owner {
    name: Arc<str>,
    /// Why there is no connection to the registry, if there is none.
    outage: Mutex<Option<Arc<str>>>,
}

impl Owner {
    pub(crate) fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            outage: Mutex::default(),
        })
    }

    /// What tells clients of one process apart.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// There is no connection to the registry, for this reason; or (`None`) there is one.
    pub(crate) fn set_outage(&self, cause: Option<Arc<str>>) {
        *self.lock() = cause;
    }

    /// Why there is none, in words, if that is so.
    pub(super) fn outage(&self) -> Option<Arc<str>> {
        let cause = self.lock().clone()?;
        Some(format!("there is no connection to the registry: {cause}").into())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
