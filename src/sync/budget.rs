//! tokio's cooperative budget: what a task may do before it lets others go.

use std::task::{Context, Poll, ready};

use tokio::task::coop;

/// Spends a unit of the task's budget; pending, and woken at once, when that is used up.
///
/// A future that ends without having waited calls this first. Else a loop around it never lets its
/// thread go, and on it nothing else runs: not the task that would end the failure that the loop is
/// about, nor the caller's own timeout. Costs a few instructions; outside of tokio there is no
/// budget, and it is always ready.
#[inline]
pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    coop::poll_proceed(cx).map(|budget| budget.made_progress())
}

/// Polls what costs a unit if it is ready.
pub(crate) fn poll_within_budget<T>(
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let budget = ready!(coop::poll_proceed(cx));
    let done = ready!(poll(cx));
    budget.made_progress();
    Poll::Ready(done)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_always_ready_lets_others_go_now_and_then() {
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        let other = tokio::spawn(async {});
        let mut rounds = 0;
        while !other.is_finished() {
            poll_fn(poll_budget).await;
            rounds += 1;
            assert!(rounds < 10_000, "nobody else runs");
        }
    }

    #[tokio::test]
    async fn what_waits_spends_nothing() {
        poll_fn(|cx| {
            for _ in 0..10_000 {
                assert!(poll_within_budget(cx, |_| Poll::<()>::Pending).is_pending());
            }
            assert!(coop::has_budget_remaining());
            while coop::has_budget_remaining() {
                assert!(poll_within_budget(cx, |_| Poll::Ready(())).is_ready());
            }
            let never = |_: &mut Context<'_>| -> Poll<()> { panic!("there is no budget") };
            assert!(poll_within_budget(cx, never).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[test]
    fn outside_of_tokio_there_is_no_budget() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!((0..10_000).all(|_| poll_budget(&mut cx).is_ready()));
    }
}
