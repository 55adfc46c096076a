//! Reads that somebody waits for: a list, a page of names.

use std::{sync::Arc, time::Instant};

use super::{
    calls::Purpose,
    config::Config,
    effort::Effort,
    error::OperationError,
    event::{Operation, Outcome, Output, Ticket},
    machine::{Job, Session},
    timers::Timer,
};
use crate::{
    model::ServiceKey,
    wire::{Answer, Request},
};

/// Waits for a connection as long as somebody waits for it, and survives a change of connection.
#[derive(Debug)]
pub(super) struct Read {
    request: ReadRequest,
    effort: Effort,
}

#[derive(Clone, Debug)]
pub(super) enum ReadRequest {
    Query(ServiceKey),
    List {
        group: Arc<str>,
        page: u32,
        page_size: u32,
    },
}

/// How often a read is tried before its caller hears of the failure.
const TRIES: u32 = 3;

impl Read {
    /// Whether a denial is not yet the end: new headers may come.
    const fn is_retried(&self, config: &Config) -> bool {
        config.credentials && self.effort.failures == 0
    }
}

impl Session {
    pub(super) fn read(&mut self, ticket: Ticket, request: ReadRequest) {
        let read = Read {
            request,
            effort: Effort::default(),
        };
        self.reads.insert(ticket, read);
        self.touch_read(ticket);
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        self.timers.stop(&Timer::Read(ticket));
        if self.reads.remove(&ticket).is_none() {
            self.forget_ticket(ticket);
        }
    }

    pub(super) fn touch_read(&mut self, ticket: Ticket) {
        let connected = self.current.is_some();
        if let Some(read) = self.reads.get_mut(&ticket)
            && connected
            && read.effort.is_idle()
        {
            read.effort.queued = true;
            self.queue.push_back(Job::Read(ticket));
        }
    }

    pub(super) fn send_read(&mut self, ticket: Ticket, now: Instant) {
        let Some(link) = self.current.as_ref().map(|link| link.id) else {
            return;
        };
        let Some(read) = self.reads.get_mut(&ticket) else {
            return; // cancelled
        };
        read.effort.queued = false;
        let request = match read.request.clone() {
            ReadRequest::Query(key) => Request::Query { key },
            ReadRequest::List {
                group,
                page,
                page_size,
            } => Request::List {
                namespace: self.config.namespace.clone(),
                group,
                page,
                page_size,
            },
        };
        let call = self.call(link, &request, Purpose::Read(ticket), now);
        if let Some(read) = self.reads.get_mut(&ticket) {
            read.effort.call = Some(call);
        }
    }

    pub(super) fn read_answered(
        &mut self,
        ticket: Ticket,
        verdict: Result<Answer, OperationError>,
        now: Instant,
    ) {
        let Some(read) = self.reads.get_mut(&ticket) else {
            return; // cancelled
        };
        read.effort.call = None;
        let verdict = match &read.request {
            ReadRequest::Query(key) => verdict.and_then(|answer| answer.about(key)),
            ReadRequest::List { .. } => verdict,
        };
        let outcome = match (verdict, &read.request) {
            (Ok(Answer::Query { listing, .. }), ReadRequest::Query(_)) => {
                Ok(Outcome::Listing(listing))
            }
            (Ok(Answer::List { count, names }), ReadRequest::List { .. }) => {
                Ok(Outcome::Names { count, names })
            }
            (Ok(_), _) => {
                let text = "it is of another type than was asked for".to_owned();
                Err(OperationError::Undecodable(text))
            }
            (Err(error), _) if error.is_permanent() => Err(error),
            (Err(error), _) if error.is_denied() && !read.is_retried(&self.config) => Err(error),
            (Err(error), _) if read.effort.failures + 1 >= TRIES => Err(error),
            (Err(error), _) => {
                let wait = read.effort.fail(&error, &mut self.rng);
                let at = now + wait.unwrap_or_default();
                match &read.request {
                    ReadRequest::Query(key) => self.outputs.push_back(Output::Failed {
                        key: key.clone(),
                        operation: Operation::Read,
                        error,
                        retries: true,
                    }),
                    ReadRequest::List { group, .. } if error.is_denied() => {
                        let group = group.clone();
                        self.outputs.push_back(Output::ListDenied { group });
                    }
                    ReadRequest::List { .. } => {}
                }
                return self.timers.set(Timer::Read(ticket), at);
            }
        };
        self.reads.remove(&ticket);
        self.done(ticket, outcome);
    }

    /// The retry timer of a read.
    pub(super) fn read_due(&mut self, ticket: Ticket) {
        if let Some(read) = self.reads.get_mut(&ticket) {
            read.effort.waiting = false;
            self.touch_read(ticket);
        }
    }

    /// The connection is another: what was asked on the last one is asked again.
    pub(super) fn forget_reads(&mut self) {
        for (ticket, read) in &mut self.reads {
            self.timers.stop(&Timer::Read(*ticket));
            read.effort = Effort {
                failures: read.effort.failures,
                ..Effort::default()
            };
        }
    }
}
