use std::sync::Arc;

use tokio::sync::oneshot;

use crate::client::RequestError;

/// Who waits for a list.
#[derive(Default)]
pub(super) struct Awaited {
    /// Who wants to know if the server refuses it for good.
    pub(super) waiting: Vec<oneshot::Sender<RequestError>>,
    /// Whether it did. Who asks after that makes us ask again.
    pub(super) refused: bool,
    /// What stands in the way, until everything is listed.
    pub(super) trouble: Option<Arc<str>>,
}
