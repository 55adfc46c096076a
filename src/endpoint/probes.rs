use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::endpoint::{
    helpers::{Prober, Probing},
    member::Endpoint,
};

/// The probes that the janitor of a set has on their way.
pub(super) struct Probes<S>(Vec<Running<S>>);

struct Running<S> {
    endpoint: Arc<Endpoint<S>>,
    probe: Probing,
    /// When it is out of time.
    until: Instant,
}

impl<S> Probes<S> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether one more may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MOST_AT_ONCE
    }

    /// Begins one that has time until then. False if the maker has none, and a call is to find out.
    pub(super) fn begin(
        &mut self,
        prober: &dyn Prober,
        endpoint: &Arc<Endpoint<S>>,
        until: Instant,
    ) -> bool {
        let instance = endpoint.instance();
        let probe = catch_unwind(AssertUnwindSafe(|| prober.probe(&instance)));
        let probe: Probing = match probe {
            Ok(None) => return false,
            Ok(Some(probe)) => Box::pin(
                AssertUnwindSafe(probe)
                    .catch_unwind()
                    .map(|ended| ended.unwrap_or_else(|_| Err("its probe panicked".to_owned()))),
            ),
            Err(_) => Box::pin(async { Err("making its probe panicked".to_owned()) }),
        };
        self.0.push(Running {
            endpoint: Arc::clone(endpoint),
            probe,
            until,
        });
        true
    }

    /// Gives up those of instances that left.
    pub(super) fn forget_evicted(&mut self) {
        let evicted = |running: &Running<S>| running.endpoint.gate.state().is_evicted();
        self.take(evicted);
    }

    /// Gives up those that are out of time, and says whose they were.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Arc<Endpoint<S>>> {
        self.take(|running| running.until <= now)
    }

    fn take(&mut self, which: impl Fn(&Running<S>) -> bool) -> Vec<Arc<Endpoint<S>>> {
        let mut taken = Vec::new();
        while let Some(at) = self.0.iter().position(&which) {
            let Running {
                endpoint, probe, ..
            } = self.0.swap_remove(at);
            // It is the user's, and this is the janitor's task.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(probe)));
            taken.push(endpoint);
        }
        taken
    }

    /// When the next is out of time.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().map(|running| running.until).min()
    }

    /// The next to end; never, if there is none.
    pub(super) async fn next(&mut self) -> (Arc<Endpoint<S>>, Result<(), String>) {
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                if let Poll::Ready(ended) = self.0[at].probe.as_mut().poll(cx) {
                    return Poll::Ready((self.0.swap_remove(at).endpoint, ended));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl<S> Drop for Probes<S> {
    /// Their runtime has ended: others are to find out.
    fn drop(&mut self) {
        for running in &self.0 {
            running.endpoint.return_probe(true);
        }
    }
}

/// Enough to bring a rack of instances back within seconds, and few enough not to be a burst.
const MOST_AT_ONCE: usize = 16;
