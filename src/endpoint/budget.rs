use std::task::{Context, Poll, ready};

/// Spends of tokio's cooperative budget, for a future that ends without having waited: a loop over
/// such futures lets the tasks beside it work, which may be what it loops for. Pending, and woken,
/// when the budget is used up. Costs nothing outside of a runtime.
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
