//! Which services' lists are wanted, and what the server has confirmed of that.

use std::time::{Duration, Instant};

use super::{
    asked::Asked,
    error::OperationError,
    event::Output,
    kind::{Context, Next, Then},
    lists::{Lists, listing_of},
};
use crate::{
    model::{Listing, ServiceKey},
    wire::{Answer, Kept, Request},
};

/// One service whose lists are wanted, or were until a moment ago.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    wanted: bool,
    /// What the server holds for us on the current connection.
    held: Held,
    lists: Lists,
    /// The hosts of the last list, which outlive the connection.
    kept: Kept,
    /// Whether a late unsubscription may have ended it behind our back: reads subscribe again.
    doubted: bool,
    /// A read is due, not before this.
    reread: Option<Instant>,
    last_reread: Option<Instant>,
}

/// How soon one service is read again for pushes that cannot be decoded.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);

/// What a wish for news calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    /// Nothing: nobody wants the list.
    No,
    /// The first answer, without further waits.
    Anew,
    /// A read, at its time.
    Read,
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
    /// Somebody wants the list. False if that was so already.
    pub(super) const fn want(&mut self) -> bool {
        if self.wanted {
            return false;
        }
        self.wanted = true;
        self.lists.begin();
        true
    }

    /// Nobody wants it any longer.
    pub(super) fn drop_wish(&mut self) {
        self.wanted = false;
        self.reread = None;
        self.kept = Kept::default();
    }

    /// What is kept of the service's hosts, as long as somebody wants the list.
    pub(super) fn kept(&mut self) -> Option<&mut Kept> {
        self.wanted.then_some(&mut self.kept)
    }

    /// Somebody needs to know what the server lists now.
    pub(super) fn refresh(&mut self, guard: Duration, now: Instant) -> Refresh {
        if !self.wanted {
            return Refresh::No;
        }
        if !self.lists.is_listed() {
            return Refresh::Anew;
        }
        // Not so near to the last push that the answer would have to be dropped.
        self.reread = self.lists.clear_of_push(guard).max(Some(now));
        Refresh::Read
    }

    /// A push could not be read: a read instead, now and then. False if nobody wants the list.
    pub(super) fn push_was_unreadable(&mut self, guard: Duration, now: Instant) -> bool {
        if self.wanted {
            let after_push = self.lists.clear_of_push(guard);
            let after_read = self.last_reread.map(|at| at + REREAD_INTERVAL);
            let at = [after_push, after_read].into_iter().flatten().max();
            self.reread = Some(at.map_or(now, |at| at.max(now)));
        }
        self.wanted
    }

    /// A push on the current stream.
    pub(super) fn pushed(&mut self, key: &ServiceKey, listing: Listing, cx: &mut Context<'_>) {
        self.kept.listed(listing.instances());
        if self.lists.pushed(key, listing, self.wanted, cx) {
            self.reread = None; // nothing that a read could bring is newer
        }
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        match (self.wanted, self.held) {
            (true, Held::No | Held::Unknown) => Next::Ask(Asked::Subscribe(true)),
            // Confirmed for an earlier subscriber; the answer to asking again is the whole list.
            (true, Held::Yes) if !self.lists.is_listed() => Next::Ask(Asked::Subscribe(true)),
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
        if let Ok(Answer::Subscribe { listing, .. } | Answer::Query { listing, .. }) = &verdict
            && let Some(listing) = listing
        {
            self.kept.listed(listing.instances());
        }
        match (verdict, asked) {
            (Ok(answer), Asked::Subscribe(on)) => {
                self.held = if on { Held::Yes } else { Held::No };
                // The answer to an unsubscription carries the list too. It is not news.
                match listing_of(answer) {
                    Some(listing) if on && self.wanted => {
                        self.lists.answered(key, listing, sent, cx);
                    }
                    None if on && self.wanted && !self.lists.is_listed() => {
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
                    && self.lists.is_listed()
                {
                    self.lists.answered(key, listing, sent, cx);
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
            kept: std::mem::take(&mut self.kept),
            ..Self::default()
        };
    }
}
