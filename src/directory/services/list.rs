use std::{any::Any, fmt, sync::Arc};

use super::{names::ServiceNames, shared::Shared};
use crate::model::ServiceFilter;

/// Which services a filter takes, kept in step with the registry; see
/// [`Client::services`](crate::Client::services).
///
/// Clones, and handles on equal filters of one client, share one list. It is kept while one of them
/// or of their streams is there.
#[derive(Clone)]
pub struct ServiceList {
    pub(super) shared: Arc<Shared>,
    /// Its last clone's drop tells the client that nobody reads any longer.
    lease: Option<Arc<dyn Any + Send + Sync>>,
}

impl ServiceList {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lease: None,
        }
    }

    /// Kept alive by this handle and its clones.
    pub(crate) fn with_lease(mut self, lease: Arc<dyn Any + Send + Sync>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// What it is a list of.
    pub fn filter(&self) -> &ServiceFilter {
        &self.shared.filter
    }

    /// The services as they are now. Takes no lock.
    pub fn snapshot(&self) -> Arc<ServiceNames> {
        self.shared.names()
    }
}

impl fmt::Debug for ServiceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceList")
            .field("filter", self.filter())
            .field("names", &self.snapshot())
            .finish_non_exhaustive()
    }
}
