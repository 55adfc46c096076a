use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{
    directory::{Change, ChangeKind, RemovalCause, Snapshot, change, handle::Handle},
    sync::poll_within_budget,
};

/// The changes of a subscription's callable set, in order of revisions, removals first.
///
/// It begins with an [`Added`](ChangeKind::Added) for each instance that is callable then, and
/// ends after the subscription closed, with a removal of each remaining instance by
/// [`RemovalCause::Shutdown`]. A reader that is slower than the registry gets the difference between what
/// it saw and what is, not every state between; nothing piles up.
pub struct Changes {
    handle: Handle,
    stream: u64,
    seen: Arc<Snapshot>,
    pending: VecDeque<Change>,
    ended: bool,
}

impl Changes {
    pub(super) fn new(handle: Handle) -> Self {
        // Begins now and not at the first poll: what leaves in between was there.
        let seen = handle.snapshot();
        let pending = seen
            .callable()
            .map(|entry| Change::new(&seen, entry, ChangeKind::Added))
            .collect();
        Self {
            stream: handle.shared.new_stream(),
            handle,
            seen,
            pending,
            ended: false,
        }
    }

    /// The next change; `None` after the subscription closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        poll_fn(|cx| poll_within_budget(cx, |cx| self.poll_change(cx))).await
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Poll::Ready(Some(change));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            // First the waker, then the look: what is published in between wakes.
            let shared = &self.handle.shared;
            shared.register(self.stream, cx.waker());
            let (snapshot, closed) = {
                let state = shared.lock();
                let snapshot = self.handle.view.snapshot();
                if snapshot.revision != self.seen.revision {
                    self.pending
                        .extend(change::between(&self.seen, &snapshot, &state.stones));
                }
                (snapshot, state.closed)
            };
            if snapshot.revision != self.seen.revision {
                self.seen = snapshot;
            } else if closed {
                let shutdown = ChangeKind::Removed {
                    cause: RemovalCause::Shutdown,
                };
                let seen = &self.seen;
                self.pending
                    .extend(seen.callable().map(|e| Change::new(seen, e, shutdown)));
                self.ended = true;
            } else {
                return Poll::Pending;
            }
        }
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        poll_within_budget(cx, |cx| self.poll_change(cx))
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.handle.shared.forget(self.stream);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("subscription", &self.handle)
            .field("seen", &self.seen.revision)
            .finish_non_exhaustive()
    }
}
