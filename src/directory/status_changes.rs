use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{
    directory::{Status, handle::Handle},
    sync::poll_within_budget,
};

/// How a subscription's [`Status`] changes, beginning with the present one.
///
/// It ends after [`Status::Closed`]. A reader that is slower than the registry gets the newest
/// status, not every one between: nothing piles up.
pub struct StatusChanges {
    handle: Handle,
    stream: u64,
    said: Option<Status>,
}

impl StatusChanges {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            stream: handle.shared.new_stream(),
            handle,
            said: None,
        }
    }

    /// The next status that differs from the last; `None` after the subscription closed. Cancel
    /// safe.
    pub async fn next(&mut self) -> Option<Status> {
        poll_fn(|cx| poll_within_budget(cx, |cx| self.poll_status(cx))).await
    }

    fn poll_status(&mut self, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        if self.said == Some(Status::Closed) {
            return Poll::Ready(None);
        }
        // First the waker, then the look: what changes in between wakes.
        self.handle.shared.register(self.stream, cx.waker());
        let status = self.handle.status();
        if self.said == Some(status) {
            return Poll::Pending;
        }
        self.said = Some(status);
        Poll::Ready(Some(status))
    }
}

impl Stream for StatusChanges {
    type Item = Status;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        poll_within_budget(cx, |cx| self.poll_status(cx))
    }
}

impl Drop for StatusChanges {
    fn drop(&mut self) {
        self.handle.shared.forget(self.stream);
    }
}

impl fmt::Debug for StatusChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusChanges")
            .field("subscription", &self.handle)
            .field("said", &self.said)
            .finish_non_exhaustive()
    }
}
