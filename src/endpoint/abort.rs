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

use crate::{endpoint::Endpoint, sync::Ticket};

/// Watches whether the instance of a call in flight leaves, to cut the call some time after.
///
/// Costs nothing until it is polled, and a place among the endpoint's wakers from then on: give it
/// back with [`leave`](Self::leave).
#[derive(Debug, Default)]
pub(super) struct Abort {
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
        if self.until.is_none() {
            // Looked at after this, so that no eviction falls in between.
            endpoint.wakers().register(&mut self.ticket, cx.waker());
            if !endpoint.gate.state().is_evicted() || Handle::try_current().is_err() {
                return Poll::Pending;
            }
            self.until = Some(Box::pin(sleep(after)));
        }
        match &mut self.until {
            Some(until) => until.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The call has ended.
    #[inline]
    pub(super) fn leave<S>(&mut self, endpoint: &Endpoint<S>) {
        if let Some(ticket) = self.ticket.take() {
            endpoint.wakers().leave(ticket);
        }
        self.until = None;
    }
}
