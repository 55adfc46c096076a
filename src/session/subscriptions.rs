//! Which services' lists are wanted, and what the server has confirmed of that.

use std::time::{Duration, Instant};

use super::{
    calls::Purpose,
    effort::Effort,
    error::OperationError,
    event::{Operation, Output},
    late::Kind,
    lists::listing_of,
    machine::{Job, Session},
    timers::Timer,
};
use crate::{
    model::ServiceKey,
    wire::{Answer, Request},
};

/// One service whose lists are wanted, or were until a moment ago.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) wanted: bool,
    /// What the server holds for us on the current connection.
    held: Held,
    /// Whether a list was passed on since it became wanted, on this connection.
    pub(super) listed: bool,
    /// Whether a late unsubscription may have ended it behind our back: reads subscribe again.
    pub(super) doubted: bool,
    /// A read is due, not before this.
    pub(super) reread: Option<Instant>,
    pub(super) last_reread: Option<Instant>,
    pub(super) last_push: Option<Instant>,
    pub(super) last_stamp: i64,
    pub(super) effort: Effort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    No,
    Yes,
    /// A request went unanswered.
    Unknown,
}

enum Next {
    Subscribe,
    Unsubscribe,
    Reread(Instant),
}

impl Subscription {
    /// From when on a read is not so near to the last push that its answer is dropped.
    pub(super) fn clear_of_push(&self, guard: Duration) -> Option<Instant> {
        Some(self.last_push? + guard + Duration::from_millis(1))
    }

    fn next(&self) -> Option<Next> {
        match (self.wanted, self.held) {
            (true, Held::No | Held::Unknown) => Some(Next::Subscribe),
            // Confirmed for an earlier subscriber; the answer to asking again is the whole list.
            (true, Held::Yes) if !self.listed => Some(Next::Subscribe),
            (true, Held::Yes) => self.reread.map(Next::Reread),
            (false, Held::Yes | Held::Unknown) => Some(Next::Unsubscribe),
            (false, Held::No) => None,
        }
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, key: ServiceKey) {
        let subscription = self.subscriptions.entry(key.clone()).or_default();
        if subscription.wanted {
            return;
        }
        subscription.wanted = true;
        subscription.listed = false;
        self.begin_anew(&key);
    }

