use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};

use crate::{endpoint::member::Endpoint, sync::Ticket};

/// Watches whether the instance of a call in flight leaves, to cut the call some time after.
///
/// Costs a word until it is polled, and from then on an allocation and a place among the endpoint's
/// wakers: give that back with [`leave`](Self::leave).
#[derive(Debug, Default)]
pub(super) struct Abort(Option<Box<Watch>>);

#[derive(Debug, Default)]
struct Watch {
    ticket: Option<Ticket>,
    until: Option<Pin<Box<Sleep>>>,
}

impl Abort {
    /// Ready once the instance has been evicted for so long, as far as this call can tell. Never
    /// without a runtime, which has no timer.
    pub(super) fn poll<S>(
        &mut self,
        endpoint: &Endpoint<S>,
        after: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let watch = self.0.get_or_insert_default();
        if watch.until.is_none() {
            // Looked at after this, so that no eviction falls in between.
            endpoint.wakers().register(&mut watch.ticket, cx.waker());
            if !endpoint.gate.state().is_evicted() || Handle::try_current().is_err() {
                return Poll::Pending;
            }
            watch.until = Some(Box::pin(sleep(after)));
        }
        match &mut watch.until {
            Some(until) => until.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The call has ended.
    #[inline]
    pub(super) fn leave<S>(&mut self, endpoint: &Endpoint<S>) {
        if let Some(watch) = self.0.take()
            && let Some(ticket) = watch.ticket
        {
            endpoint.wakers().leave(ticket);
        }
    }
}
