use std::{fmt, slice, sync::Arc};

use crate::model::ServiceName;

/// The services that a filter took at one moment, sorted. Never changes.
#[derive(Clone, Default)]
pub struct ServiceNames {
    pub(super) revision: u64,
    pub(super) names: Arc<[ServiceName]>,
    pub(super) held: Arc<[ServiceName]>,
    pub(super) known: bool,
    pub(super) fresh: bool,
}

impl ServiceNames {
    /// Counts the changes of the names so far; 0 before the first.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether this service is among them.
    pub fn contains(&self, service: &ServiceName) -> bool {
        self.names.binary_search(service).is_ok()
    }

    /// All of them, sorted by group and name.
    pub fn iter(&self) -> slice::Iter<'_, ServiceName> {
        self.names.iter()
    }

    /// Those that the registry has not listed since it came back, and that are believed to be there
    /// for a while all the same, sorted. They are among the others.
    pub fn held(&self) -> &[ServiceName] {
        &self.held
    }

    /// Whether the registry has listed everything once. Before that, there are more than these.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether it has on the present connection. Else these are what was known last, and what
    /// came since.
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }
}

impl<'a> IntoIterator for &'a ServiceNames {
    type Item = &'a ServiceName;
    type IntoIter = slice::Iter<'a, ServiceName>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for ServiceNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceNames")
            .field("revision", &self.revision)
            .field("len", &self.len())
            .field("held", &self.held.len())
            .field("known", &self.known)
            .field("fresh", &self.fresh)
            .finish()
    }
}
