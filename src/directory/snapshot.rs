use std::{fmt, sync::Arc, time::Instant};

use crate::{
    directory::{health::Health, hint::Hint},
    model::{Address, Instance},
};

/// The number of a snapshot: rises by one with each change that a list brought, never repeats
/// within a subscription. 0 is the state before the registry's first answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub(crate) u64);

/// One uninterrupted presence of an address in the lists of a service.
///
/// Absent and then present again is a new generation, and so is a restart that shows in the
/// metadata. Attributes that change in place do not make one. Unique within a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub(crate) u64);

/// How far the health that a snapshot reports can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Only healthy instances are callable.
    #[default]
    Normal,
    /// The server's protection rule is in force (`reachProtectionThreshold`): it calls every
    /// instance healthy, so health is what it was before, or unknown.
    Flagged,
    /// No instance is healthy or unknown; the unhealthy ones are callable, since calling one of
    /// them may work and calling nobody cannot.
    Panic,
}

/// Whether an instance of a snapshot may be called, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It may be called.
    Callable,
    /// Its provider says with its responses that it goes offline, and the registry still lists it.
    /// For 60 s at most.
    GoingOffline,
    /// An operator disabled it.
    Disabled,
    /// Its weight is 0.
    WeightZero,
    /// It lies outside of the selection (`only_*`) of this subscription.
    OutsideSelection,
    /// It is unhealthy, and others are not (or `FailFast` asks for none rather than an unhealthy
    /// one).
    Unhealthy,
    /// Its health is not known (it was first listed while the server's protection rule was in
    /// force), and others are known to be healthy.
    HealthUnknown,
}

/// One instance in a snapshot.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) instance: Arc<Instance>,
    pub(crate) generation: Generation,
    pub(crate) standing: Standing,
    pub(crate) held: bool,
    /// Whether its provider said that it goes offline.
    pub(crate) leaving: bool,
    /// What is believed of its health, whichever rung is callable.
    pub(crate) health: Health,
}

/// All instances of a service as one subscription sees them at one moment. Immutable.
///
/// A snapshot is as new as the last list that was applied, or older, if a newer one has been
/// published since you took it: take it, use it, drop it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) mode: Mode,
    pub(crate) known: bool,
    /// Whether it ended without becoming known: nobody need wait for that.
    pub(crate) ended: bool,
    pub(crate) received: Option<Instant>,
    pub(crate) callable: usize,
    /// Sorted by address, each address once.
    pub(crate) entries: Box<[Entry]>,
    /// Shared by all snapshots of the service; the one part that changes.
    pub(crate) hint: Hint,
}

impl Revision {
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Standing {
    /// Whether the instance may be called.
    pub const fn is_callable(self) -> bool {
        matches!(self, Self::Callable)
    }

    /// In words that fit a list of several.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Callable => "callable",
            Self::GoingOffline => "its provider says that it goes offline",
            Self::Disabled => "disabled by an operator",
            Self::WeightZero => "its weight is 0",
            Self::OutsideSelection => "outside of this subscription's selection",
            Self::Unhealthy => "unhealthy",
            Self::HealthUnknown => "its health is unknown, and others are known to be healthy",
        }
    }
}

impl Entry {
    /// The instance.
    pub const fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Which presence of its address this is.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether it may be called, and if not, why.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the registry no longer lists it and the [collapse guard](crate::guide::glossary) keeps it.
    pub const fn is_held(&self) -> bool {
        self.held
    }
}

impl Snapshot {
    /// The number of this snapshot.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// How far the reported health can be believed.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the registry has answered, or a set was found on disk. Until then an empty snapshot means "unknown", not "no
    /// instances"; so it does for the first 3 s (`Options::unknown_while_empty`) after a first
    /// answer that was empty, since a registry that just restarted answers so too.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    /// When the list behind this snapshot was received, if one was.
    pub const fn received_at(&self) -> Option<Instant> {
        self.received
    }

    /// All instances, callable or not, sorted by address.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The instances that may be called.
    pub fn callable(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.standing.is_callable())
    }

    /// How many instances may be called.
    pub const fn callable_len(&self) -> usize {
        self.callable
    }

    /// What to do about it that instances are listed and none may be called.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        if self.callable > 0 || self.entries.is_empty() {
            return None;
        }
        let has = |standing| self.entries.iter().any(|entry| entry.standing == standing);
        Some(if has(Standing::Unhealthy) {
            "unhealthy instances are not called under `OnAllUnhealthy::FailFast`; the default calls \
             them when there are no others"
        } else if has(Standing::WeightZero) {
            "a weight of 0 drains an instance: raise it in the registry's console, or wait for \
             instances that have one"
        } else if has(Standing::GoingOffline) {
            "its providers say that they go offline; wait for others"
        } else if has(Standing::OutsideSelection) {
            "widen the selection (`only_*`)"
        } else {
            "enable them in the registry's console"
        })
    }

    /// What probably is the matter while nothing is listed.
    pub(crate) fn hint(&self) -> Option<Arc<str>> {
        self.hint.get()
    }

    /// The instance at `address`, by binary search.
    pub fn find(&self, address: &Address) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by(|e| e.instance.address().cmp(address))
            .ok()?;
        Some(&self.entries[at])
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
