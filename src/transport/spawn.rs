use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task that belongs to a connection and ends with it.
#[expect(
    clippy::disallowed_methods,
    reason = "a connection is driven on the runtime of the call that dialled it"
)]
pub(super) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    tokio::spawn(task)
}
