//! The end that the user asked for.

use std::time::Instant;

use super::{
    asked::Id,
    error::OperationError,
    event::{Command, Operation, Output, SessionState},
    machine::{Life, Session},
    timers::Timer,
};
use crate::model::ServiceKey;

impl Session {
    /// What a close could not do: what failed, and what still waits for an answer.
    pub(crate) fn unfinished(&self) -> Vec<(Operation, ServiceKey)> {
        let left = self.items.ids().filter_map(Self::left_undone);
        self.unfinished.iter().cloned().chain(left).collect()
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.life = Life::Closing;
        self.timers.stop(&Timer::Redial);
        self.drop_attempt();
        self.hang_up_draining();
        let (items, mut cx) = self.items(now);
        items.close(&mut cx);
    }

    pub(super) fn finish_close(&mut self) {
        self.unfinished = self.unfinished();
        self.items.clear();
        if let Some(link) = self.current.take() {
            self.forget_calls(link.id);
            self.outputs.push_back(Output::Hangup { link: link.id });
        }
        self.timers.stop_all();
        self.life = Life::Closed;
        self.say(SessionState::Closed);
    }

    pub(super) fn refuse(&mut self, command: &Command) {
        match command {
            Command::Register { ticket, .. }
            | Command::RegisterBatch { ticket, .. }
            | Command::Persist { ticket, .. }
            | Command::Deregister { ticket, .. }
            | Command::Query { ticket, .. }
            | Command::List { ticket, .. } => self.done(*ticket, Err(OperationError::Closed)),
            Command::Watch(_)
            | Command::Unwatch(_)
            | Command::Subscribe(_)
            | Command::Refresh(_)
            | Command::Unsubscribe(_)
            | Command::Cancel(_)
            | Command::Close => {}
        }
    }

    /// What a close is still to do for this item.
    fn left_undone(id: &Id) -> Option<(Operation, ServiceKey)> {
        match id {
            Id::Publication(key) => Some((Operation::Deregister, key.clone())),
            Id::Subscription(key) => Some((Operation::Unsubscribe, key.clone())),
            Id::Read(_) | Id::Watch(_) => None,
        }
    }
}
