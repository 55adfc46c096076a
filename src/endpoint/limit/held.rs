//! What the limit of an instance has to do with the calls that it gets.

use crate::endpoint::{clock, latency::Mark, member::Endpoint};

impl<S> Endpoint<S> {
    /// Whether it has room for a call, and refused none just now; `now` where calls are limited.
    #[inline]
    pub(crate) fn has_room(&self, now: Option<Mark>) -> bool {
        match (now, &self.limit) {
            (Some(now), Some(limit)) => limit.is_open(now),
            _ => true,
        }
    }

    /// How many calls it gets at once now, and how many it has that it has not answered.
    pub(crate) fn limit(&self) -> Option<[u32; 2]> {
        self.limit.as_ref().map(|limit| limit.told())
    }

    /// A call needs room no more: whoever waits for it is told.
    pub(in crate::endpoint) fn leave_room(&self) {
        if let Some(limit) = &self.limit
            && limit.give_back()
        {
            self.wakers().wake_next();
        }
    }

    /// A call that began then was answered.
    pub(in crate::endpoint) fn answered_within_limit(&self, since: Option<Mark>) {
        if let (Some(limit), Some(since)) = (&self.limit, since) {
            let now = self.hub.mark(clock::now());
            limit.answered(now.since(since), now);
        }
        self.leave_room();
    }

    /// It had too much to do for a call.
    #[cold]
    pub(in crate::endpoint) fn refused_within_limit(&self) {
        if let Some(limit) = &self.limit {
            limit.refused(self.hub.mark(clock::now()));
        }
        self.leave_room();
    }

    /// Somebody waits no longer, who may have been told of room and not taken it.
    #[cold]
    pub(in crate::endpoint) fn waits_no_more(&self) {
        if let Some(limit) = &self.limit {
            limit.end_waiting();
            if limit.owes() {
                self.wakers().wake_next();
            }
        }
    }
}
