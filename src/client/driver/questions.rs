//! What is asked about services as a whole, one question at a time.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::{
    client::RequestError,
    model::{ServiceDetails, ServiceKey},
};

/// What is asked, and what is to be asked.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    under_way: Option<Question>,
}

pub(super) struct Question {
    pub(super) key: ServiceKey,
    /// Who waits; nobody, on an explanation's account.
    pub(super) reply: Option<oneshot::Sender<Result<ServiceDetails, RequestError>>>,
}

impl Questions {
    pub(super) fn push(&mut self, question: Question) {
        self.waiting.push_back(question);
    }

    /// Nobody knows whether the one under way will be answered: it is asked again.
    pub(super) fn begin_anew(&mut self) {
        if let Some(question) = self.under_way.take() {
            self.waiting.push_front(question);
        }
    }

    /// The next one, if none is under way. It is, if `ask` says so.
    pub(super) fn ask_next(&mut self, ask: impl FnOnce(&ServiceKey) -> bool) {
        if self.under_way.is_some() {
            return;
        }
        self.waiting.retain(|question| !question.is_moot());
        if let Some(question) = self.waiting.pop_front() {
            if ask(&question.key) {
                self.under_way = Some(question);
            } else {
                self.waiting.push_front(question);
            }
        }
    }

    /// The one under way, which is answered.
    pub(super) fn answered(&mut self) -> Option<Question> {
        self.under_way.take()
    }
}

impl Question {
    /// Whether whoever asked has gone.
    fn is_moot(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}
