use std::{any::TypeId, fmt, sync::Arc, time::Duration};

use tower::{Layer, load::CompleteOnResponse};

use crate::{
    balance::{
        AdaptiveConcurrency, Balance, Hints, InExtensions, KeyOnly, NoHints, Outliers, P2c, Picker,
        Policy, SlowStart, Subset, TrafficSplit, ZoneAware,
        core::{Core, Limits, Options},
        lease::Outside,
    },
    directory::Subscription,
    endpoint::{
        EndpointSet, HealthCheck, HealthRules, MakeEndpoint, NeverRecover, Outcome, Replaying,
        Shared, TryRules, Unclassified, Verdict, WithAgain, WithOutcomes,
    },
    model::Instance,
    retry::{Again, Hedge, InvalidCallPolicy, Retry, check_times},
};

/// A [`Balance`] to be, and its options.
#[derive(Clone)]
pub struct BalanceBuilder<
    P = P2c,
    R = NeverRecover,
    C = CompleteOnResponse,
    V = Unclassified,
    K = NoHints,
> {
    subscription: Subscription,
    limits: Limits,
    options: Options,
    gated: bool,
    abort_after: Option<Duration>,
    health: HealthRules,
    per_try: Option<Duration>,
    retry: Option<Retry>,
    hedge: Option<Hedge>,
    rules: Rules<P, R, C, V, K>,
}

#[derive(Clone)]
struct Rules<P, R, C, V, K> {
    policy: P,
    recover: R,
    completion: C,
    classify: V,
    hints: K,
}

/// Makes a [`Balance`] of what makes the service of one instance.
///
/// Example: [the same as a builder](crate::balance)
#[derive(Clone)]
pub struct BalanceLayer<
    P = P2c,
    R = NeverRecover,
    C = CompleteOnResponse,
    V = Unclassified,
    K = NoHints,
>(BalanceBuilder<P, R, C, V, K>);

impl Balance<()> {
    /// A balancer over the instances of `subscription`.
    pub fn builder(subscription: &Subscription) -> BalanceBuilder {
        BalanceBuilder::new(subscription.clone())
    }
}

