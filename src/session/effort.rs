use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use super::{error::OperationError, event::CallId};

/// How an item stands with the present connection: at most one request of it is under way, and a
/// failed one waits before the next.
#[derive(Debug, Default)]
pub(super) struct Effort {
    /// The request under way.
    call: Option<CallId>,
    /// Whether it stands in the queue.
    queued: bool,
    /// Whether its timer runs.
    waiting: bool,
    /// Whether the server refused for good: not before the next connection, or until the item
    /// is asked for anew.
    blocked: bool,
    /// Failures in a row.
    failures: u32,
}

/// No handler for this type of request.
const UNKNOWN_TYPE: i32 = 302;

impl Effort {
    /// Whether nothing of it is under way or waited for.
    pub(super) const fn is_idle(&self) -> bool {
        self.call.is_none() && !self.queued && !self.waiting && !self.blocked
    }

    /// Whether it waits, and for no retry.
    pub(super) const fn is_resting(&self) -> bool {
        self.waiting && self.failures == 0
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.call.is_some()
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// It stands in the queue now.
    pub(super) const fn queue(&mut self) {
        self.queued = true;
    }

    /// Its turn: whether it stood in the queue, and not one that ended and began again meanwhile.
    pub(super) const fn take_turn(&mut self) -> bool {
        std::mem::replace(&mut self.queued, false)
    }

    pub(super) const fn sent(&mut self, call: CallId) {
        self.call = Some(call);
    }

    pub(super) const fn ended(&mut self) {
        self.call = None;
    }

    /// Its timer runs from now on.
    pub(super) const fn wait(&mut self) {
        self.waiting = true;
    }

    pub(super) const fn wake(&mut self) {
        self.waiting = false;
    }

    /// The server agrees.
    pub(super) const fn settled(&mut self) {
        self.failures = 0;
    }

    /// What is wanted changed, or somebody asks again: past failures no longer count.
    pub(super) const fn begin_anew(&mut self) {
        self.waiting = false;
        self.blocked = false;
        self.failures = 0;
    }

    /// That it is refused says nothing of what else may be asked for it.
    pub(super) const fn unblock(&mut self) {
        self.blocked = false;
    }

    /// The connection is another. Some items count their failures over all of them.
    pub(super) fn forget(&mut self, keep_failures: bool) {
        *self = Self {
            failures: if keep_failures { self.failures } else { 0 },
            ..Self::default()
        };
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
