use super::sequence::State;

/// How far a provider is. The order is that of its life.
///
/// Example: [hooks](crate::provider::Hooks)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Nobody has asked it to go online.
    Idle,
    /// It waits until it is ready, or for the registry.
    Starting,
    /// The registry has confirmed it. Callers hear of it about 0.6 s later.
    Online,
    /// It says that it is not ready, and waits for the registry to confirm that it does not list it.
    Leaving,
    /// Callers hear of that. All calls are served, and each response carries the mark.
    Lingering,
    /// Nothing new is let in; what is in flight is finished.
    Draining,
    /// It has ended.
    Over,
}

impl Stage {
    pub(super) const fn of(state: State) -> Self {
        match state {
            State::Idle => Self::Idle,
            State::Asking { .. }
            | State::Checking { .. }
            | State::Delaying { .. }
            | State::Registering
            | State::Retrying { .. } => Self::Starting,
            State::Online => Self::Online,
            State::Deregistering { .. } => Self::Leaving,
            State::Lingering { .. } => Self::Lingering,
            State::Draining { .. } => Self::Draining,
            State::Over => Self::Over,
        }
    }

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Leaving => "leaving",
            Self::Lingering => "lingering",
            Self::Draining => "draining",
            Self::Over => "over",
        }
    }
}
