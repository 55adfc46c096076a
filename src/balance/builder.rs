use std::{fmt, time::Duration};

use tower::{Layer, load::CompleteOnResponse};

use crate::{
    balance::{
        Balance, NoKey, P2c, Picker, Policy,
        core::{Core, Limits},
        picker::Outside,
    },
    directory::Subscription,
    endpoint::{EndpointSet, MakeEndpoint, NeverRecover, Shared, Unclassified, Verdict},
    model::Instance,
};

/// A [`Balance`] to be, and its options.
#[derive(Clone)]
pub struct BalanceBuilder<
    P = P2c,
    R = NeverRecover,
    C = CompleteOnResponse,
    V = Unclassified,
    K = NoKey,
> {
    subscription: Subscription,
    limits: Limits,
    gated: bool,
    rules: Rules<P, R, C, V, K>,
}

#[derive(Clone)]
struct Rules<P, R, C, V, K> {
    policy: P,
    recover: R,
    completion: C,
    classify: V,
    key: K,
}

/// Makes a [`Balance`] of what makes the service of one instance.
#[derive(Clone)]
pub struct BalanceLayer<
    P = P2c,
    R = NeverRecover,
    C = CompleteOnResponse,
    V = Unclassified,
    K = NoKey,
>(BalanceBuilder<P, R, C, V, K>);

impl BalanceBuilder {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            limits: Limits {
                unknown_wait: Duration::from_secs(3),
                max_waiting: 10_000,
                max_in_flight: None,
            },
            gated: true,
            rules: Rules {
                policy: P2c::default(),
                recover: NeverRecover::default(),
                completion: CompleteOnResponse::default(),
                classify: Unclassified::default(),
                key: NoKey::default(),
            },
        }
    }
}

impl<P, R, C, V, K> BalanceBuilder<P, R, C, V, K> {
    fn with<P2, R2, C2, V2, K2>(
        self,
        change: impl FnOnce(Rules<P, R, C, V, K>) -> Rules<P2, R2, C2, V2, K2>,
    ) -> BalanceBuilder<P2, R2, C2, V2, K2> {
        BalanceBuilder {
            subscription: self.subscription,
            limits: self.limits,
            gated: self.gated,
            rules: change(self.rules),
        }
    }

    /// What it will balance.
    pub const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Sets how it chooses. Default: [`P2c`].
    #[must_use]
    pub fn policy<P2: Policy>(self, policy: P2) -> BalanceBuilder<P2, R, C, V, K> {
        self.with(|rules| Rules {
            policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: rules.classify,
            key: rules.key,
        })
    }

