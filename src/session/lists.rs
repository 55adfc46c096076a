//! The lists that come, by themselves or as answers, and which of them are passed on.

use std::time::{Duration, Instant};

use super::{
    dialer::around,
    error::OperationError,
    event::Output,
    item::{Context, Id, Item, Kind},
    machine::Session,
    subscriptions::Subscription,
    timers::Timer,
};
use crate::{
    model::{Listing, Origin, ServiceKey},
    wire::Answer,
};

/// How soon one service is read again for pushes that cannot be decoded.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);

impl Subscription {
    /// A push on the current stream. Applied in the order of arrival, whatever its stamp.
    fn pushed(&mut self, key: &ServiceKey, listing: Listing, cx: &mut Context<'_>) {
        self.last_push = Some(cx.now); // wanted again, no older answer counts
        if !self.wanted {
            cx.counters.unwanted_pushes += 1;
            return;
        }
        cx.counters.pushes += 1;
        if listing.stamp() < self.last_stamp {
            cx.counters.lower_stamps += 1;
        }
        self.last_stamp = listing.stamp();
        self.reread = None; // nothing that a read could bring is newer
        // A push even if it overtook the first answer: it is newer than what was pushed before.
        self.deliver(key, listing, Origin::Push, cx);
    }

    /// The answer to a subscription or a read. Servers answer from a copy that is up to 0.6 s
    /// older than what they have pushed, so near a push an answer is dropped: a read never
    /// resurrects. The first list is needed in any case. But what the subscription of before asked
    /// for, before a push, is none: the next is asked for at once.
    pub(super) fn list_came(
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

impl Session {
    pub(super) fn pushed(&mut self, key: ServiceKey, listing: Listing, now: Instant) {
        let id = Id::Subscription(key);
        let item = self.with_item(&id, now);
        if let (
            Id::Subscription(key),
            Some((
                Item {
                    kind: Kind::Subscription(subscription),
                    ..
                },
                _,
                mut cx,
            )),
        ) = (&id, item)
        {
            subscription.pushed(key, listing, &mut cx);
        } else {
            self.counters.unwanted_pushes += 1;
        }
    }

    /// A push that cannot be read: one read of that service, or of all if nobody knows which.
    pub(super) fn undecodable_push(
        &mut self,
        key: Option<ServiceKey>,
        reason: String,
        now: Instant,
    ) {
        self.counters.undecodable += 1;
        let ids: Vec<Id> = match &key {
            Some(key) => vec![Id::Subscription(key.clone())],
            None => self.items.ids().cloned().collect(),
        };
        self.outputs.push_back(Output::Undecodable { key, reason });
        for id in ids {
            let Id::Subscription(key) = &id else { continue };
            let Some(subscription) = self.items.subscription(key) else {
                continue;
            };
            if !subscription.wanted {
                continue;
            }
            let after_push = subscription.clear_of_push(self.config.read_guard);
            let after_read = subscription.last_reread.map(|at| at + REREAD_INTERVAL);
            let at = [after_push, after_read].into_iter().flatten().max();
            subscription.reread = Some(at.map_or(now, |at| at.max(now)));
            self.touch(&id, now);
        }
    }

    /// Somebody needs to know what the server lists now.
    pub(super) fn refresh(&mut self, key: &ServiceKey, now: Instant) {
        let guard = self.config.read_guard;
        let Some(subscription) = self.items.subscription(key).filter(|s| s.wanted) else {
            return;
        };
        let id = Id::Subscription(key.clone());
        if !subscription.listed {
            return self.begin_anew(&id, now); // the first answer, without further waits
        }
        // Not so near to the last push that the answer would have to be dropped.
        subscription.reread = subscription.clear_of_push(guard).max(Some(now));
        self.touch(&id, now);
    }

    /// No push for a long time: a read, in case one was lost.
    pub(super) fn safety_read_due(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(about) = self.config.safety_read {
            let at = around(now, about, &mut self.rng);
            self.timers.set(Timer::SafetyRead(key.clone()), at);
        }
        self.refresh(key, now);
    }
}

pub(super) fn listing_of(answer: Answer) -> Option<Listing> {
    match answer {
        Answer::Subscribe { listing, .. } | Answer::Query { listing, .. } => listing,
        _ => None,
    }
}

impl Answer {
    /// Itself, if it does not say that it is about another service than was asked about.
    pub(super) fn about(self, key: &ServiceKey) -> Result<Self, OperationError> {
        match &self {
            Self::Subscribe { service, .. } | Self::Query { service, .. } => match service {
                Some(other) if other != key.service() => Err(OperationError::Undecodable(format!(
                    "it is about another service, {other}"
                ))),
                _ => Ok(self),
            },
            _ => Ok(self),
        }
    }
}
