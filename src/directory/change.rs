use std::{fmt, sync::Arc, time::Instant};

use crate::{
    directory::{Entry, Generation, RemovalCause, Revision, Snapshot, cause::Tombstones, diff},
    model::Instance,
};

/// One change of the callable set of a subscription.
///
/// Folding all changes from the beginning gives the callable instances of the newest snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// The revision that this change leads to. Changes of one revision come together, removals
    /// first; a slow reader sees several revisions as one.
    pub revision: Revision,
    /// The instance; for a removal as it was last.
    pub instance: Arc<Instance>,
    /// Which presence of its address.
    pub generation: Generation,
    /// When the list that brought the change was received; `None` of a fixed set.
    pub received_at: Option<Instant>,
    /// Whether the registry does not list it and the [collapse guard](crate::guide::glossary) keeps it.
    pub held: bool,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It may be called from now on.
    Added,
    /// It may not be called any more.
    Removed {
        /// Why, as far as lists tell.
        cause: RemovalCause,
    },
    /// An attribute (weight, cluster, metadata, [`held`](Change::held)) changed in place.
    Updated,
}

impl Change {
    /// Why it was removed, if it was.
    pub const fn cause(&self) -> Option<RemovalCause> {
        match self.kind {
            ChangeKind::Removed { cause } => Some(cause),
            _ => None,
        }
    }

    pub(super) fn new(at: &Snapshot, entry: &Entry, kind: ChangeKind) -> Self {
        Self {
            revision: at.revision,
            instance: Arc::clone(&entry.instance),
            generation: entry.generation,
            received_at: at.received,
            held: entry.held,
            kind,
        }
    }
}

/// The changes of the callable set that lead from `old` to `new`, removals first.
pub(super) fn between(old: &Snapshot, new: &Snapshot, stones: &Tombstones) -> Vec<Change> {
    let mut removed = Vec::new();
    let mut others = Vec::new();
    for pair in diff::pairs(&old.entries, &new.entries) {
        let before = pair.old.filter(|entry| entry.standing.is_callable());
        let now = pair
            .new
            .map(|(_, entry)| entry)
            .filter(|entry| entry.standing.is_callable());
        let remove = |entry: &Entry| {
            let cause = stones.cause(entry, new);
            Change::new(new, entry, ChangeKind::Removed { cause })
        };
        match (before, now) {
            (Some(before), Some(now)) if before.generation == now.generation => {
                if before.held != now.held || !Arc::ptr_eq(&before.instance, &now.instance) {
                    others.push(Change::new(new, now, ChangeKind::Updated));
                }
            }
            (before, now) => {
                removed.extend(before.map(remove));
                others.extend(now.map(|entry| Change::new(new, entry, ChangeKind::Added)));
            }
        }
    }
    removed.append(&mut others);
    removed
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.instance.address();
        match self.kind {
            ChangeKind::Added => write!(f, "{address} added"),
            ChangeKind::Removed { cause } => write!(f, "{address} removed: {cause}"),
            ChangeKind::Updated if self.held => write!(f, "{address} held"),
            ChangeKind::Updated => write!(f, "{address} updated"),
        }
    }
}
