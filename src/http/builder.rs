use std::{fmt, time::Duration};

use crate::{
    balance::{
        AdaptiveConcurrency, Balance, BalanceBuilder, P2c, Policy, Subset, ZoneAware, check_others,
    },
    client,
    directory::Subscription,
    endpoint::HealthCheck,
    http::{
        balanced::BuildHttp,
        client::Client,
        each::Each,
        pool::{Pool, Registries},
        services::Limits,
    },
    model::ServiceKey,
    retry::{Hedge, InvalidCallPolicy, Retry, check_times},
    traces::Traces,
    transport::{Connector, Dial, MakeTransport, TransportBuilder},
};

/// A [`Client`] to be, and its options.
///
/// | option | default | what it is for |
/// |---|---|---|
/// | [`timeout`](Self::timeout) | none | the longest that a request may take, up to its response's head |
/// | [`per_try_timeout`](Self::per_try_timeout) | none | the same of one try; then another instance is asked |
/// | [`retry`](Self::retry) | none | what an instance may have processed is sent again |
/// | [`hedge`](Self::hedge) | none | a second try beside a first one that is slow |
/// | [`health_check`](Self::health_check) | none | instances are asked whether they are well |
/// | [`balance`](Self::balance) | [`P2c`] | policy, preferred clusters, limits: whatever [`BalanceBuilder`] has |
/// | [`adaptive_concurrency`](Self::adaptive_concurrency) | none | how many calls at once each instance gets |
/// | [`zone_aware`](Self::zone_aware) | off | calls stay in their zone, as far as that carries them |
/// | [`subset`](Self::subset) | all instances | each caller connects to a part of the instances |
/// | [`transport`](Self::transport) | [`TransportBuilder`]'s | TLS, dials, connections, HTTP/2 |
/// | [`connector`](Self::connector) | TCP | another way to reach instances |
/// | [`registry`](Self::registry) | one registry | other registries, by name |
/// | [`subscribe_by`](Self::subscribe_by) | by name | what an address stands for |
/// | [`idle_release`](Self::idle_release) | 5 minutes | when a service that is not called is let go |
/// | [`max_services`](Self::max_services) | 1,024 | how many services are subscribed to at once |
/// | [`traces`](Self::traces) | none | a span for each request |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let nacos = tower_nacos::Client::connect_lazy("127.0.0.1:1")?;
/// use std::time::Duration;
/// use tower_nacos::{http, retry::Retry};
///
/// let http = http::Client::builder(&nacos)
///     .timeout(Duration::from_secs(2))
///     .per_try_timeout(Duration::from_millis(500))
///     .retry(Retry::new())
///     .try_build()?; // says so if options contradict each other
///
/// let wrong = http::Client::builder(&nacos)
///     .timeout(Duration::from_secs(1))
///     .per_try_timeout(Duration::from_secs(2))
///     .try_build();
/// assert!(wrong.is_err());
/// # drop(http);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until built"]
pub struct HttpBuilder<P: Policy = P2c> {
    registries: Registries,
    limits: Limits,
    transport: MakeTransport,
    connector: Option<Connector>,
    each: Each,
    per_try: Option<Duration>,
    retry: Option<Retry>,
    hedge: Option<Hedge>,
    health_check: Option<HealthCheck>,
    subset: Option<Subset>,
    zones: Option<ZoneAware>,
    concurrency: Option<AdaptiveConcurrency>,
    balance: Tune<P>,
}

/// Makes the balancer of one service out of the default one.
type Tune<P> = Box<dyn Fn(BalanceBuilder) -> BalanceBuilder<P> + Send + Sync>;

impl Client {
    /// A client with the defaults of [`builder`](Self::builder), which calls services of that
    /// registry client's namespace, in its default group unless an address names another.
    pub fn new(nacos: &client::Client) -> Self {
        Self::builder(nacos).build()
    }

    /// A builder, for what has a default here.
    pub fn builder(nacos: &client::Client) -> HttpBuilder {
        HttpBuilder::new(nacos.clone())
    }
}

