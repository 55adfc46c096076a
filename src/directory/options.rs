use std::{sync::Arc, time::Duration};

use super::owner::Owner;

/// What to do when every enabled instance with a weight is unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnAllUnhealthy {
    /// Call the unhealthy ones: one of them may work, and calling nobody cannot. The default.
    #[default]
    Panic,
    /// Call nobody.
    FailFast,
}

/// How the local copy of one service behaves; each field says its default, and why.
///
/// An instance that the registry listed before a reconnect, and does not list after it, may be *held*: called for a
/// while yet, since a registry that has just started does not know everybody. [How an eviction
/// happens](crate::guide::eviction#when-a-list-is-not-believed) has the picture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What to do when every instance is unhealthy. Default [`OnAllUnhealthy::Panic`], because one
    /// of them may work; it costs a wait for those that do not.
    pub on_all_unhealthy: OnAllUnhealthy,
    /// Metadata keys that identify one start of a provider: a change in one of them is a restart,
    /// hence a new [`Generation`](crate::directory::Generation). Default `version`, `timestamp`,
    /// `startTime`, which frameworks set, so that nothing learned of the former process counts
    /// against the new one. Each costs a comparison a list and instance; a key that changes without
    /// a restart costs a needless reconnection each time.
    pub start_keys: Arc<[Box<str>]>,
    /// The share of the callable instances, 0.0 to 1.0, that may be missing from the first answer
    /// of a new connection and is believed after [`believed_hold`](Self::believed_hold); one
    /// instance always is, unless it was the last. Default 0.2: a few leave while nobody listens,
    /// but a registry that has just started does not know its instances yet. A higher one empties
    /// clients sooner after a registry's restart; at 1.0 only the last is held for longer.
    pub believed_share: f64,
    /// How long those few are held without the list growing, before it is believed that they left.
    /// Default 3 s: who was there throughout a restart is back by then, and is never evicted (the
    /// last of a service's providers registered up to 2.9 s after our first answer, measured on
    /// Nacos 3.1.0). Half-way a client reads the list once more. A longer one calls instances that
    /// left during an outage for longer, unless their connection says so; with zero they leave at
    /// once, and so does whoever a registry hears of late.
    pub believed_hold: Duration,
    /// How long held instances stay without the list growing. Default 60 s, ten times what
    /// providers with slow clients need to register again. 6 s before its end (sooner if this is
    /// below 12 s) a client reads the list once more, safety reads or not, since the push that told
    /// of their return may be lost. A longer one calls instances that are really gone for longer,
    /// unless their connection says so.
    pub hold: Duration,
    /// How long an instance is held at most, from the beginning. Default 180 s, the longest that a
    /// registry took to notice a lost rack: no set is older than that once it is connected.
    pub hold_limit: Duration,
    /// The guard against mass drops while the connection is intact. Default off: such a list is
    /// obeyed at once, because the registry has seen these instances and says that they are gone.
    /// It costs what [`MassDrop`] says.
    pub mass_drop: Option<MassDrop>,
    /// How long the first answer of a new connection may not bring back what a push removed
    /// before. Default 3 s: another node of a cluster lags by up to 1.6 s. A longer one delays an
    /// instance that really came back, until the push that tells so.
    pub lag: Duration,
    /// How long a set that has been empty since the first answer counts as unknown. Default 3 s: a
    /// registry that just started answers with nothing for so long, and calls that wait succeed.
    /// Zero lets calls to a service that nobody provides fail at once.
    pub unknown_while_empty: Duration,
    /// Whose copy it is, if it is a client's.
    pub(crate) owner: Option<Arc<Owner>>,
}

/// When a list on an intact connection is not believed at once: see [`Options::mass_drop`].
///
/// Holding means calling instances that the registry says are gone, so this is a choice. There are no defaults: which
/// loss cannot be true is yours to know. For a service of ten instances and more that never loses half of them at
/// once, say:
///
/// ```
/// use std::time::Duration;
/// use tower_nacos::directory::{MassDrop, Options};
///
/// let guard = MassDrop { share: 0.5, minimum: 5, hold: Duration::from_secs(30) };
/// let options = Options::default().mass_drop(guard);
/// assert_eq!(options.mass_drop, Some(guard));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassDrop {
    /// Lists that lack more than this share of the callable instances, 0.0 to 1.0, are held back: who is missing
    /// stays callable.
    pub share: f64,
    /// And at least so many instances, so that one of two is no mass.
    pub minimum: usize,
    /// How long the missing ones stay without the list growing; [`Options::hold_limit`] ends it in any case.
    pub hold: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            on_all_unhealthy: OnAllUnhealthy::Panic,
            start_keys: ["version", "timestamp", "startTime"].map(Box::from).into(),
            believed_share: 0.2,
            believed_hold: Duration::from_secs(3),
            hold: Duration::from_secs(60),
            hold_limit: Duration::from_secs(180),
            mass_drop: None,
            lag: Duration::from_secs(3),
            unknown_while_empty: Duration::from_secs(3),
            owner: None,
        }
    }
}

impl Options {
    /// Sets what to do when every instance is unhealthy.
    #[must_use]
    pub const fn on_all_unhealthy(mut self, choice: OnAllUnhealthy) -> Self {
        self.on_all_unhealthy = choice;
        self
    }

    /// Sets the metadata keys that identify a start; none for "restarts never show".
    #[must_use]
    pub fn start_keys<K: Into<Box<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.start_keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Switches the guard against mass drops on an intact connection on.
    #[must_use]
    pub const fn mass_drop(mut self, guard: MassDrop) -> Self {
        self.mass_drop = Some(guard);
        self
    }

    /// Sets the [share](Self::believed_share) that may be missing after a reconnect.
    #[must_use]
    pub const fn believed_share(mut self, share: f64) -> Self {
        self.believed_share = share;
        self
    }

    /// Sets how long the few are held that may be missing [after a reconnect](Self::believed_hold).
    #[must_use]
    pub const fn believed_hold(mut self, time: Duration) -> Self {
        self.believed_hold = time;
        self
    }

    /// Sets how long held instances stay without the list [growing](Self::hold).
    #[must_use]
    pub const fn hold(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// Sets how long an instance is held [at most](Self::hold_limit).
    #[must_use]
    pub const fn hold_limit(mut self, time: Duration) -> Self {
        self.hold_limit = time;
        self
    }

    /// Sets how long a first answer may not [bring back](Self::lag) what a push removed.
    #[must_use]
    pub const fn lag(mut self, time: Duration) -> Self {
        self.lag = time;
        self
    }

    /// Sets how long an empty first answer counts as [unknown](Self::unknown_while_empty).
    #[must_use]
    pub const fn unknown_while_empty(mut self, time: Duration) -> Self {
        self.unknown_while_empty = time;
        self
    }
}