impl BalanceBuilder {
    fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            limits: Limits {
                unknown_wait: Duration::from_secs(3),
                max_waiting: 10_000,
                max_in_flight: None,
            },
            options: Options::default(),
            gated: true,
            abort_after: None,
            health: HealthRules::new(),
            per_try: None,
            retry: None,
            hedge: None,
            rules: Rules {
                policy: P2c::default(),
                recover: NeverRecover::default(),
                completion: CompleteOnResponse::default(),
                classify: Unclassified::default(),
                hints: NoHints::default(),
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
            options: self.options,
            gated: self.gated,
            abort_after: self.abort_after,
            health: self.health,
            per_try: self.per_try,
            retry: self.retry,
            hedge: self.hedge,
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
            hints: rules.hints,
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
            hints: rules.hints,
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
            hints: rules.hints,
        })
    }

    /// Sets what the service's errors say of the instance: that it cannot be reached, or that only a
    /// connection to it was lost; [`Verdict`] says what follows. Default: nothing; an error of
    /// `poll_ready` always says that it cannot be reached.
    ///
    /// Give it before [`outliers`](Self::outliers): given after, it takes the closure of that away, and `build` warns.
    #[must_use]
    pub fn classify<E, V2>(mut self, classify: V2) -> BalanceBuilder<P, R, C, V2, K>
    where
        V2: Fn(&E) -> Verdict,
    {
        self.options.outliers_lost |= self.options.outliers.take().is_some();
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify,
            hints: rules.hints,
        })
    }

    /// Ejects instances that answer badly, for a while: `outcomes` says of a response or an error
    /// how well the instance did. It sees what the instance answered, and errors that
    /// [`classify`](Self::classify) does not blame on the connection; runs where the response
    /// arrives. Comes after `classify`, which takes it back (with a warning at `build`). Default:
    /// nobody is ejected for answers.
    #[must_use]
    pub fn outliers<Res, E, O>(
        mut self,
        outliers: Outliers,
        outcomes: O,
    ) -> BalanceBuilder<P, R, C, WithOutcomes<V, O>, K>
    where
        O: Fn(Result<&Res, &E>) -> Outcome,
    {
        self.options.outliers = Some(outliers);
        self.options.outliers_lost = false;
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: WithOutcomes::new(rules.classify, outcomes),
            hints: rules.hints,
        })
    }

    /// Ejects instances that answer badly where something else judges, as here; elsewhere nothing does, and
    /// nobody is ejected:
    ///
    /// | calls by | good | bad | neither |
    /// |---|---|---|---|
    /// | our transport, HTTP | any status below 500, and 501 | 500 and above but 501; no head in time (`header_timeout`, `per_try_timeout`) | refused or never sent; the caller's own fault |
    /// | our transport, gRPC | a `grpc-status` in the response's head other than those to the right; a head without one | 4, 13, 14, 15 (DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS) in the head | a status in the trailers |
    /// | a [`Picker`] | `lease.succeeded()` | `lease.failed(..)`, as its verdict says | a lease that is dropped without a word |
    ///
    /// A call that its caller gives up counts as bad if it had lasted for 100 ms and three times as long as
    /// usual ([`Outcome::Abandoned`]).
    #[must_use]
    pub const fn eject_outliers(mut self, outliers: Outliers) -> Self {
        self.options.outliers = Some(outliers);
        self
    }

    /// Asks each callable instance every few seconds whether it is well, and keeps calls from those that say no;
    /// [`HealthCheck`] says all of it. Over our transports ([`MakeTransport`](crate::transport::MakeTransport))
    /// checks by HTTP and gRPC dial as calls do, and speak TLS where those do; beside other makers in clear, or as
    /// metadata says. Needs a runtime to be built on, or calls on one. Default: nobody is asked.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use tower_nacos::{Balance, Instance, Subscription, endpoint::HealthCheck};
    /// # let orders = Subscription::fixed([Instance::parse("10.0.0.1:80")?]);
    /// # let make = |_: &Instance| tower::service_fn(async |n: u32| Ok::<_, Infallible>(n));
    /// let balance = Balance::builder(&orders)
    ///     .health_check(HealthCheck::http("/health"))
    ///     .build(make);
    /// # let _ = balance.clone().oneshot(7);
    /// # use tower::ServiceExt;
    /// # Ok::<(), tower_nacos::model::InvalidAddress>(())
    /// ```
    #[must_use]
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.options.health_check = Some(Arc::new(check));
        self
    }

    /// Limits how many calls each instance gets at once, by how long it takes to answer and what it refuses;
    /// [`AdaptiveConcurrency`] says all of it. Default: no limit.
    #[must_use]
    pub const fn adaptive_concurrency(mut self, limits: AdaptiveConcurrency) -> Self {
        self.options.concurrency = Some(limits);
        self
    }

    /// Sets any [`Judge`](crate::endpoint::Judge): `classify` and the judgement of outcomes in one.
    #[must_use]
    pub fn judge<V2>(self, judge: V2) -> BalanceBuilder<P, R, C, V2, K> {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: judge,
            hints: rules.hints,
        })
    }

    /// Sets what each request asks of the pick: a hash key, a cluster, metadata, what to leave out.
    /// Runs in `call`, in the caller's context. Default: nothing.
    #[must_use]
    pub fn hints<Req, H>(self, hints: H) -> BalanceBuilder<P, R, C, V, H>
    where
        H: Fn(&Req) -> Hints,
    {
        self.hints_of(hints)
    }

    /// Takes what each request asks of the pick from the [`Hints`] in its extensions, for HTTP
    /// requests.
    #[must_use]
    pub fn hints_in_extensions(self) -> BalanceBuilder<P, R, C, V, InExtensions> {
        self.hints_of(InExtensions)
    }

    /// Sets what a call sticks to under [`Maglev`](crate::balance::Maglev): the hash of something
    /// in the request. [`stable_hash`](crate::balance::stable_hash) makes one. The same as
    /// [`hints`](Self::hints) with nothing but a key.
    #[must_use]
    pub fn hash_key<Req, F>(self, key: F) -> BalanceBuilder<P, R, C, V, KeyOnly<F>>
    where
        F: Fn(&Req) -> Option<u64>,
    {
        self.hints_of(KeyOnly(key))
    }

    /// Sets any [`HintsOf`](crate::balance::HintsOf).
    #[must_use]
    pub fn hints_of<H>(self, hints: H) -> BalanceBuilder<P, R, C, V, H> {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: rules.classify,
            hints,
        })
    }

    /// Puts instances of this Nacos cluster before all others, or after those that were named
    /// before; the rest comes last. [`prefer_clusters`](Self::prefer_clusters) names several.
    ///
    /// A cluster takes `min(1, 1.4 × callable weight ÷ reference weight)` of the calls, or what
    /// those before it leave; the reference is the most that its instances weighed in all in the
    /// last 10 minutes, rounded up to 10 s (a cluster whose instances vanish from the list does not
    /// send all calls to its one survivor), or what [`expected_weight`](Self::expected_weight)
    /// says. So calls stay at home until more than 28 % of it are gone. When all together cannot
    /// take everything, it is spread in proportion to what they can. What is ejected is not
    /// callable here, so calls move on without a push.
    ///
    /// An address that two clusters list is in both. A first cluster that no instance is in costs
    /// one warning and no call. Default: no cluster comes first.
    #[must_use]
    pub fn prefer_cluster(self, cluster: impl Into<Arc<str>>) -> Self {
        self.prefer_clusters([cluster])
    }

    /// The same for several, in this order.
    #[must_use]
    pub fn prefer_clusters<A: Into<Arc<str>>>(
        mut self,
        clusters: impl IntoIterator<Item = A>,
    ) -> Self {
        self.options
            .tiers
            .prefer(clusters.into_iter().map(Into::into));
        self
    }

    /// What the first preferred cluster weighs when it is whole, in place of what was seen of it:
    /// for a caller that may start after a loss. Ignored, with a warning, if it is not a positive
    /// number, or no cluster is preferred. Of a merged subscription it is of the lowest tier.
    #[must_use]
    pub const fn expected_weight(mut self, weight: f64) -> Self {
        self.options.tiers.expected_own = Some(weight);
        self
    }

    /// The same for any cluster.
    #[must_use]
    pub fn expected_weight_of(mut self, cluster: impl Into<Arc<str>>, weight: f64) -> Self {
        self.options.tiers.expected.push((cluster.into(), weight));
        self
    }

    /// Keeps calls in the own zone as far as its share of the capacity goes, which [`ZoneAware`] says all of.
    /// In place of [`prefer_cluster`](Self::prefer_cluster): with both [`check`](Self::check) fails, and
    /// `build` goes by the order, with a warning; so does what cannot be meant of it. A home that no
    /// instance is in costs one warning and no call. Default: off.
    #[must_use]
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.options.tiers.zones = Some(zones);
        self
    }

    /// Gives instances that are new their calls little by little. Default: off.
    #[must_use]
    pub const fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.options.slow_start = Some(slow_start);
        self
    }

    /// Has this caller call a part of the instances only, and connect to no others: for services of so many
    /// instances and callers that each cannot know every other. [`Subset`] says which part, and what it costs.
    /// Default: all of them.
    #[must_use]
    pub fn subset(mut self, subset: Subset) -> Self {
        self.options.subset = Some(subset);
        self
    }

    /// Divides the calls among instances by their metadata: 5 % to `version=2`, say. Keep a clone of
    /// `split` to change the shares while it runs. Default: no split, which costs a pick nothing.
    #[must_use]
    pub fn split(mut self, split: &TrafficSplit) -> Self {
        self.options.split = Some(split.clone());
        self.options.split_by = None;
        self
    }

    /// The same with shares that the instances say themselves, in their metadata, where an operator
    /// changes them in the registry's console: those with one value of `by` (`version`) get what they
    /// say in `share` (`traffic-percent`), in percent, and those that say nothing what is left. Read
    /// with each list. What is wrong (no number, shares that do not add up, instances of one version that
    /// disagree) changes nothing, and one WARN says what it is; see
    /// [`Shares::of_instances`](crate::balance::Shares::of_instances). Whoever may register an instance
    /// may say so much of it. In place of [`split`](Self::split), as that is of this. Default: not read.
    #[must_use]
    pub fn split_by_metadata(
        mut self,
        by: impl Into<Arc<str>>,
        share: impl Into<Arc<str>>,
    ) -> Self {
        self.options.split_by = Some([by.into(), share.into()]);
        self
    }

    /// The most calls at once, over all clones; one more fails with
    /// [`Overloaded`](crate::endpoint::CallError::Overloaded) at once. A call counts from its first
    /// poll until its response, or its end, waiting included. 0 lets none through. Default: no
    /// limit.
    ///
    /// The transport's [`max_calls`](crate::transport::TransportBuilder::max_calls) is another limit: that is of one
    /// instance, counts until the ends of bodies, and one more waits.
    #[must_use]
    pub const fn max_in_flight(mut self, calls: usize) -> Self {
        self.limits.max_in_flight = Some(calls);
        self
    }

    /// For how long a call waits while it is not known which instances there are, before it fails
    /// with [`Unknown`](crate::endpoint::CallError::Unknown). Default: 3 s. When it is known that
    /// there are none, no call waits, and none does outside of a tokio runtime. (A first list that is empty is
    /// not known to be true for
    /// [`unknown_while_empty`](crate::directory::Options::unknown_while_empty).)
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
    /// were under way together count once, see [`Outliers`].
    /// Default: 5, since fewer may be one bad request and its retries; 0 for never, 1,000 at most.
    #[must_use]
    pub const fn max_lost(mut self, calls: u32) -> Self {
        self.health.most_lost = if calls < 1_000 { calls as u16 } else { 1_000 };
        self
    }

    /// For how long one try of a call may last: from when the request goes into an instance, dialling and
    /// sending its body included, to the head of the response. One that is out of time counts against the
    /// instance, as an answer that did not come ([`eject_outliers`](Self::eject_outliers)); its service's
    /// future is dropped, which over our transports resets the stream (HTTP/2, CANCEL) or closes the
    /// connection (HTTP/1.1), so that the instance may stop; and the request goes to another instance, if it
    /// may be sent again and has tries left ([`retry`](Self::retry); without one by its defaults, for tries
    /// that are out of time only, and without rests). Else the call fails with
    /// [`TryTimedOut`](crate::endpoint::CallError::TryTimedOut). It is no limit of the call, which has its own,
    /// and none of the response's body.
    ///
    /// Default: none, since how long an answer may take is the service's affair. Costs a box, and a timer
    /// for each try that is not answered at once. Nothing gets through in 0: that is ignored, with a
    /// warning. Source: Envoy's `per_try_timeout`, which does not count the dial.
    #[must_use]
    pub const fn per_try_timeout(mut self, within: Duration) -> Self {
        self.per_try = Some(within);
        self
    }

    /// For how long one may, if that was set.
    pub(crate) const fn try_limit(&self) -> Option<Duration> {
        match self.per_try {
            Some(Duration::ZERO) => None,
            limit => limit,
        }
    }

    /// Sends requests again that an instance had, by this policy; [`retry`](crate::retry) says which. What was
    /// provably not processed moves without it. Default: none, but what the maker brings with it
    /// ([`MakeEndpoint::retry`]).
    ///
    /// For HTTP and gRPC that is all. Of other requests it takes [`replay`](Self::replay) to know how they
    /// are sent again, and [`again`](Self::again) to know after what.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Begins a second try beside the first, at another instance, where that is not answered in time; the first
    /// answer wins, and the other try is given up at its instance as if its caller had gone. [`Hedge`] says of
    /// which requests, and what it costs. Its budget and the number of tries are those of
    /// [`retry`](Self::retry); without one by its defaults, and nothing is sent again otherwise. Where nothing says
    /// how a request is made again ([`replay`](Self::replay), or our transports) it does nothing, and `build` warns.
    /// Default: none.
    #[must_use]
    pub const fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Sets how requests are sent again that an instance had, of which nothing came back: `replay` makes the
    /// request that goes out in that case, `None` says that this one may be processed once only. Asked once a
    /// call before it goes into an instance, and again for each further try. Default: none is, but what our
    /// transports know. Comes after [`recover`](Self::recover), which replaces it.
    ///
    /// ```
    /// # use std::{convert::Infallible, time::Duration};
    /// # use tower_nacos::{Balance, Instance, Subscription, retry::{Again, Retry}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// # use tower::ServiceExt;
    /// # let orders = Subscription::fixed([Instance::parse("10.0.0.1:80")?]);
    /// # let make = |_: &Instance| tower::service_fn(async |n: u32| Ok::<_, Infallible>(n));
    /// let balance = Balance::builder(&orders)
    ///     .per_try_timeout(Duration::from_millis(200))
    ///     .retry(Retry::new())
    ///     .replay(|request: &u32| Some(*request))
    ///     .again(|result: Result<&u32, &Infallible>| match result {
    ///         Ok(503) => Again::Yes,
    ///         _ => Again::No,
    ///     })
    ///     .build(make);
    /// assert_eq!(balance.oneshot(7).await?, 7);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn replay<Req, F>(self, replay: F) -> BalanceBuilder<P, Replaying<R, F>, C, V, K>
    where
        F: Fn(&Req) -> Option<Req> + Clone + Send + 'static,
    {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: Replaying::new(rules.recover, replay),
            completion: rules.completion,
            classify: rules.classify,
            hints: rules.hints,
        })
    }

    /// Sets after which responses and errors a request is sent again, if it may be
    /// ([`replay`](Self::replay)) and the policy has room for it ([`retry`](Self::retry)). Tries that were
    /// out of time are in any case. Default: after none, but what our transports know. Comes after
    /// [`classify`](Self::classify) and [`judge`](Self::judge), which replace it.
    #[must_use]
    pub fn again<Res, E, F>(self, again: F) -> BalanceBuilder<P, R, C, WithAgain<V, F>, K>
    where
        F: Fn(Result<&Res, &E>) -> Again,
    {
        self.with(|rules| Rules {
            policy: rules.policy,
            recover: rules.recover,
            completion: rules.completion,
            classify: WithAgain::new(rules.classify, again),
            hints: rules.hints,
        })
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

    /// Whether its options can be meant so: a policy that [can](Retry::check), a time for each try in which
    /// something may happen, limits, [zones](Self::zone_aware) that are said in full and without an order beside
    /// them, a [health check](HealthCheck::check) of what can be asked for, a [subset](Subset::check) of some.
    /// [`build`](Self::build) does without what cannot, and warns of it.
    ///
    /// # Errors
    ///
    /// The first that cannot.
    pub fn check(&self) -> Result<(), InvalidCallPolicy> {
        self.check_tries()?;
        self.check_limits().map_err(InvalidCallPolicy::new)?;
        let zones = self.options.tiers.check_zones();
        zones.map_err(InvalidCallPolicy::new)?;
        let health = self.options.health_check.as_deref();
        check_others(health, self.options.subset.as_ref())
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = self.options.concurrency.as_ref();
        limits.map_or(Ok(()), AdaptiveConcurrency::check)
    }

    fn check_tries(&self) -> Result<(), InvalidCallPolicy> {
        check_times(self.per_try, None)?;
        self.retry.as_ref().map_or(Ok(()), Retry::check)
    }

    /// Has the durations of requests told, as the histogram `tower_nacos_request_duration_seconds` by service
    /// ([`metrics`](crate::metrics)): from a request's first poll, waiting for an instance included, to the
    /// head of its response or its failure. Not of those that no instance had, or whose callers let go.
    /// Default: off, since it costs each request two readings of the clock (some 60 ns), and a service 18
    /// series. Bounds: [`BUCKETS`](crate::metrics::BUCKETS). There is none by instance: what it would take is
    /// a set of series an instance that ever was; [`Balance::explain`] has those of the moment.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub const fn request_durations(mut self) -> Self {
        self.options.durations = true;
        self
    }

    /// Makes the balancer; `make` makes the service that calls one instance, at that instance's
    /// first use.
    ///
    /// Call it on a tokio runtime: a small task there makes the pick tables and closes the
    /// connections of evicted instances also when no call passes. Without one both happen at the
    /// next call.
    pub fn build<M: MakeEndpoint>(mut self, make: M) -> Balance<M::Service, P, R, C, V, K>
    where
        M::Service: Send + Sync + 'static,
        P: Policy,
        R: Send + Sync + 'static,
        C: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let tiers = self.subscription.tiers();
        self.options.tiers.sources = if tiers.len() > 1 { tiers } else { Vec::new() };
        let attached = self.subscription.attach(|snapshot, quiet| {
            let key = self.subscription.key().clone();
            EndpointSet::open_with(key, snapshot, quiet, None, self.gated, |settings| {
                if let Some(limits) = self.options.concurrency {
                    settings.limit(limits.rules());
                }
            })
        });
        attached.consumer().settings().judge_health(self.health);
        if let Some(after) = self.abort_after {
            attached.consumer().settings().abort_after(after);
        }
        // The tiers tell themselves.
        let never = TypeId::of::<R>() == TypeId::of::<NeverRecover>();
        let checked = [
            self.check_tries().map_err(|error| error.to_string()),
            self.check_limits(),
            match self.hedge {
                Some(_) if never => Err(HEDGES_NOTHING.to_owned()),
                _ => Ok(()),
            },
        ];
        let per_try = self.try_limit();
        let retry = self.retry.or_else(|| make.retry());
        if let Some(rules) = TryRules::new(per_try, retry, self.hedge) {
            attached.consumer().settings().watch_tries(rules);
        }
        let rules = self.rules;
        if let Some(check) = &mut self.options.health_check {
            *check = Arc::new(HealthCheck::clone(check).over(make.asker()));
        }
        let shared = Shared::new(
            attached,
            make,
            rules.recover,
            rules.completion,
            rules.classify,
        );
        let core = Core::new(shared, rules.policy, self.options, self.limits);
        for invalid in checked.into_iter().filter_map(Result::err) {
            core.warn(format_args!("ignored: {invalid}"));
        }
        Balance::new(&core, rules.hints)
    }

    /// Makes a [`Picker`] instead, for callers who make their calls themselves: it hands out
    /// instances and needs no maker. `recover`, `completion`, `classify` and `hints` are a
    /// maker's and mean nothing to it: the caller reports, and [`Picker::pick_by`] takes hints.
    pub fn picker(self) -> Picker<P>
    where
        P: Policy,
    {
        let plain = self.with(|rules| Rules {
            policy: rules.policy,
            recover: NeverRecover::default(),
            completion: (),
            classify: (),
            hints: NoHints::default(),
        });
        Picker::new(plain.build(|_: &Instance| Outside))
    }

    /// The same as a layer, around what makes the service of one instance.
    pub const fn into_layer(self) -> BalanceLayer<P, R, C, V, K> {
        BalanceLayer(self)
    }
}

const HEDGES_NOTHING: &str =
    "a hedge where no request may be processed twice; say by replay(..) how one is made again";

/// What has an error of its own.
pub(crate) fn check_others(
    health: Option<&HealthCheck>,
    subset: Option<&Subset>,
) -> Result<(), InvalidCallPolicy> {
    let health = health.map_or(Ok(()), HealthCheck::check);
    health.map_err(|invalid| InvalidCallPolicy::new(invalid.to_string()))?;
    let subset = subset.map_or(Ok(()), Subset::check);
    subset.map_err(|invalid| InvalidCallPolicy::new(invalid.to_string()))
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