    pub(super) fn unsubscribe(&mut self, key: &ServiceKey) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.wanted = false;
            subscription.reread = None;
            self.timers.stop(&Timer::SafetyRead(key.clone()));
            self.begin_anew(key);
        }
    }

    /// What is wanted changed: past failures no longer count.
    pub(super) fn begin_anew(&mut self, key: &ServiceKey) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            self.timers.stop(&Timer::Subscription(key.clone()));
            subscription.effort.begin_anew();
            self.touch_subscription(key);
        }
    }

    /// Queues the subscription if there is something to send, drops it if it is over.
    pub(super) fn touch_subscription(&mut self, key: &ServiceKey) {
        let connected = self.current.is_some();
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        match subscription.next() {
            Some(_) if connected && subscription.effort.is_idle() => {
                subscription.effort.queued = true;
                self.queue.push_back(Job::Subscription(key.clone()));
            }
            Some(_) => {}
            None if subscription.wanted || subscription.effort.call.is_some() => {}
            None => {
                self.subscriptions.remove(key);
                self.timers.stop(&Timer::Subscription(key.clone()));
                self.timers.stop(&Timer::SafetyRead(key.clone()));
            }
        }
    }

    pub(super) fn send_subscription(&mut self, key: &ServiceKey, now: Instant) {
        let Some(link) = self.current.as_ref().map(|link| link.id) else {
            return;
        };
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        if !std::mem::take(&mut subscription.effort.queued) {
            return; // of an item that ended and began again meanwhile
        }
        let (request, purpose) = match subscription.next() {
            Some(Next::Reread(at)) if at > now => {
                subscription.effort.waiting = true;
                return self.timers.set(Timer::Subscription(key.clone()), at);
            }
            Some(Next::Reread(_)) => {
                subscription.reread = None;
                subscription.last_reread = Some(now);
                let key = key.clone();
                if subscription.doubted {
                    let request = Request::Subscribe {
                        key: key.clone(),
                        subscribe: true,
                    };
                    (request, Purpose::Subscribe { key, on: true })
                } else {
                    (Request::Query { key: key.clone() }, Purpose::Reread { key })
                }
            }
            Some(next) => {
                let on = matches!(next, Next::Subscribe);
                let request = Request::Subscribe {
                    key: key.clone(),
                    subscribe: on,
                };
                let key = key.clone();
                (request, Purpose::Subscribe { key, on })
            }
            None => return self.touch_subscription(key),
        };
        let call = self.call(link, &request, purpose, now);
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.effort.call = Some(call);
        }
    }

    pub(super) fn subscription_answered(
        &mut self,
        key: &ServiceKey,
        on: bool,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        now: Instant,
    ) {
        let confirm = self.confirm_again(Kind::Subscription, key, on.then_some(0), now);
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        subscription.effort.call = None;
        match verdict.and_then(|answer| answer.about(key)) {
            Ok(answer) => {
                subscription.held = if on { Held::Yes } else { Held::No };
                if let Some(at) = confirm.filter(|_| subscription.wanted == on) {
                    subscription.held = Held::Unknown;
                    subscription.doubted = on;
                    subscription.effort.waiting = true;
                    self.timers.set(Timer::Subscription(key.clone()), at);
                }
                // The answer to an unsubscription carries the list too. It is not news.
                let news = on && subscription.wanted;
                let listed = subscription.listed;
                match listing_of(answer) {
                    Some(listing) if news => {
                        subscription.effort.failures = 0;
                        self.list_came(key, listing, sent, now);
                    }
                    None if news && !listed => {
                        let error = OperationError::Undecodable("it carries no list".to_owned());
                        self.subscription_failed(key, Operation::Subscribe, error, now);
                    }
                    _ => subscription.effort.failures = 0,
                }
            }
            Err(error) => {
                if !error.is_refusal() {
                    subscription.held = Held::Unknown;
                    self.late
                        .note(Kind::Subscription, key, on.then_some(0), now);
                }
                let operation = if on {
                    Operation::Subscribe
                } else {
                    Operation::Unsubscribe
                };
                self.subscription_failed(key, operation, error, now);
            }
        }
        self.touch_subscription(key);
    }

    pub(super) fn subscription_failed(
        &mut self,
        key: &ServiceKey,
        operation: Operation,
        error: OperationError,
        now: Instant,
    ) {
        if self.gives_up(operation, key) {
            self.subscriptions.remove(key);
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        let wait = subscription.effort.fail(&error, &mut self.rng);
        if operation == Operation::Read {
            subscription.effort.blocked = false; // that the read is refused says no more
        }
        if let Some(wait) = wait {
            self.timers
                .set(Timer::Subscription(key.clone()), now + wait);
        }
        match error {
            OperationError::Undecodable(reason) => self.say_undecodable(Some(key), reason),
            error => self.outputs.push_back(Output::Failed {
                key: key.clone(),
                operation,
                error,
                retries: wait.is_some(),
            }),
        }
    }

    /// The retry timer of a subscription.
    pub(super) fn subscription_due(&mut self, key: &ServiceKey) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.effort.waiting = false;
            self.touch_subscription(key);
        }
    }

    /// The connection is another: the server knows of no subscription.
    pub(super) fn forget_subscriptions(&mut self) {
        for (key, subscription) in &mut self.subscriptions {
            self.timers.stop(&Timer::Subscription(key.clone()));
            self.timers.stop(&Timer::SafetyRead(key.clone()));
            *subscription = Subscription {
                wanted: subscription.wanted,
                ..Subscription::default()
            };
        }
        self.subscriptions
            .retain(|_, subscription| subscription.wanted);
    }

    /// What waits for a retry does not wait any longer.
    pub(super) fn wake_waiting(&mut self, now: Instant) {
        for key in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Publication(key.clone()));
            self.publication_due(&key, now);
        }
        for key in self.subscriptions.keys().cloned().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Subscription(key.clone()));
            self.subscription_due(&key);
        }
        for ticket in self.reads.keys().copied().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Read(ticket));
            self.read_due(ticket);
        }
    }
}
