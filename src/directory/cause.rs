use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    directory::{Entry, Generation, Snapshot, Standing},
    model::Address,
};

const KEPT: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Why an instance left the callable set, as far as lists tell. The wire does not say whether a
/// provider deregistered, died or was taken offline by an operator: all of them are
/// [`GoneFromList`](Self::GoneFromList).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// The registry lists it no longer.
    GoneFromList,
    /// Its provider says, by a mark on its responses, that it goes offline. Known before the registry
    /// says so.
    GoingOffline,
    /// It no longer matches the selection (`only_*`).
    LeftSelection,
    /// It is unhealthy, or of unknown health, while others are well.
    Unhealthy,
    /// Its weight became 0.
    WeightZero,
    /// An operator disabled it.
    Disabled,
    /// Its metadata shows that the provider started anew.
    Restarted,
    /// The [collapse guard](crate::guide::glossary) held it, and no longer does.
    HoldEnded,
    /// The subscription ended.
    Shutdown,
}

/// What is remembered of an instance that left.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) address: Address,
    pub(super) generation: Generation,
    pub(super) cause: RemovalCause,
    /// When it was last listed.
    pub(super) last_seen: Option<Instant>,
    pub(super) at: Instant,
}

/// The latest departures of a service: at most 64, for at most 10 minutes.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<Tombstone>);

impl Tombstones {
    pub(super) fn push(&mut self, tombstone: Tombstone) {
        self.prune(tombstone.at);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(tombstone);
    }

    pub(super) fn prune(&mut self, now: Instant) {
        while let Some(oldest) = self.0.front() {
            if now.saturating_duration_since(oldest.at) < KEPT_FOR {
                break;
            }
            self.0.pop_front();
        }
    }

    pub(super) fn latest(&self, address: &Address) -> Option<&Tombstone> {
        self.0.iter().rev().find(|t| t.address == *address)
    }

    /// Why `left`, callable once, is not among the callable of `now` any more.
    pub(super) fn cause(&self, left: &Entry, now: &Snapshot) -> RemovalCause {
        let address = left.instance.address();
        let entry = now.find(address);
        if let Some(entry) = entry
            && entry.generation == left.generation
        {
            return RemovalCause::of(entry.standing);
        }
        // Beyond 64 departures at once the stones of the first are gone: say what can be seen.
        let guess = || match entry {
            Some(_) => RemovalCause::Restarted,
            None if left.held => RemovalCause::HoldEnded,
            None => RemovalCause::GoneFromList,
        };
        self.0
            .iter()
            .rev()
            .find(|t| t.generation == left.generation && t.address == *address)
            .map_or_else(guess, |t| t.cause)
    }
}

impl RemovalCause {
    const fn of(standing: Standing) -> Self {
        match standing {
            Standing::Callable => Self::GoneFromList, // not asked of a callable one
            Standing::GoingOffline => Self::GoingOffline,
            Standing::Disabled => Self::Disabled,
            Standing::WeightZero => Self::WeightZero,
            Standing::OutsideSelection => Self::LeftSelection,
            Standing::Unhealthy | Standing::HealthUnknown => Self::Unhealthy,
        }
    }
}

impl fmt::Display for RemovalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoneFromList => "the registry lists it no longer",
            Self::GoingOffline => "its provider says that it goes offline",
            Self::LeftSelection => "it left this subscription's selection",
            Self::Unhealthy => "it is unhealthy, and others are not",
            Self::WeightZero => "its weight became 0",
            Self::Disabled => "an operator disabled it",
            Self::Restarted => "its provider started anew",
            Self::HoldEnded => {
                "the registry did not list it after a reconnect, and it is no longer held"
            }
            Self::Shutdown => "the subscription ended",
        })
    }
}
