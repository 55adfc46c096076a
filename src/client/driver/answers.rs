//! Answers to those who wait, and to what the driver asks for itself: why a list is empty.

use super::{Driver, now};
use crate::{
    client::RequestError,
    model::ServiceKey,
    session::{self, Outcome, Ticket},
};

impl Driver {
    pub(super) fn done(
        &mut self,
        ticket: Ticket,
        outcome: Result<Outcome, session::OperationError>,
    ) {
        if let (Ok(_), Some(auth)) = (&outcome, &mut self.auth) {
            auth.accepted();
        }
        if self.hints.is_ours(ticket) {
            return self.hint(ticket, outcome.ok());
        }
        if let Some(reply) = self.replies.remove(&ticket) {
            let _ = reply.send(outcome.map_err(RequestError::from));
        }
    }

    /// Nothing is listed of a service: what its neighbours suggest.
    pub(super) fn ask_hint(&mut self, key: &ServiceKey) {
        let ticket = self.spare_ticket();
        if let Some(command) = self.hints.ask(key, ticket) {
            self.core.command(command, now());
        }
    }

    pub(super) fn hint(&mut self, ticket: Ticket, outcome: Option<Outcome>) {
        let next = self.spare_ticket();
        let found = self.hints.answered(ticket, outcome, next);
        for (key, hint) in found.hints {
            if let Some(subscription) = self.subscriptions.peek(&key) {
                subscription.set_hint_while_empty(&hint);
            }
        }
        if let Some(command) = found.again {
            self.core.command(command, now());
        }
    }

    /// Whoever waits for instances shall hear that the registry denies them, and what else stands
    /// in the way of their first list.
    pub(super) fn hint_failure(
        &self,
        key: &ServiceKey,
        operation: session::Operation,
        error: &session::OperationError,
    ) {
        let first = operation == session::Operation::Subscribe
            && self.services.get(key).is_some_and(|s| !s.answered);
        let hint = match error {
            _ if error.is_denied() => format!("the registry refuses to list it: {error}"),
            _ if first => format!("the registry has not listed it yet: {error}"),
            _ => return,
        };
        if let Some(subscription) = self.subscriptions.peek(key) {
            subscription.set_hint(&hint);
        }
    }

    pub(super) const fn spare_ticket(&mut self) -> Ticket {
        self.spare_ticket -= 1;
        Ticket(self.spare_ticket)
    }
}