impl HttpBuilder {
    fn new(nacos: client::Client) -> Self {
        Self {
            registries: Registries::new(nacos),
            limits: Limits::default(),
            transport: MakeTransport::default(),
            connector: None,
            each: Each::default(),
            per_try: None,
            retry: None,
            hedge: None,
            health_check: None,
            subset: None,
            zones: None,
            concurrency: None,
            balance: Box::new(|builder| builder),
        }
    }
}

impl<P: Policy> HttpBuilder<P> {
    /// Sets how the instances of each service are balanced: policy, preferred clusters, limits of
    /// calls at once and of waiting. The closure is run once for each service as it is first
    /// called; [`BalanceBuilder::subscription`] says which. Default: [`BalanceBuilder`]'s own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nacos = &tower_nacos::Client::connect_lazy("127.0.0.1:1")?;
    /// use tower_nacos::{Subscription, balance::PeakEwma, http};
    ///
    /// let http = http::Client::builder(nacos)
    ///     .balance(|service| {
    ///         let busy = &**service.subscription().key().name() == "orders";
    ///         service.policy(PeakEwma::new()).max_in_flight(if busy { 1_000 } else { 100 })
    ///     })
    ///     .subscribe_by(|_| Ok(Subscription::fixed([])))
    ///     .build();
    ///
    /// let nobody = http.get("nacos://orders/v1/items/7").await; // now the closure has run for `orders`
    /// assert!(nobody.unwrap_err().is_no_instances());
    /// # Ok(())
    /// # }
    /// ```
    pub fn balance<P2: Policy>(
        self,
        tune: impl Fn(BalanceBuilder) -> BalanceBuilder<P2> + Send + Sync + 'static,
    ) -> HttpBuilder<P2> {
        HttpBuilder {
            registries: self.registries,
            limits: self.limits,
            transport: self.transport,
            connector: self.connector,
            each: self.each,
            per_try: self.per_try,
            retry: self.retry,
            hedge: self.hedge,
            health_check: self.health_check,
            subset: self.subset,
            zones: self.zones,
            concurrency: self.concurrency,
            balance: Box::new(tune),
        }
    }

    /// Sets how instances are connected to: TLS, timeouts, connections, what metadata says.
    /// Default: [`TransportBuilder`]'s own.
    ///
    /// ```
    /// # fn example(nacos: &tower_nacos::Client) {
    /// use std::time::Duration;
    /// use tower_nacos::{http, transport::Transport};
    ///
    /// let patient = Transport::builder().dial_timeout(Duration::from_secs(3));
    /// let http = http::Client::builder(nacos).transport(patient).build();
    /// # }
    /// ```
    pub fn transport(mut self, transport: TransportBuilder) -> Self {
        self.transport = transport.build();
        self
    }

    /// Connects to instances by this, whatever [`transport`](Self::transport) says of it: over Unix sockets, through a proxy. Default: TCP.
    /// [`TransportBuilder::connector`] says all of it.
    pub fn connector(mut self, connector: impl Dial) -> Self {
        self.connector = Some(Connector::new(connector));
        self
    }

    /// Calls services of another registry, or another namespace of the same, by this name:
    /// `nacos://billing@orders@eu/v1/items` asks `eu` for `orders` in the group `billing`, and
    /// `nacos://@orders@eu/v1/items` for the one in the default group of `eu`'s client. A
    /// [`ServiceKey`] in a request's extensions goes to the first registry whose client is of its namespace.
    /// Addresses without a second `@` go to the client's first registry, as without any by name. A name
    /// given again stands for the newer client.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nacos = &tower_nacos::Client::connect_lazy("127.0.0.1:1")?;
    /// # let nacos_eu = nacos;
    /// use tower_nacos::http;
    ///
    /// let http = http::Client::builder(nacos).registry("eu", nacos_eu).build();
    /// let item = http.get("nacos://billing@orders@eu/v1/items/7");
    ///
    /// let nowhere = http.get("nacos://billing@orders@us/v1/items/7").await;
    /// assert!(nowhere.unwrap_err().to_string().contains("us"));
    /// # drop(item);
    /// # Ok(())
    /// # }
    /// ```
    pub fn registry(mut self, name: impl Into<Box<str>>, nacos: &client::Client) -> Self {
        self.registries.add(name.into(), nacos.clone());
        self
    }

