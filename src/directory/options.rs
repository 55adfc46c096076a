use std::{sync::Arc, time::Duration};

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

/// How the local copy of one service behaves. The defaults are those of the documentation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What to do when every instance is unhealthy.
    pub on_all_unhealthy: OnAllUnhealthy,
    /// Metadata keys that identify one start of a provider: a change in one of them is a restart,
    /// hence a new [`Generation`](crate::directory::Generation). Default `version`, `timestamp`,
    /// `startTime`.
    pub start_keys: Arc<[Box<str>]>,
    /// The share of the callable instances that may be missing from the first answer of a new
    /// connection and is believed at once; one instance always is, unless it was the last.
    /// Default 0.2.
    pub believed_share: f64,
    /// How long held instances stay without the list growing. Default 60 s.
    pub hold: Duration,
    /// How long an instance is held at most, from the beginning. Default 180 s.
    pub hold_limit: Duration,
    /// The guard against mass drops while the connection is intact. Default off: such a list is
    /// obeyed at once.
    pub mass_drop: Option<MassDrop>,
    /// How long the first answer of a new connection may not bring back what a push removed
    /// before: another node of a cluster lags by up to 1.6 s. Default 3 s.
    pub lag: Duration,
    /// How long a set that has been empty since the first answer counts as unknown. Default 3 s.
    pub unknown_while_empty: Duration,
}

/// When a list on an intact connection is held back: see [`Options::mass_drop`].
///
/// Holding means calling instances that the registry says are gone, so this is a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassDrop {
    /// Lists that lack more than this share of the callable instances are held back.
    pub share: f64,
    /// And at least so many.
    pub minimum: usize,
    /// How long the missing ones stay without the list growing.
    pub hold: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            on_all_unhealthy: OnAllUnhealthy::Panic,
            start_keys: ["version", "timestamp", "startTime"].map(Box::from).into(),
            believed_share: 0.2,
            hold: Duration::from_secs(60),
            hold_limit: Duration::from_secs(180),
            mass_drop: None,
            lag: Duration::from_secs(3),
            unknown_while_empty: Duration::from_secs(3),
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
}
