//! The end that the user asked for.

use std::time::Instant;

use super::{
    error::OperationError,
    event::{Command, Operation, Output, State},
    machine::{Life, Session},
    timers::Timer,
};
use crate::model::ServiceKey;

impl Session {
    /// What a close could not do: what failed, and what still waits for an answer.
    pub(crate) fn unfinished(&self) -> Vec<(Operation, ServiceKey)> {
        let publications = self.publications.keys();
        let publications = publications.map(|key| (Operation::Deregister, key.clone()));
        let subscriptions = self.subscriptions.keys();
        let subscriptions = subscriptions.map(|key| (Operation::Unsubscribe, key.clone()));
        self.unfinished
            .iter()
            .cloned()
            .chain(publications)
            .chain(subscriptions)
            .collect()
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.life = Life::Closing;
        self.timers.stop(&Timer::Redial);
        self.drop_attempt();
        self.hang_up_draining();
        for ticket in std::mem::take(&mut self.reads).into_keys() {
            self.timers.stop(&Timer::Read(ticket));
            self.done(ticket, Err(OperationError::Closed));
        }
        for key in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.withdraw(&key, None, now);
        }
        for key in self.subscriptions.keys().cloned().collect::<Vec<_>>() {
            self.unsubscribe(&key);
        }
    }

    pub(super) fn finish_close(&mut self) {
        self.unfinished = self.unfinished();
        self.publications.clear();
        self.subscriptions.clear();
        self.queue.clear();
        if let Some(link) = self.current.take() {
            self.forget_calls(link.id);
            self.outputs.push_back(Output::Hangup { link: link.id });
        }
        self.timers.stop_all();
        self.life = Life::Closed;
        self.say(State::Closed);
    }

    pub(super) fn refuse(&mut self, command: &Command) {
        match command {
            Command::Register { ticket, .. }
            | Command::Deregister { ticket, .. }
            | Command::Query { ticket, .. }
            | Command::List { ticket, .. } => self.done(*ticket, Err(OperationError::Closed)),
            Command::Subscribe(_)
            | Command::Refresh(_)
            | Command::Unsubscribe(_)
            | Command::Cancel(_)
            | Command::Close => {}
        }
    }

    /// While closing nothing is tried twice: notes what could not be done.
    pub(super) fn gives_up(&mut self, operation: Operation, key: &ServiceKey) -> bool {
        let closing = self.life == Life::Closing;
        if closing {
            self.unfinished.push((operation, key.clone()));
        }
        closing
    }
}
