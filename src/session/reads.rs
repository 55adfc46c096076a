//! What is asked once, for somebody who waits: a list, a page of names, a persistent instance.

use std::sync::Arc;

use super::{
    config::Config,
    error::OperationError,
    event::{Operation, Outcome, Output, Ticket},
    kind::{Context, Then},
    own::Own,
};
use crate::{
    model::{Instance, ServiceKey},
    wire::{Answer, Request},
};

/// Waits for a connection as long as somebody waits for it, and survives a change of connection.
#[derive(Debug)]
pub(super) struct Read {
    request: ReadRequest,
}

#[derive(Clone, Debug)]
pub(super) enum ReadRequest {
    Query(ServiceKey),
    List {
        group: Arc<str>,
        page: u32,
        page_size: u32,
    },
    /// A persistent instance comes or goes. The server keeps it, whatever becomes of us.
    Persist {
        key: ServiceKey,
        instance: Box<Instance>,
        on: bool,
    },
}

/// How often a read is tried before its caller hears of the failure.
const TRIES: u32 = 3;

impl Read {
    pub(super) const fn new(request: ReadRequest) -> Self {
        Self { request }
    }

    pub(super) fn request(&self, config: &Config, own: Own<'_>) -> Result<Request, OperationError> {
        Ok(match self.request.clone() {
            ReadRequest::Query(key) => Request::Query { key },
            ReadRequest::List {
                group,
                page,
                page_size,
            } => Request::List {
                namespace: config.namespace.clone(),
                group,
                page,
                page_size,
            },
            ReadRequest::Persist { key, instance, on } => {
                let address = own.place(instance.address())?;
                let instance = instance.with_address(address);
                Request::Persist { key, instance, on }
            }
        })
    }

    pub(super) fn answered(
        &self,
        ticket: Ticket,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) -> Then {
        let verdict = match &self.request {
            ReadRequest::Query(key) => verdict.and_then(|answer| answer.about(key)),
            ReadRequest::List { .. } | ReadRequest::Persist { .. } => verdict,
        };
        // New headers may come, so that a denial is not yet the end.
        let is_last = |error: &OperationError| {
            let may_be_answered = cx.config.credentials && cx.failures == 0;
            error.is_permanent()
                || (error.is_denied() && !may_be_answered)
                || cx.failures + 1 >= TRIES
        };
        let outcome = match (verdict, &self.request) {
            (Ok(Answer::Query { listing, .. }), ReadRequest::Query(_)) => {
                Ok(Outcome::Listing(listing))
            }
            (Ok(Answer::List { count, names }), ReadRequest::List { .. }) => {
                Ok(Outcome::Names { count, names })
            }
            (Ok(Answer::Done), ReadRequest::Persist { .. }) => Ok(Outcome::Done),
            (Ok(_), _) => {
                let text = "it is of another type than was asked for".to_owned();
                Err(OperationError::Undecodable(text))
            }
            (Err(error), _) if is_last(&error) => Err(error),
            (Err(error), _) => return Then::Failed(error),
        };
        cx.done(ticket, outcome);
        Then::Gone
    }

    /// What to say of a failure that is not the last.
    pub(super) fn tell(&self, error: OperationError) -> Option<Output> {
        match &self.request {
            ReadRequest::Query(key) => Some(Output::Failed {
                key: key.clone(),
                operation: Operation::Read,
                error,
                retries: true,
            }),
            ReadRequest::Persist { key, on, .. } => Some(Output::Failed {
                key: key.clone(),
                operation: if *on {
                    Operation::Register
                } else {
                    Operation::Deregister
                },
                error,
                retries: true,
            }),
            ReadRequest::List { group, .. } if error.is_denied() => {
                let group = group.clone();
                Some(Output::ListDenied { group })
            }
            ReadRequest::List { .. } => None,
        }
    }
}
