use crate::endpoint::{error::CallError, rules::Verdict};

/// What became of a request: its place in what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Ok,
    /// Answered, after another instance had failed it or had not processed it.
    Moved,
    NoInstances,
    NoMatch,
    Unknown,
    Overloaded,
    AllUnreachable,
    Unusable,
    /// Its deadline passed before an instance had it.
    WaitedTooLong,
    /// Answered, and the answer counts as a failure of the instance.
    BadAnswer,
    Unreachable,
    Lost,
    Error,
    TryTimedOut,
    Deadline,
    Cut,
    /// Its caller let go of it.
    Aborted,
}

/// How many there are.
#[cfg(feature = "metrics")]
pub(crate) const FATES: usize = Fate::Aborted as usize + 1;

impl Fate {
    /// That of a call with this error; of one that its instance failed it is what was made out of that.
    pub(crate) const fn of(error: &CallError, failed: Self) -> Self {
        match error {
            CallError::NoInstances { .. } => Self::NoInstances,
            CallError::Unknown { .. } => Self::Unknown,
            CallError::NoMatch { .. } => Self::NoMatch,
            CallError::Overloaded { .. } => Self::Overloaded,
            CallError::AllUnreachable { .. } => Self::AllUnreachable,
            CallError::Unusable { .. } => Self::Unusable,
            CallError::Evicted { .. } => Self::Lost,
            CallError::Aborted { .. } => Self::Cut,
            CallError::TryTimedOut { .. } => Self::TryTimedOut,
            CallError::Inner { .. } => match failed {
                Self::Ok => Self::Error,
                failed => failed,
            },
        }
    }

    /// That of a call that its instance failed.
    pub(crate) const fn of_verdict(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Reachable => Self::Error,
            Verdict::Unreachable(_) => Self::Unreachable,
            Verdict::Lost(_) => Self::Lost,
        }
    }

    /// Whether an instance had it: how long that took says something.
    #[cfg(feature = "metrics")]
    pub(crate) const fn took_place(self) -> bool {
        use Fate::*;
        matches!(
            self,
            Ok | Moved | BadAnswer | Unreachable | Lost | Error | TryTimedOut | Deadline | Cut
        )
    }
}
