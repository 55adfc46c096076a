use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    endpoint::{Endpoint, MakeEndpoint},
    model::Instance,
};

/// The probes that the janitor of a set has on their way.
pub(super) struct Probes<S>(Vec<(Arc<Endpoint<S>>, Outcome)>);

/// A maker, as far as it probes.
pub(crate) trait Prober: Send + Sync {
    fn probe(&self, instance: &Instance) -> Option<Outcome>;
}

type Outcome = BoxFuture<'static, Result<(), String>>;

impl<M: MakeEndpoint> Prober for M {
    fn probe(&self, instance: &Instance) -> Option<Outcome> {
        MakeEndpoint::probe(self, instance)
    }
}

impl<S> Probes<S> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many more may be on their way.
    pub(super) fn room(&self) -> usize {
        MOST_AT_ONCE.saturating_sub(self.0.len())
    }

    /// Begins one. False if the maker has none, and a call is to find out.
    pub(super) fn begin(&mut self, prober: &dyn Prober, endpoint: &Arc<Endpoint<S>>) -> bool {
        let instance = endpoint.instance();
        let probe = catch_unwind(AssertUnwindSafe(|| prober.probe(&instance)));
        let probe: Outcome = match probe {
            Ok(None) => return false,
            Ok(Some(probe)) => Box::pin(
                AssertUnwindSafe(probe)
                    .catch_unwind()
                    .map(|ended| ended.unwrap_or_else(|_| Err("its probe panicked".to_owned()))),
            ),
            Err(_) => Box::pin(async { Err("making its probe panicked".to_owned()) }),
        };
        self.0.push((Arc::clone(endpoint), probe));
        true
    }

    /// Gives up those of instances that left.
    pub(super) fn forget_evicted(&mut self) {
        self.0
            .retain(|(endpoint, _)| !endpoint.gate.state().is_evicted());
    }

    /// The next to end; never, if there is none.
    pub(super) async fn next(&mut self) -> (Arc<Endpoint<S>>, Result<(), String>) {
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                if let Poll::Ready(ended) = self.0[at].1.as_mut().poll(cx) {
                    return Poll::Ready((self.0.swap_remove(at).0, ended));
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
        for (endpoint, _) in &self.0 {
            endpoint.return_probe();
        }
    }
}

/// Enough to bring a rack of instances back within seconds, and few enough not to be a burst.
const MOST_AT_ONCE: usize = 16;