    /// Sets what is called for a service that an address names without a registry: one of another
    /// registry or group, or several [merged](Subscription::merge). Run once for each service as it is first
    /// called, with its name as this client reads it; must not block, nor call by this client. Default: the first registry's service of that
    /// name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nacos = &tower_nacos::Client::connect_lazy("127.0.0.1:1")?;
    /// # let nacos_eu = nacos.clone();
    /// use tower_nacos::{Subscription, http};
    ///
    /// let near = nacos.clone();
    /// let http = http::Client::builder(nacos)
    ///     .subscribe_by(move |service| {
    ///         let here = near.subscribe_lazy(service.service().clone())?;
    ///         let there = nacos_eu.subscribe_lazy(service.service().clone())?;
    ///         Ok(Subscription::merge([(here, 0), (there, 1)]))
    ///     })
    ///     .try_build();
    /// assert!(http.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe_by(
        mut self,
        rule: impl Fn(&ServiceKey) -> Result<Subscription, client::RequestError> + Send + Sync + 'static,
    ) -> Self {
        self.registries.rule = Some(Box::new(rule));
        self
    }

    /// The longest that a request may take, all its tries together, up to its response's head; see
    /// [`Deadline`](crate::http::Deadline) for what that covers and what follows. A request's own
    /// [`timeout`](crate::http::RequestBuilder::timeout) or deadline holds if it is shorter. Its body is the caller's
    /// to read, in its own time. Default: none. More than a year counts as a year.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.each.timeout = Some(timeout);
        self
    }

    /// Makes a span of each request, and carries the trace over to its instance. Default: no; [`traces`](crate::traces)
    /// says what is in it and what it costs.
    ///
    /// ```
    /// # fn example(nacos: &tower_nacos::Client) {
    /// use tower_nacos::{http, traces::Traces};
    ///
    /// let http = http::Client::builder(nacos).traces(Traces::new()).build();
    /// # }
    /// ```
    pub fn traces(mut self, traces: Traces) -> Self {
        self.each.traces = Some(traces);
        self
    }

    /// For how long one try of a request may last, up to its response's head: one that is out of time is
    /// given up, its stream reset or its connection closed, and the request goes to another instance if it
    /// may be sent again. Default: none. [`BalanceBuilder::per_try_timeout`] says all of it. A request's
    /// [`Deadline`](crate::http::Deadline) is the limit of all its tries together.
    pub const fn per_try_timeout(mut self, within: Duration) -> Self {
        self.per_try = Some(within);
        self
    }

    /// Sends requests again that an instance had: those that were lost, out of time, or answered 502, 503,
    /// 504, or 429 with `Retry-After`. Default: none. [`retry`](crate::retry) says all of it. Each service
    /// has a budget of its own.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Begins a second try at another instance where the first is not answered in time, of requests that may be
    /// processed twice; the first answer wins. Default: none. [`Hedge`] says all of it.
    pub const fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Asks the instances of each service every few seconds whether they are well, over the transport's kind of
    /// connections, and keeps calls from those that say no. Default: nobody is asked. [`HealthCheck`] says all
    /// of it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nacos = &tower_nacos::Client::connect_lazy("127.0.0.1:1")?;
    /// use tower_nacos::{endpoint::HealthCheck, http};
    ///
    /// let asking = |path: &str| {
    ///     http::Client::builder(nacos).health_check(HealthCheck::http(path)).try_build()
    /// };
    /// assert!(asking("/health").is_ok());
    /// assert!(asking("no path").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.health_check = Some(check);
        self
    }

    /// Has this process call a part of each service's instances only, and connect to no others. Default: all of
    /// them. [`Subset`] says which part, and what it costs; as in `balance(|b| b.subset(..))`, which it goes before.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// Keeps the calls of every service in the own zone as far as that carries its share; see [`ZoneAware`]. A
    /// service whose balancer prefers a cluster ([`balance`](Self::balance)) goes by that, with a warning.
    /// Default: off.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.zones = Some(zones);
        self
    }

    /// Limits how many calls each instance gets at once, by how long it takes to answer and what it refuses; see
    /// [`AdaptiveConcurrency`]. Default: no limit.
    pub const fn adaptive_concurrency(mut self, limits: AdaptiveConcurrency) -> Self {
        self.concurrency = Some(limits);
        self
    }

    /// For how long a service stays subscribed to that is not called, has no call in flight and no
    /// [`ServiceClient`](crate::http::ServiceClient). Default: 5 minutes; the next call after that
    /// waits for the registry again. Kept to within a sixty-fourth of it, 1 s at most.
    pub const fn idle_release(mut self, idle: Duration) -> Self {
        self.limits.idle_release = idle;
        self
    }

    /// How many services of each registry it is subscribed to at most, so that addresses that somebody else makes
    /// up cannot fill the registry. One more takes the place of the service that was unused
    /// longest, if that was for 10 s and longer; else the call fails with an error that
    /// [`is_too_many_services`](crate::http::Error::is_too_many_services). Default: 1,024.
    pub const fn max_services(mut self, services: usize) -> Self {
        self.limits.most = services;
        self
    }

    /// The same as [`build`](Self::build), unless options contradict each other.
    ///
    /// # Errors
    ///
    /// If a try may last longer than its request, or nothing can be meant by the options of tries
    /// ([`Retry::check`]), of zones ([`ZoneAware`]), of limits ([`AdaptiveConcurrency`]), of the health check
    /// ([`HealthCheck::check`]) or of the subset ([`Subset::check`]). What [`balance`](Self::balance) sets is seen
    /// when a service is first called: [`BalanceBuilder::check`] in its closure tells it.
    pub fn try_build(self) -> Result<Client<P>, InvalidCallPolicy> {
        check_times(self.per_try, self.each.timeout)?;
        self.retry.as_ref().map_or(Ok(()), Retry::check)?;
        let zones = self.zones.as_ref().map_or(Ok(()), ZoneAware::check);
        zones.map_err(InvalidCallPolicy::new)?;
        let limits = self.concurrency.as_ref();
        let limits = limits.map_or(Ok(()), AdaptiveConcurrency::check);
        limits.map_err(InvalidCallPolicy::new)?;
        check_others(self.health_check.as_ref(), self.subset.as_ref())?;
        Ok(self.build())
    }

    /// Makes the client. Nothing is subscribed to yet. A `per_try_timeout` that is longer than `timeout` is
    /// never reached; [`try_build`](Self::try_build) says so.
    pub fn build(self) -> Client<P> {
        let transport = self.transport.connecting(self.connector);
        let (transport, tune) = (transport.noting(self.each.traces.is_some()), self.balance);
        let (per_try, retry, hedge) = (self.per_try, self.retry, self.hedge);
        let health_check = self.health_check;
        let subset = self.subset;
        let (zones, limits) = (self.zones, self.concurrency);
        let balance = move |subscription: Subscription| {
            let mut builder = tune(Balance::builder(&subscription));
            if let Some(within) = per_try {
                builder = builder.per_try_timeout(within);
            }
            if let Some(subset) = &subset {
                builder = builder.subset(subset.clone());
            }
            if let Some(hedge) = hedge {
                builder = builder.hedge(hedge);
            }
            if let Some(check) = &health_check {
                builder = builder.health_check(check.clone());
            }
            if let Some(zones) = &zones {
                builder = builder.zone_aware(zones.clone());
            }
            if let Some(limits) = limits {
                builder = builder.adaptive_concurrency(limits);
            }
            if let Some(retry) = &retry {
                builder = builder.retry(retry.with_own_budget());
            }
            builder.hints_in_extensions().build_http(transport.clone())
        };
        let pool = Pool::new(self.registries, self.limits, self.each, balance);
        Client::of(pool)
    }
}

impl<P: Policy> fmt::Debug for HttpBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBuilder")
            .field("registries", &self.registries)
            .field("limits", &self.limits)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
