use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use super::{error::OperationError, event::CallId};

/// No handler for this type of request.
const UNKNOWN_TYPE: i32 = 302;

/// How an item (a subscription, a publication, a read) stands with the present connection: at
/// most one request of it is under way, and a failed one waits before the next.
#[derive(Debug, Default)]
pub(super) struct Effort {
    /// The request under way.
    pub(super) call: Option<CallId>,
    /// Whether it stands in the queue.
    pub(super) queued: bool,
    /// Whether its retry timer runs.
    pub(super) waiting: bool,
    /// Whether the server refused for good: not before the next connection, or until the item
    /// is asked for anew.
    pub(super) blocked: bool,
    /// Failures in a row.
    pub(super) failures: u32,
}

impl Effort {
    /// Whether nothing of it is under way or waited for.
    pub(super) const fn is_idle(&self) -> bool {
        self.call.is_none() && !self.queued && !self.waiting && !self.blocked
    }

    /// What is wanted changed, or somebody asks again: past failures no longer count.
    pub(super) const fn begin_anew(&mut self) {
        self.waiting = false;
        self.blocked = false;
        self.failures = 0;
    }

    /// Takes note of a failure: how long to wait, or `None` for never on this connection.
    pub(super) fn fail(&mut self, error: &OperationError, rng: &mut StdRng) -> Option<Duration> {
        let seldom = (Duration::from_secs(5), Duration::from_secs(60));
        let (first, cap) = match error {
            // A server that is starting may not know the type yet.
            OperationError::Refused(error) if error.code == UNKNOWN_TYPE => seldom,
            error if error.is_permanent() => {
                self.blocked = true;
                return None;
            }
            // Neither credentials nor sizes change by asking; new headers wake the item at once.
            OperationError::Denied(_) | OperationError::TooLarge(_) => seldom,
            // Over a limit; the server held even this answer back for a second.
            OperationError::Refused(error) if error.code == 503 => {
                (Duration::from_secs(1), Duration::from_secs(10))
            }
            _ => (Duration::from_millis(200), Duration::from_secs(5)),
        };
        let bound = first.saturating_mul(1 << self.failures.min(16)).min(cap);
        self.failures = self.failures.saturating_add(1);
        self.waiting = true;
        Some(bound.mul_f64(rng.random_range(0.5..=1.0)))
    }
}
