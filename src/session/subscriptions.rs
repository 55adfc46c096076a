//! Which services' lists are wanted, and what the server has confirmed of that.

use std::time::{Duration, Instant};

use super::{
    error::OperationError,
    event::Output,
    item::{Asked, Context, Id, Kind, Next, Then},
    lists::listing_of,
    machine::Session,
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
    doubted: bool,
    /// A read is due, not before this.
    pub(super) reread: Option<Instant>,
    pub(super) last_reread: Option<Instant>,
    pub(super) last_push: Option<Instant>,
    pub(super) last_stamp: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    No,
    Yes,
    /// A request went unanswered.
    Unknown,
}

impl Subscription {
    /// From when on a read is not so near to the last push that its answer is dropped.
    pub(super) fn clear_of_push(&self, guard: Duration) -> Option<Instant> {
        Some(self.last_push? + guard + Duration::from_millis(1))
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        match (self.wanted, self.held) {
            (true, Held::No | Held::Unknown) => Next::Ask(Asked::Subscribe(true)),
            // Confirmed for an earlier subscriber; the answer to asking again is the whole list.
            (true, Held::Yes) if !self.listed => Next::Ask(Asked::Subscribe(true)),
            (true, Held::Yes) => match self.reread {
                None => Next::Rest,
                Some(at) if at > now => Next::Wait(at),
                Some(_) => Next::Ask(Asked::Reread),
            },
            (false, Held::Yes | Held::Unknown) => Next::Ask(Asked::Subscribe(false)),
            (false, Held::No) => Next::Over,
        }
    }

    pub(super) fn request(&mut self, key: &ServiceKey, asked: Asked, now: Instant) -> Request {
        let key = key.clone();
        let subscribe = match asked {
            Asked::Subscribe(on) => on,
            _ => {
                self.reread = None;
                self.last_reread = Some(now);
                if !self.doubted {
                    return Request::Query { key };
                }
                true
            }
        };
        Request::Subscribe { key, subscribe }
    }

    /// Nobody knows what the server holds.
    pub(super) const fn unanswered(&mut self) {
        self.held = Held::Unknown;
    }

    /// What was confirmed may be undone, and is asked for again.
    pub(super) fn doubt(&mut self, asked: Asked) -> bool {
        let agreed = asked == Asked::Subscribe(self.wanted);
        if agreed {
            self.held = Held::Unknown;
            self.doubted = self.wanted;
        }
        agreed
    }

    pub(super) fn answered(
        &mut self,
        key: &ServiceKey,
        asked: Asked,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) -> Then {
        match (verdict, asked) {
            (Ok(answer), Asked::Subscribe(on)) => {
                self.held = if on { Held::Yes } else { Held::No };
                // The answer to an unsubscription carries the list too. It is not news.
                match listing_of(answer) {
                    Some(listing) if on && self.wanted => self.list_came(key, listing, sent, cx),
                    None if on && self.wanted && !self.listed => {
                        let text = "it carries no list".to_owned();
                        let error = OperationError::Undecodable(text);
                        return Self::failed(key, asked, error, cx);
                    }
                    _ => {}
                }
                Then::Settled
            }
            (Ok(answer), _) => {
                // Asked for by the subscription of before, it is no first answer of this one.
                if let Some(listing) = listing_of(answer)
                    && self.wanted
                    && self.listed
                {
                    self.list_came(key, listing, sent, cx);
                }
                Then::Settled
            }
            // As unreadable as the push was: asking again would bring the same.
            (Err(OperationError::Undecodable(reason)), Asked::Reread) => {
                let key = Some(key.clone());
                cx.outputs.push_back(Output::Undecodable { key, reason });
                Then::Moot
            }
            (Err(error), _) => {
                if asked == Asked::Reread && error.is_asked_again() && self.wanted {
                    self.reread = Some(cx.now);
                }
                Self::failed(key, asked, error, cx)
            }
        }
    }

    /// While closing nothing is tried twice.
    fn failed(key: &ServiceKey, asked: Asked, error: OperationError, cx: &mut Context<'_>) -> Then {
        if !cx.closing {
            return Then::Failed(error);
        }
        cx.unfinished.push((asked.operation(), key.clone()));
        Then::Gone
    }

    pub(super) fn tell(
        key: &ServiceKey,
        asked: Asked,
        error: OperationError,
        retries: bool,
    ) -> Output {
        let key = key.clone();
        match error {
            OperationError::Undecodable(reason) => Output::Undecodable {
                key: Some(key),
                reason,
            },
            error => Output::Failed {
                key,
                operation: asked.operation(),
                error,
                retries,
            },
        }
    }

    /// The connection is another: the server knows of no subscription.
    pub(super) fn lost(&mut self) {
        *self = Self {
            wanted: self.wanted,
            ..Self::default()
        };
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, key: ServiceKey, now: Instant) {
        let id = Id::Subscription(key.clone());
        if !self.items.contains(&id) {
            let subscription = Kind::Subscription(Subscription::default());
            self.items.insert(id.clone(), subscription);
        }
        if let Some(subscription) = self.items.subscription(&key)
            && !subscription.wanted
        {
            subscription.wanted = true;
            subscription.listed = false;
            self.begin_anew(&id, now);
        }
    }

    pub(super) fn unsubscribe(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(subscription) = self.items.subscription(key) {
            subscription.wanted = false;
            subscription.reread = None;
            self.timers.stop(&Timer::SafetyRead(key.clone()));
            self.begin_anew(&Id::Subscription(key.clone()), now);
        }
    }
}
