use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// What comes of `work`, while the connection that it is done over is driven beside it.
pub(super) async fn driven<T>(connection: impl Future, work: impl Future<Output = T>) -> T {
    let (mut connection, mut work) = (pin!(connection), pin!(work));
    let mut over = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            // How it ended is told to the work, which is looked at again.
            if over || connection.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            over = true;
        }
    })
    .await
}
