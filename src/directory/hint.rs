use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::owner::Owner;
use crate::model::Source;

/// What probably is the matter with a service that has no instances, in words. One cell for a
/// service, which all of its snapshots show: a hint comes later than the empty list that it is
/// about, and publishing that list again would wake everybody for nothing.
#[derive(Clone, Default)]
pub(crate) struct Hint {
    own: Arc<Mutex<Option<Arc<str>>>>,
    /// Who knows whether there is a connection at all.
    owner: Option<Arc<Owner>>,
    /// Of a merged set: those of its sources, with what these are called.
    sources: Arc<[(Arc<Source>, Self)]>,
}

impl Hint {
    pub(super) fn of(owner: Option<Arc<Owner>>) -> Self {
        Self {
            owner,
            ..Self::default()
        }
    }

    pub(super) fn merged(sources: impl IntoIterator<Item = (Arc<Source>, Self)>) -> Self {
        Self {
            sources: sources.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Without a connection it is that, whatever the last one said.
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        let outage = self.owner.as_ref().and_then(|owner| owner.outage());
        outage
            .or_else(|| self.lock().clone())
            .or_else(|| self.of_sources())
    }

    fn of_sources(&self) -> Option<Arc<str>> {
        let hints = self.sources.iter();
        let hints = hints.filter_map(|(source, hint)| Some(format!("{source}: {}", hint.get()?)));
        let hints: Vec<_> = hints.collect();
        (!hints.is_empty()).then(|| hints.join("; ").into())
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
