//! One thing that is asked of servers until they agree, on each connection anew: its kind says what
//! to ask and what an answer means, and nothing else.

use std::time::Instant;

use super::{
    asked::{Asked, Id},
    effort::Effort,
    error::OperationError,
    event::Output,
    kind::{Context, Next, Then},
    names::Watch,
    own::Own,
    publications::Publication,
    reads::Read,
    subscriptions::Subscription,
};
use crate::wire::{Answer, Request};

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
    Watch(Box<Watch>),
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
            Kind::Watch(watch) => watch.next(now),
        }
    }

    /// The request for what is to be asked, which is sent now; or why there is none.
    pub(super) fn request(
        &mut self,
        id: &Id,
        asked: Asked,
        own: Own<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Request, OperationError> {
        match (&mut self.kind, id) {
            (Kind::Publication(publication), Id::Publication(key)) => {
                publication.request(key, asked, own, cx.adds_up, cx.outputs)
            }
            (Kind::Subscription(subscription), Id::Subscription(key)) => {
                Ok(subscription.request(key, asked, cx.now))
            }
            (Kind::Read(read), _) => read.request(cx.config, own),
            (Kind::Watch(watch), _) => watch.request(asked, cx.config, cx.now),
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
            (Kind::Watch(watch), _) => watch.answered(asked, verdict, cx),
            _ => Then::Moot,
        }
    }

    /// Nobody knows whether what was asked is carried out, now or later.
    pub(super) fn unanswered(&mut self) {
        match &mut self.kind {
            Kind::Publication(publication) => publication.unanswered(),
            Kind::Subscription(subscription) => subscription.unanswered(),
            Kind::Read(_) | Kind::Watch(_) => {}
        }
    }

    /// The server agreed, and may come to disagree by itself: whether that is to be looked after.
    pub(super) fn doubt(&mut self, asked: Asked) -> bool {
        match &mut self.kind {
            Kind::Publication(publication) => publication.doubt(),
            Kind::Subscription(subscription) => subscription.doubt(asked),
            Kind::Read(_) | Kind::Watch(_) => false,
        }
    }

    /// The connection is another, and may be one of a server that tells of services by itself
    /// (`told`): nothing is confirmed there.
    pub(super) fn lost(&mut self, told: bool, now: Instant) {
        let under_way = self.effort.is_under_way();
        match &mut self.kind {
            Kind::Publication(publication) => publication.lost(under_way, now),
            Kind::Subscription(subscription) => subscription.lost(),
            Kind::Read(_) => {}
            Kind::Watch(watch) => watch.lost(told),
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
            (Kind::Watch(watch), _) => Some(watch.tell_failure(error, retries)),
            (Kind::Subscription(_), Id::Subscription(key)) => {
                Some(Subscription::tell(key, asked, error, retries))
            }
            (_, Id::Publication(key) | Id::Subscription(key)) => Some(Output::Failed {
                key: key.clone(),
                operation: asked.operation(),
                error,
                retries,
            }),
            (_, Id::Read(_) | Id::Watch(_)) => None,
        }
    }
}
