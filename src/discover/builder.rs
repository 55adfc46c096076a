use std::{fmt, sync::Arc, time::Duration};

use tower::load::CompleteOnResponse;

#[cfg(feature = "testing")]
use crate::endpoint::Bare;
use crate::{
    directory::Subscription,
    discover::Discovery,
    endpoint::{
        EndpointSet, HealthRules, MakeEndpoint, NeverRecover, Shared, TryRules, Unclassified,
        Verdict,
    },
};

/// A [`Discovery`] with options.
pub struct DiscoverBuilder<R = NeverRecover, C = CompleteOnResponse, V = Unclassified> {
    subscription: Subscription,
    prefer: Option<Arc<str>>,
    gated: bool,
    abort_after: Option<Duration>,
    health: HealthRules,
    recover: R,
    completion: C,
    classify: V,
}

impl DiscoverBuilder {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            prefer: None,
            gated: true,
            abort_after: None,
            health: HealthRules::new(),
            recover: NeverRecover::default(),
            completion: CompleteOnResponse::default(),
            classify: Unclassified::default(),
        }
    }
}

impl<R, C, V> DiscoverBuilder<R, C, V> {
    /// Offers only the instances of this cluster while one of them can be called, and all of them
    /// otherwise. All or nothing: a cluster of which one instance is left gets every call.
    #[must_use]
    pub fn prefer_cluster(mut self, cluster: impl Into<Arc<str>>) -> Self {
        self.prefer = Some(cluster.into());
        self
    }

    /// Sets how a request that was provably not processed comes back out of an error, to be sent
    /// to another instance. Default: never.
    #[must_use]
    pub fn recover<R2>(self, recover: R2) -> DiscoverBuilder<R2, C, V> {
        DiscoverBuilder {
            subscription: self.subscription,
            prefer: self.prefer,
            gated: self.gated,
            abort_after: self.abort_after,
            health: self.health,
            recover,
            completion: self.completion,
            classify: self.classify,
        }
    }

    /// Sets when a call has ended, as far as the instance's load is concerned: with the response
    /// by default, or with the end of its body.
    #[must_use]
    pub fn completion<C2>(self, completion: C2) -> DiscoverBuilder<R, C2, V> {
        DiscoverBuilder {
            subscription: self.subscription,
            prefer: self.prefer,
            gated: self.gated,
            abort_after: self.abort_after,
            health: self.health,
            recover: self.recover,
            completion,
            classify: self.classify,
        }
    }

    /// Sets what the service's errors say of the instance: that it cannot be reached, or that only a
    /// connection to it was lost; [`Verdict`] says what follows. Default: nothing; an error of
    /// `poll_ready` always says that it cannot be reached.
    #[must_use]
    pub fn classify<E, V2>(self, classify: V2) -> DiscoverBuilder<R, C, V2>
    where
        V2: Fn(&E) -> Verdict,
    {
        DiscoverBuilder {
            subscription: self.subscription,
            prefer: self.prefer,
            gated: self.gated,
            abort_after: self.abort_after,
            health: self.health,
            recover: self.recover,
            completion: self.completion,
            classify,
        }
    }

    /// Cuts calls in flight on an instance that left the registry, so long after they learnt of it:
    /// a call without its response yet fails with
    /// [`Aborted`](crate::endpoint::CallError::Aborted), and its service's future is dropped.
    /// Default: never, since an instance that goes offline usually ends what it has begun. Take it
    /// where instances vanish without closing their connections, and calls have no deadline.
    ///
    /// Whether a request that was cut had been processed is not known. A body that is being read is
    /// cut only by a `completion` that asks
    /// [`InFlight::poll_abort`](crate::endpoint::InFlight::poll_abort). Costs a lock of the
    /// instance's at each pending poll.
    #[must_use]
    pub const fn abort_in_flight_after(mut self, after: Duration) -> Self {
        self.abort_after = Some(after);
        self
    }

    /// While no instance can be called, one whose last dial failed so long ago is dialled again for
    /// whoever asks, and the call waits for that; when each failed more recently the call fails at
    /// once with [`AllUnreachable`](crate::endpoint::CallError::AllUnreachable). Default: 250 ms, so
    /// that a service that is back is called within that and a dial, and one that is not costs each
    /// instance four dials a second at most.
    #[must_use]
    pub const fn redial_after(mut self, after: Duration) -> Self {
        self.health.redial_after = after;
        self
    }

    /// For how long a probe of an instance may take ([`MakeEndpoint::probe`]); one that is out of
    /// time has failed, and is dropped. Default: 5 s, 2 s more than our transport's dial.
    #[must_use]
    pub const fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.health.probe_timeout = timeout;
        self
    }

    /// An instance that loses so many calls in a row ([`Verdict::Lost`]), without an answer in
    /// between, is ejected as an outlier: 30 s the first time, never more than half of the instances,
    /// never the last. A response that breaks off in its body is lost, and its head no answer. Calls that
    /// were under way together count once, see [`Outliers`](crate::balance::Outliers).
    /// Default: 5, since fewer may be one bad request and its retries; 0 for never, 1,000 at most.
    #[must_use]
    pub const fn max_lost(mut self, calls: u32) -> Self {
        self.health.most_lost = if calls < 1_000 { calls as u16 } else { 1_000 };
        self
    }

    /// Lets calls pass whatever the gates say: to show that without them calls do land on
    /// instances that left.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn without_gates(mut self) -> Self {
        self.gated = false;
        self
    }

    /// Makes the stream; `make` makes the service that calls one instance.
    pub fn build<M: MakeEndpoint>(self, make: M) -> Discovery<M::Service, R, C, V>
    where
        M::Service: Send + Sync,
    {
        Discovery::new(self.share(make))
    }

    /// The call engine alone, for the crate's own tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn bare<M: MakeEndpoint>(self, make: M) -> Bare<M::Service, R, C, V>
    where
        M::Service: Send + Sync,
    {
        Bare::new(self.share(make))
    }

    fn share<M: MakeEndpoint>(self, make: M) -> Arc<Shared<M::Service, R, C, V>>
    where
        M::Service: Send + Sync,
    {
        let attached = self.subscription.attach(|snapshot, quiet| {
            let key = self.subscription.key().clone();
            EndpointSet::open(key, snapshot, quiet, self.prefer, self.gated)
        });
        attached.consumer().settings().judge_health(self.health);
        if let Some(after) = self.abort_after {
            attached.consumer().settings().abort_after(after);
        }
        if let Some(rules) = TryRules::new(None, make.retry(), None) {
            attached.consumer().settings().watch_tries(rules);
        }
        Arc::new(Shared::new(
            attached,
            make,
            self.recover,
            self.completion,
            self.classify,
        ))
    }
}

impl<R, C, V> fmt::Debug for DiscoverBuilder<R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverBuilder")
            .field("subscription", &self.subscription)
            .field("prefer", &self.prefer)
            .finish_non_exhaustive()
    }
}
