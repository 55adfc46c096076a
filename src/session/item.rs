//! One thing that is asked of servers until they agree, on each connection anew: its kind says what
//! to ask and what an answer means, and nothing else.

use std::{collections::VecDeque, time::Instant};

use rand::rngs::StdRng;

use super::{
    config::Config,
    effort::Effort,
    error::OperationError,
    event::{Counters, LinkId, Operation, Outcome, Output, Ticket},
    own::Own,
    publications::Publication,
    reads::Read,
    subscriptions::Subscription,
    timers::{Timer, Timers},
};
use crate::{
    model::ServiceKey,
    wire::{Answer, Request},
};

/// Which item. The order is that of the redo: publications go first, since others wait for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Publication(ServiceKey),
    Subscription(ServiceKey),
    Read(Ticket),
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) effort: Effort,
}

/// What differs from item to item.
#[derive(Debug)]
pub(super) enum Kind {
    Publication(Box<Publication>),
    Subscription(Subscription),
    Read(Read),
}

/// What is to be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, as things stand.
    Rest,
    /// Nothing ever again.
    Over,
    Ask(Asked),
    /// Not before then.
    Wait(Instant),
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To hold this version of a publication, or nothing.
    Publish(Option<u64>),
    /// To begin or to end a subscription.
    Subscribe(bool),
    /// The list of what is subscribed.
    Reread,
    /// What somebody waits for.
    Read,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Then {
    /// The server agrees.
    Settled,
    /// Nothing: something else is wanted by now.
    Moot,
    /// Something else is to be asked, at once.
    Anew,
    /// The same is to be asked again, as the error allows.
    Failed(OperationError),
    /// The item ends; everybody was told.
    Gone,
}

/// What a kind may look at and do while it makes a request.
pub(super) struct Asking<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    pub(super) own: Own<'a>,
    pub(super) outputs: &'a mut VecDeque<Output>,
}

/// What a kind may look at and do while it takes an answer in.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    /// The connection in use.
    pub(super) link: Option<LinkId>,
    /// Nothing is tried twice any more.
    pub(super) closing: bool,
    /// Of this item, in a row.
    pub(super) failures: u32,
    pub(super) rng: &'a mut StdRng,
    pub(super) timers: &'a mut Timers<Timer>,
    pub(super) counters: &'a mut Counters,
    pub(super) outputs: &'a mut VecDeque<Output>,
    /// What a close could not do.
    pub(super) unfinished: &'a mut Vec<(Operation, ServiceKey)>,
}

impl Asked {
    /// What it would leave behind if it were carried out late; `None` for what only reads.
    pub(super) const fn leaves(self) -> Option<Option<u64>> {
        match self {
            Self::Publish(version) => Some(version),
            Self::Subscribe(true) => Some(Some(0)),
            Self::Subscribe(false) => Some(None),
            Self::Reread | Self::Read => None,
        }
    }

    pub(super) const fn operation(self) -> Operation {
        match self {
            Self::Publish(Some(_)) => Operation::Register,
            Self::Publish(None) => Operation::Deregister,
            Self::Subscribe(true) => Operation::Subscribe,
            Self::Subscribe(false) => Operation::Unsubscribe,
            Self::Reread | Self::Read => Operation::Read,
        }
    }
}

impl Item {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            effort: Effort::default(),
        }
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        match &self.kind {
            Kind::Publication(publication) => publication.next(),
            Kind::Subscription(subscription) => subscription.next(now),
            Kind::Read(_) => Next::Ask(Asked::Read),
        }
    }

    /// The request for what is to be asked, which is sent now; or why there is none.
    pub(super) fn request(
        &mut self,
        id: &Id,
        asked: Asked,
        asking: Asking<'_>,
    ) -> Result<Request, OperationError> {
        match (&mut self.kind, id) {
            (Kind::Publication(publication), Id::Publication(key)) => {
                publication.request(key, asked, asking.own, asking.outputs)
            }
            (Kind::Subscription(subscription), Id::Subscription(key)) => {
                Ok(subscription.request(key, asked, asking.now))
            }
            (Kind::Read(read), _) => read.request(asking.config, asking.own),
            (Kind::Publication(_) | Kind::Subscription(_), _) => unreachable!("made with its id"),
        }
    }

    pub(super) fn answered(
        &mut self,
        id: &Id,
        asked: Asked,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) -> Then {
        match (&mut self.kind, id) {
            (Kind::Publication(publication), Id::Publication(key)) => {
                publication.answered(key, asked, verdict, cx)
            }
            (Kind::Subscription(subscription), Id::Subscription(key)) => {
                subscription.answered(key, asked, sent, verdict, cx)
            }
            (Kind::Read(read), Id::Read(ticket)) => read.answered(*ticket, verdict, cx),
            _ => Then::Moot,
        }
    }

    /// Nobody knows whether what was asked is carried out, now or later.
    pub(super) fn unanswered(&mut self) {
        match &mut self.kind {
            Kind::Publication(publication) => publication.unanswered(),
            Kind::Subscription(subscription) => subscription.unanswered(),
            Kind::Read(_) => {}
        }
    }

    /// The server agreed, and may come to disagree by itself: whether that is to be looked after.
    pub(super) fn doubt(&mut self, asked: Asked) -> bool {
        match &mut self.kind {
            Kind::Publication(publication) => publication.doubt(),
            Kind::Subscription(subscription) => subscription.doubt(asked),
            Kind::Read(_) => false,
        }
    }

    /// The connection is another: nothing is confirmed there.
    pub(super) fn lost(&mut self, now: Instant) {
        let under_way = self.effort.is_under_way();
        match &mut self.kind {
            Kind::Publication(publication) => publication.lost(under_way, now),
            Kind::Subscription(subscription) => subscription.lost(),
            Kind::Read(_) => {}
        }
        self.effort.forget(matches!(self.kind, Kind::Read(_)));
    }

    /// The last words of an item that is over.
    pub(super) fn end(self, id: &Id, cx: &mut Context<'_>) {
        if let (Kind::Publication(publication), Id::Publication(key)) = (self.kind, id) {
            publication.end(key, cx);
        }
    }

    /// What to say of a failure.
    pub(super) fn tell(
        &self,
        id: &Id,
        asked: Asked,
        error: OperationError,
        retries: bool,
    ) -> Option<Output> {
        match (&self.kind, id) {
            (Kind::Read(read), _) => read.tell(error),
            (Kind::Subscription(_), Id::Subscription(key)) => {
                Some(Subscription::tell(key, asked, error, retries))
            }
            (_, Id::Publication(key) | Id::Subscription(key)) => Some(Output::Failed {
                key: key.clone(),
                operation: asked.operation(),
                error,
                retries,
            }),
            (_, Id::Read(_)) => None,
        }
    }
}

impl Context<'_> {
    pub(super) fn done(&mut self, ticket: Ticket, outcome: Result<Outcome, OperationError>) {
        self.outputs.push_back(Output::Done { ticket, outcome });
    }
}
