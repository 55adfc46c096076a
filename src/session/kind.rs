//! What a kind of item answers, and what it may look at and do.

use std::{collections::VecDeque, time::Instant};

use rand::rngs::StdRng;

use super::{
    asked::Asked,
    config::Config,
    error::OperationError,
    event::{LinkId, Operation, Outcome, Output, SessionCounters, Ticket},
    own::Own,
    timers::{Timer, Timers},
};
use crate::{model::ServiceKey, wire::Answer};

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

/// What a kind may look at and do while it makes a request or takes an answer in.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    /// The connection in use.
    pub(super) link: Option<LinkId>,
    /// Whether its server tells of services by patterns.
    pub(super) fuzzy_watch: bool,
    /// Whether its server may add a batch to the one before, in place of replacing that.
    pub(super) adds_up: bool,
    /// Where it leaves from.
    pub(super) own: Option<Own<'a>>,
    /// Nothing is tried twice any more.
    pub(super) closing: bool,
    /// Of this item, in a row.
    pub(super) failures: u32,
    pub(super) rng: &'a mut StdRng,
    pub(super) timers: &'a mut Timers<Timer>,
    pub(super) counters: &'a mut SessionCounters,
    pub(super) outputs: &'a mut VecDeque<Output>,
    /// What a close could not do.
    pub(super) unfinished: &'a mut Vec<(Operation, ServiceKey)>,
}

impl Context<'_> {
    pub(super) fn done(&mut self, ticket: Ticket, outcome: Result<Outcome, OperationError>) {
        self.outputs.push_back(Output::Done { ticket, outcome });
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
