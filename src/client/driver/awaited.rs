use std::sync::Arc;

use tokio::sync::oneshot;

use crate::client::RequestError;

/// Who waits for a list of services.
#[derive(Default)]
pub(super) struct Awaited {
    /// Who wants to know if the server refuses it for good.
    waiting: Vec<oneshot::Sender<RequestError>>,
    /// Whether it did. Who asks after that makes us ask again.
    refused: bool,
    /// What stands in the way, until everything is listed.
    trouble: Option<Arc<str>>,
}

impl Awaited {
    /// Somebody waits. True if the server has to be asked again.
    pub(super) fn wait(&mut self, reply: oneshot::Sender<RequestError>) -> bool {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(reply);
        std::mem::take(&mut self.refused)
    }

    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.clone()
    }

    pub(super) fn set_trouble(&mut self, trouble: Arc<str>) {
        self.trouble = Some(trouble);
    }

    /// Everything is listed: whoever waits sees it in the list.
    pub(super) fn listed(&mut self) {
        *self = Self::default();
    }

    /// Ends the wait of everybody.
    pub(super) fn refuse(&mut self, error: &RequestError) {
        self.refused = true;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(error.clone());
        }
    }
}
