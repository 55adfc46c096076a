//! The lists of one service that come, by themselves or as answers, and which of them are passed on.

use std::time::{Duration, Instant};

use super::{dialer::around, event::Output, kind::Context, timers::Timer};
use crate::{
    model::{Listing, Origin, ServiceKey},
    wire::Answer,
};

/// What came of one service on this connection.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Whether one was passed on since somebody wants them.
    listed: bool,
    last_push: Option<Instant>,
    last_stamp: i64,
}

impl Lists {
    pub(super) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Somebody wants them from now on: the next is a first one.
    pub(super) const fn begin(&mut self) {
        self.listed = false;
    }

    /// From when on a read is not so near to the last push that its answer is dropped.
    pub(super) fn clear_of_push(&self, guard: Duration) -> Option<Instant> {
        Some(self.last_push? + guard + Duration::from_millis(1))
    }

    /// A push on the current stream. Applied in the order of arrival, whatever its stamp. True if it
    /// was passed on.
    pub(super) fn pushed(
        &mut self,
        key: &ServiceKey,
        listing: Listing,
        wanted: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        self.last_push = Some(cx.now); // wanted again, no older answer counts
        if !wanted {
            cx.counters.unwanted_pushes += 1;
            return false;
        }
        cx.counters.pushes += 1;
        if listing.stamp() < self.last_stamp {
            cx.counters.lower_stamps += 1;
        }
        self.last_stamp = listing.stamp();
        // A push even if it overtook the first answer: it is newer than what was pushed before.
        self.deliver(key, listing, Origin::Push, cx);
        true
    }

    /// The answer to a subscription or a read. Servers answer from a copy that is up to 0.6 s
    /// older than what they have pushed, so near a push an answer is dropped: a read never
    /// resurrects. The first list is needed in any case. But what the subscription of before asked
    /// for, before a push, is none: the next is asked for at once.
    pub(super) fn answered(
        &mut self,
        key: &ServiceKey,
        listing: Listing,
        sent: Instant,
        cx: &mut Context<'_>,
    ) {
        let outdated = self.last_push.is_some_and(|push| match self.listed {
            true => push + cx.config.read_guard >= sent,
            false => push > sent,
        });
        if outdated {
            cx.counters.dropped_reads += 1;
        } else if self.listed {
            self.deliver(key, listing, Origin::Read, cx);
        } else {
            self.deliver(key, listing, Origin::FirstAnswer, cx);
        }
    }

    fn deliver(
        &mut self,
        key: &ServiceKey,
        listing: Listing,
        origin: Origin,
        cx: &mut Context<'_>,
    ) {
        let Some(link) = cx.link else { return };
        self.listed = true;
        if let Some(about) = cx.config.safety_read {
            let at = around(cx.now, about, cx.rng);
            cx.timers.set(Timer::SafetyRead(key.clone()), at);
        }
        cx.outputs.push_back(Output::Listing {
            link,
            key: key.clone(),
            listing,
            origin,
        });
    }
}

pub(super) fn listing_of(answer: Answer) -> Option<Listing> {
    match answer {
        Answer::Subscribe { listing, .. } | Answer::Query { listing, .. } => listing,
        _ => None,
    }
}
