//! The lists that come, by themselves or as answers, and which of them are passed on.

use std::time::{Duration, Instant};

use super::{
    dialer::around,
    error::OperationError,
    event::{Operation, Output},
    machine::Session,
    timers::Timer,
};
use crate::{
    model::{Listing, Origin, ServiceKey},
    wire::Answer,
};

/// How soon one service is read again for pushes that cannot be decoded.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);

impl Session {
    /// A push on the current stream. Applied in the order of arrival, whatever its stamp.
    pub(super) fn pushed(&mut self, key: &ServiceKey, listing: Listing, now: Instant) {
        let mut subscription = self.subscriptions.get_mut(key);
        if let Some(subscription) = &mut subscription {
            subscription.last_push = Some(now); // wanted again, no older answer counts
        }
        let Some(subscription) = subscription.filter(|subscription| subscription.wanted) else {
            self.counters.unwanted_pushes += 1;
            return;
        };
        self.counters.pushes += 1;
        if listing.stamp() < subscription.last_stamp {
            self.counters.lower_stamps += 1;
        }
        subscription.last_stamp = listing.stamp();
        subscription.reread = None; // nothing that a read could bring is newer
        // A push even if it overtook the first answer: it is newer than what was pushed before.
        self.deliver(key, listing, Origin::Push, now);
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
        now: Instant,
    ) {
        let guard = self.config.read_guard;
        let Some(subscription) = self.subscriptions.get(key) else {
            return;
        };
        let (listed, last_push) = (subscription.listed, subscription.last_push);
        let outdated = last_push.is_some_and(|push| match listed {
            true => push + guard >= sent,
            false => push > sent,
        });
        if outdated {
            self.counters.dropped_reads += 1;
        } else if !listed {
            self.deliver(key, listing, Origin::FirstAnswer, now);
        } else {
            self.deliver(key, listing, Origin::Read, now);
        }
    }

    fn deliver(&mut self, key: &ServiceKey, listing: Listing, origin: Origin, now: Instant) {
        let Some(link) = self.current.as_ref().map(|link| link.id) else {
            return;
        };
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.listed = true;
        }
        if let Some(about) = self.config.safety_read {
            let at = around(now, about, &mut self.rng);
            self.timers.set(Timer::SafetyRead(key.clone()), at);
        }
        self.outputs.push_back(Output::Listing {
            link,
            key: key.clone(),
            listing,
            origin,
        });
    }

    /// A push that cannot be read: one read of that service, or of all if nobody knows which.
    pub(super) fn undecodable_push(
        &mut self,
        key: Option<ServiceKey>,
        reason: String,
        now: Instant,
    ) {
        self.counters.undecodable += 1;
        let keys = match &key {
            Some(key) => vec![key.clone()],
            None => self.subscriptions.keys().cloned().collect(),
        };
        self.say_undecodable(key.as_ref(), reason);
        for key in keys {
            let Some(subscription) = self.subscriptions.get_mut(&key) else {
                continue;
            };
            if !subscription.wanted {
                continue;
            }
            let after_push = subscription.clear_of_push(self.config.read_guard);
            let after_read = subscription.last_reread.map(|at| at + REREAD_INTERVAL);
            let at = [after_push, after_read].into_iter().flatten().max();
            subscription.reread = Some(at.map_or(now, |at| at.max(now)));
            self.touch_subscription(&key);
        }
    }

    pub(super) fn say_undecodable(&mut self, key: Option<&ServiceKey>, reason: String) {
        self.outputs.push_back(Output::Undecodable {
            key: key.cloned(),
            reason,
        });
    }

    pub(super) fn reread_answered(
        &mut self,
        key: &ServiceKey,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        now: Instant,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        subscription.effort.call = None;
        match verdict.and_then(|answer| answer.about(key)) {
            Ok(answer) => {
                subscription.effort.failures = 0;
                // Asked for by the subscription of before, it is no first answer of this one.
                if let Some(listing) = listing_of(answer)
                    && subscription.wanted
                    && subscription.listed
                {
                    self.list_came(key, listing, sent, now);
                }
            }
            // As unreadable as the push was: asking again would bring the same.
            Err(OperationError::Undecodable(reason)) => self.say_undecodable(Some(key), reason),
            Err(error) => {
                if !error.is_permanent() && subscription.wanted {
                    subscription.reread = Some(now);
                }
                self.subscription_failed(key, Operation::Read, error, now);
            }
        }
        self.touch_subscription(key);
    }

    /// Somebody needs to know what the server lists now.
    pub(super) fn refresh(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(subscription) = self.subscriptions.get_mut(key)
            && subscription.wanted
        {
            if !subscription.listed {
                return self.begin_anew(key); // the first answer, without further waits
            }
            // Not so near to the last push that the answer would have to be dropped.
            subscription.reread = subscription
                .clear_of_push(self.config.read_guard)
                .max(Some(now));
            self.touch_subscription(key);
        }
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