    /// Sets how a request that was provably not processed comes back out of an error, to be sent
    /// to another instance. Default: never.
    #[must_use]
    pub fn recover<R2>(self, recover: R2) -> BalanceBuilder<P, R2, C, V, K> {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover,
            completion: rules.completion,
            classify: rules.classify,
            key: rules.key,
        })
    }

    /// Sets when a call has ended, as far as the instance's load is concerned: with the response
    /// by default, or with the end of its body.
    #[must_use]
    pub fn completion<C2>(self, completion: C2) -> BalanceBuilder<P, R, C2, V, K> {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion,
            classify: rules.classify,
            key: rules.key,
        })
    }

    /// Sets which of the service's errors mean that the instance cannot be reached. Such an
    /// instance gets no call for 1 s, then 2 s and so on up to 30 s, and comes back by a single
    /// call that succeeds. Default: none does; an error of `poll_ready` always does.
    #[must_use]
    pub fn classify<E, V2>(self, classify: V2) -> BalanceBuilder<P, R, C, V2, K>
    where
        V2: Fn(&E) -> Verdict,
    {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify,
            key: rules.key,
        })
    }

    /// Sets what a call sticks to under [`Maglev`](crate::balance::Maglev): the hash of something
    /// in the request. [`stable_hash`](crate::balance::stable_hash) makes one, and
    /// [`HashKey::of_request`](crate::balance::HashKey::of_request) finds one in the extensions of
    /// an HTTP request. Runs in `call`, in the caller's context.
    #[must_use]
    pub fn hash_key<Req, K2>(self, key: K2) -> BalanceBuilder<P, R, C, V, K2>
    where
        K2: Fn(&Req) -> Option<u64>,
    {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: rules.classify,
            key,
        })
    }

    /// The most calls at once, over all clones; one more fails with
    /// [`Overloaded`](crate::endpoint::CallError::Overloaded) at once. A call counts from its first
    /// poll until its response, or its end, waiting included. 0 lets none through. Default: no
    /// limit.
    #[must_use]
    pub const fn max_in_flight(mut self, calls: usize) -> Self {
        self.limits.max_in_flight = Some(calls);
        self
    }

    /// For how long a call waits while it is not known which instances there are, before it fails
    /// with [`Unknown`](crate::endpoint::CallError::Unknown). Default: 3 s. When it is known that
    /// there are none, no call waits, and none does outside of a tokio runtime.
    #[must_use]
    pub const fn unknown_wait(mut self, wait: Duration) -> Self {
        self.limits.unknown_wait = wait;
        self
    }

    /// How many calls may wait so; one more fails with
    /// [`Overloaded`](crate::endpoint::CallError::Overloaded) at once. Default: 10,000.
    #[must_use]
    pub const fn max_waiting(mut self, calls: usize) -> Self {
        self.limits.max_waiting = calls;
        self
    }

    /// Lets calls pass whatever the gates say: to show that without them calls do land on
    /// instances that left.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub const fn without_gates(mut self) -> Self {
        self.gated = false;
        self
    }

    /// Makes the balancer; `make` makes the service that calls one instance, at that instance's
    /// first use.
    ///
    /// Call it on a tokio runtime: a small task there makes the pick tables and closes the
    /// connections of evicted instances also when no call passes. Without one both happen at the
    /// next call.
    pub fn build<M: MakeEndpoint>(self, make: M) -> Balance<M::Service, P, R, C, V, K>
    where
        M::Service: Send + Sync + 'static,
        P: Policy,
        R: Send + Sync + 'static,
        C: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let attached = self.subscription.attach(|snapshot, quiet| {
            let key = self.subscription.key().clone();
            EndpointSet::new(key, snapshot, quiet, None, self.gated)
        });
        let rules = self.rules;
        let shared = Shared::new(
            attached,
            make,
            rules.recover,
            rules.completion,
            rules.classify,
        );
        Balance::new(&Core::new(shared, rules.policy, self.limits), rules.key)
    }

    /// Makes a [`Picker`] instead, for callers who make their calls themselves: it hands out
    /// instances and needs no maker. `recover`, `completion`, `classify` and `hash_key` are a
    /// maker's and mean nothing to it: the caller reports, and [`Picker::pick_by`] takes a key.
    pub fn picker(self) -> Picker<P>
    where
        P: Policy,
    {
        let plain = self.with(|rules| Rules {
            policy: rules.policy,
            recover: NeverRecover::default(),
            completion: (),
            classify: (),
            key: NoKey::default(),
        });
        Picker::new(plain.build(|_: &Instance| Outside))
    }

    /// The same as a layer, around what makes the service of one instance.
    pub const fn into_layer(self) -> BalanceLayer<P, R, C, V, K> {
        BalanceLayer(self)
    }
}

impl<M, P, R, C, V, K> Layer<M> for BalanceLayer<P, R, C, V, K>
where
    M: MakeEndpoint,
    M::Service: Send + Sync + 'static,
    P: Policy + Clone,
    R: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    K: Clone,
{
    type Service = Balance<M::Service, P, R, C, V, K>;

    fn layer(&self, make: M) -> Self::Service {
        self.0.clone().build(make)
    }
}

impl<P: fmt::Debug, R, C, V, K> fmt::Debug for BalanceBuilder<P, R, C, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceBuilder")
            .field("subscription", &self.subscription)
            .field("limits", &self.limits)
            .field("policy", &self.rules.policy)
            .finish_non_exhaustive()
    }
}

impl<P: fmt::Debug, R, C, V, K> fmt::Debug for BalanceLayer<P, R, C, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BalanceLayer").field(&self.0).finish()
    }
}
