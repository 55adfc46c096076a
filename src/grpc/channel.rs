use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{HOST, USER_AGENT},
    uri::Authority,
};
use pin_project::pin_project;
use tower::Service;

use crate::{
    balance::{
        self, AdaptiveConcurrency, Balance, BalanceBuilder, InExtensions, P2c, Policy, Subset,
        ZoneAware,
    },
    directory::Subscription,
    endpoint::{self, CallError, HealthCheck},
    grpc::{
        body::{ChannelBody, Deadline},
        deadline,
        error::Error,
    },
    model::{Address, ServiceKey},
    retry::{Hedge, InvalidCallPolicy, Retry, check_times},
    sync::poll_budget,
    traces::{CallSpan, Traces},
    transport::{
        self, Body, Connector, Dial, ErrorKind, Purpose, Rules, TimeLeft, Transport,
        TransportBuilder, TryLimit,
    },
};

/// The instances of a service as one channel: what a client that tonic generated is made with.
///
/// `Clone`, cheap, and its clones share the connections. Each call picks its instance, by `P`.
///
/// Example: [a channel](crate::grpc)
pub struct Channel<P: Policy = P2c> {
    balance: Instances<P>,
    shared: Arc<Shared>,
}

/// A [`Channel`] to be, and its options.
///
/// | option | default | what it is for |
/// |---|---|---|
/// | [`timeout`](Self::timeout) | none | the longest that a call may take, its stream included |
/// | [`per_try_timeout`](Self::per_try_timeout) | none | the same of one try, up to its response's head; then another instance is asked |
/// | [`retry`](Self::retry) | none | what an instance may have processed is called again |
/// | [`hedge`](Self::hedge) | none | a second try beside a first one that is slow |
/// | [`health_check`](Self::health_check) | none | instances are asked whether they are well |
/// | [`balance`](Self::balance) | [`P2c`] | policy, preferred clusters, limits: whatever [`BalanceBuilder`] has |
/// | [`adaptive_concurrency`](Self::adaptive_concurrency) | none | how many calls at once each instance gets |
/// | [`zone_aware`](Self::zone_aware) | off | calls stay in their zone, as far as that carries them |
/// | [`subset`](Self::subset) | all instances | each caller connects to a part of the instances |
/// | [`transport`](Self::transport) | [`TransportBuilder`]'s | TLS, dials, connections, HTTP/2 |
/// | [`connector`](Self::connector) | TCP | another way to reach instances |
/// | [`origin`](Self::origin) | `ip:port` | the `:authority` of all calls |
/// | [`user_agent`](Self::user_agent) | this crate's | what comes before this crate's name |
/// | [`traces`](Self::traces) | none | a span for each call |
#[must_use = "a builder does nothing until built"]
pub struct ChannelBuilder<P: Policy = P2c> {
    balance: Balancing<P>,
    transport: TransportBuilder,
    connector: Option<Connector>,
    timeout: Option<Duration>,
    user_agent: Option<HeaderValue>,
    origin: Option<HeaderValue>,
    traces: Option<Traces>,
}

/// What balances a channel's calls.
///
/// Example: [`balance`](crate::grpc::ChannelBuilder::balance)
pub type Balancing<P = P2c> = BalanceBuilder<P, Rules, Rules, Classify, InExtensions>;

type Classify = Rules;
type Instances<P> = Balance<Transport, P, Rules, Rules, Classify, InExtensions>;
type Call<P> = balance::ResponseFuture<Transport, Request<Body>, P, Rules, Rules, Classify>;

/// What all clones of a channel share beside the instances.
struct Shared {
    service: Arc<ServiceKey>,
    timeout: Option<Duration>,
    user_agent: HeaderValue,
    origin: Option<HeaderValue>,
    traces: Option<Traces>,
}

/// The future of a call through a [`Channel`].
///
/// Example: [a channel](crate::grpc)
#[must_use = "futures do nothing unless polled"]
#[pin_project]
pub struct ResponseFuture<P: Policy = P2c> {
    #[pin]
    call: Call<P>,
    deadline: Timer,
    service: Arc<ServiceKey>,
    /// Off unless set.
    span: Option<Box<CallSpan>>,
}

/// A call's deadline. Begins with the call, and waits only once there is something to wait for.
enum Timer {
    None,
    Within(Duration),
    Waiting(Deadline),
}

impl Channel {
    /// A channel to the instances of `subscription`, with the defaults of everything.
    ///
    /// Call it on a tokio runtime, as [`BalanceBuilder::build`].
    pub fn new(subscription: &Subscription) -> Self {
        Self::builder(subscription).build()
    }

    /// The same with options.
    pub fn builder(subscription: &Subscription) -> ChannelBuilder {
        let balance = Balance::builder(subscription)
            .recover(Rules::default())
            .completion(Rules::default())
            .judge(Rules::default())
            .hints_in_extensions();
        ChannelBuilder {
            balance,
            transport: Transport::builder(),
            connector: None,
            timeout: None,
            user_agent: None,
            origin: None,
            traces: None,
        }
    }
}

impl<P: Policy> Channel<P> {
    /// The balancer: for its counters, and [`explain`](Balance::explain).
    pub const fn balance(&self) -> &Balance<Transport, P, Rules, Rules, Classify, InExtensions> {
        &self.balance
    }

    /// Why this channel picks the instance at `address`, or does not. Displays as a sentence.
    pub fn explain(&self, address: &Address) -> balance::BalanceExplanation {
        self.balance.explain(address)
    }
}

impl<P: Policy> ChannelBuilder<P> {
    /// Sets how the balancer is made: policy, preferred clusters, limits. Default:
    /// [`P2c`], and [`Hints`](crate::balance::Hints) in a request's extensions are heeded.
    ///
    /// ```
    /// use tower_nacos::{Instance, Subscription, balance::PeakEwma, grpc::Channel};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let greeter = Subscription::fixed([Instance::parse("10.0.0.3:50051")?]);
    /// let channel = Channel::builder(&greeter)
    ///     .balance(|balance| balance.policy(PeakEwma::new()).max_in_flight(10_000))
    ///     .build();
    /// assert!(channel.explain(&"10.0.0.3:50051".parse()?).to_string().starts_with("picked"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn balance<P2: Policy>(
        self,
        change: impl FnOnce(Balancing<P>) -> Balancing<P2>,
    ) -> ChannelBuilder<P2> {
        ChannelBuilder {
            balance: change(self.balance),
            transport: self.transport,
            connector: self.connector,
            timeout: self.timeout,
            user_agent: self.user_agent,
            origin: self.origin,
            traces: self.traces,
        }
    }

    /// Sets how instances are connected to: TLS, timeouts, limits. Default:
    /// [`Transport::builder`]. Its purpose is set to gRPC in any case.
    pub fn transport(mut self, transport: TransportBuilder) -> Self {
        self.transport = transport;
        self
    }

    /// Connects to instances by this, whatever [`transport`](Self::transport) says of it: over Unix sockets, through a proxy. Default: TCP.
    /// [`TransportBuilder::connector`] says all of it.
    pub fn connector(mut self, connector: impl Dial) -> Self {
        self.connector = Some(Connector::new(connector));
        self
    }

    /// The longest that a call may take, streams to their end included; what is left of it is sent
    /// along as `grpc-timeout` with each attempt. A call's own [`set_timeout`](tonic::Request::set_timeout) holds if it is
    /// shorter. Default: none, as everywhere in gRPC.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The longest that one try of a call may take, to the head of its response; see
    /// [`BalanceBuilder::per_try_timeout`]. What is out of time is reset (CANCEL) and goes to another
    /// instance, if it may be sent again. Sent along as `grpc-timeout` with each try, or what is left of the
    /// call's own time if that is less: so an instance ends a streaming call after it, too. A channel of
    /// streaming calls wants none. Default: none.
    pub fn per_try_timeout(mut self, within: Duration) -> Self {
        self.balance = self.balance.per_try_timeout(within);
        self
    }

    /// Makes calls again that an instance had: those that were lost, out of time, or answered UNAVAILABLE, or
    /// RESOURCE_EXHAUSTED with a pushback, before any message. Of calls that carry
    /// [`Idempotent`](crate::transport::Idempotent), or of all, by the policy's
    /// [`every_request`](Retry::every_request). Default: none. [`retry`](crate::retry) says all of it.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.balance = self.balance.retry(retry);
        self
    }

    /// Begins a second try at another instance where the first has no head of a response in time, of calls that
    /// may be made twice and whose messages are all sent; the first answer wins, the other is reset (CANCEL).
    /// Default: none. [`Hedge`] says all of it.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.balance = self.balance.hedge(hedge);
        self
    }

    /// Asks the instances every few seconds whether they are well, over the transport's kind of connections, and
    /// keeps calls from those that say no. Default: nobody is asked. [`HealthCheck`] says all of it.
    ///
    /// ```
    /// # use tower_nacos::{Subscription, endpoint::HealthCheck, grpc::Channel};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let greeter = Subscription::fixed([]);
    /// let channel = Channel::builder(&greeter)
    ///     .health_check(HealthCheck::grpc("helloworld.Greeter"))
    ///     .try_build();
    /// assert!(channel.is_ok());
    /// # }
    /// ```
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.balance = self.balance.health_check(check);
        self
    }

    /// Has this channel call a part of the instances only, and connect to no others. Default: all of them.
    /// [`Subset`] says which part, and what it costs.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.balance = self.balance.subset(subset);
        self
    }

    /// Keeps calls in the own zone as far as that carries its share; see [`ZoneAware`]. Default: off.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.balance = self.balance.zone_aware(zones);
        self
    }

    /// Limits how many calls each instance gets at once, by how long it takes to answer and what it refuses; see
    /// [`AdaptiveConcurrency`]. Default: no limit.
    pub fn adaptive_concurrency(mut self, limits: AdaptiveConcurrency) -> Self {
        self.balance = self.balance.adaptive_concurrency(limits);
        self
    }

    /// What comes before this crate's name in the header `user-agent`. Default: nothing. A
    /// `user-agent` in a call's own metadata comes before both.
    ///
    /// # Errors
    ///
    /// If it holds what no header may.
    pub fn user_agent<T>(mut self, name: T) -> Result<Self, http::Error>
    where
        T: TryInto<HeaderValue>,
        T::Error: Into<http::Error>,
    {
        self.user_agent = Some(name.try_into().map_err(Into::into)?);
        Ok(self)
    }

    /// Makes a span of each call, and carries the trace over to its instance. Default: no; [`traces`](crate::traces)
    /// says what is in it and what it costs.
    pub fn traces(mut self, traces: Traces) -> Self {
        self.traces = Some(traces);
        self
    }

    /// Whom the instances are asked as: the `:authority` of all calls. Default: each instance's own
    /// `ip:port`. The scheme is that of the connection.
    pub fn origin(mut self, authority: &Authority) -> Self {
        // An authority has no characters but those that a header may have (RFC 3986).
        self.origin = HeaderValue::from_str(authority.as_str()).ok();
        self
    }

    /// The same as [`build`](Self::build), unless options contradict each other.
    ///
    /// # Errors
    ///
    /// If a try may last longer than its call, or nothing can be meant by other options, such as a health check's
    /// path; see [`BalanceBuilder::check`].
    pub fn try_build(self) -> Result<Channel<P>, InvalidCallPolicy> {
        self.balance.check()?;
        check_times(self.balance.try_limit(), self.timeout)?;
        Ok(self.build())
    }

    /// Makes the channel. Call it on a tokio runtime, as [`BalanceBuilder::build`]. A `per_try_timeout` that
    /// is longer than `timeout` is never reached; [`try_build`](Self::try_build) says so.
    pub fn build(self) -> Channel<P> {
        let limit = self.balance.try_limit().map(|within| TryLimit {
            within,
            header: deadline::header,
        });
        let make = self.transport.purpose(Purpose::Grpc).build();
        let make = make.connecting(self.connector).limiting(limit);
        let make = make.noting(self.traces.is_some());
        let make = make.balanced(self.balance.subscription().named());
        let balance = self.balance.build(make);
        let user_agent = self
            .user_agent
            .map_or(HeaderValue::from_static(USER_AGENT_OF_CRATE), |name| {
                joined(&name)
            });
        Channel {
            shared: Arc::new(Shared {
                service: Arc::new(balance.subscription().key().clone()),
                timeout: self.timeout,
                user_agent,
                origin: self.origin,
                traces: self.traces,
            }),
            balance,
        }
    }
}

impl<P: Policy> Service<Request<tonic::body::Body>> for Channel<P> {
    type Response = Response<ChannelBody>;
    type Error = Error;
    type Future = ResponseFuture<P>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> ResponseFuture<P> {
        let mut request = request.map(Body::from);
        let headers = request.headers_mut();
        let timeout = deadline::agree(headers, self.shared.timeout);
        let user_agent = match headers.get(USER_AGENT) {
            Some(own) => joined(own),
            None => self.shared.user_agent.clone(),
        };
        headers.insert(USER_AGENT, user_agent);
        if let Some(origin) = &self.shared.origin {
            headers.insert(HOST, origin.clone());
        }
        let until = timeout.and_then(|timeout| endpoint::now().checked_add(timeout));
        if let Some(until) = until {
            let header = deadline::header;
            request.extensions_mut().insert(TimeLeft { until, header });
        }
        let traces = self.shared.traces.as_ref();
        let span =
            traces.and_then(|traces| CallSpan::grpc(traces, &self.shared.service, &mut request));
        ResponseFuture {
            span,
            call: self.balance.start_until(request, until),
            deadline: timeout.map_or(Timer::None, Timer::Within),
            service: Arc::clone(&self.shared.service),
        }
    }
}

impl<P: Policy> Future for ResponseFuture<P> {
    type Output = Result<Response<ChannelBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(span) = self.as_mut().project().span.take() else {
            return self.poll_call(cx);
        };
        let Poll::Ready(result) = span.within(|| self.as_mut().poll_call(cx)) else {
            *self.project().span = Some(span);
            return Poll::Pending;
        };
        Poll::Ready(match result {
            Ok(response) => Ok(traced(span, response)),
            Err(error) => {
                span.ended(error.status().code());
                Err(error)
            }
        })
    }
}

/// The span goes on with the response's body, unless its head says all.
fn traced(span: Box<CallSpan>, mut response: Response<ChannelBody>) -> Response<ChannelBody> {
    if response.status() != StatusCode::OK {
        span.failed(response.status().as_str()); // no gRPC
    } else if let Some(span) = span.read(response.headers()) {
        response.body_mut().trace(span);
    }
    response
}

impl<P: Policy> ResponseFuture<P> {
    fn poll_call(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ChannelBody>, Error>> {
        let mut this = self.project();
        if let Timer::Within(Duration::ZERO) = this.deadline {
            ready!(poll_budget(cx));
            // What is too late already is not begun: an instance might process it.
            let late = Error::deadline(Duration::ZERO, &this.call.progress());
            return Poll::Ready(Err(late));
        }
        let service = this.service;
        let within = |response: Response<transport::ResponseBody>, deadline| {
            response.map(|body| ChannelBody::new(body, deadline, Arc::clone(service)))
        };
        if let Poll::Ready(result) = this.call.as_mut().poll(cx) {
            let deadline = this.deadline.take();
            return Poll::Ready(match result {
                Ok(response) => Ok(within(response, deadline)),
                // The instance knew when, and was a moment faster than our timer.
                Err(error) => match deadline.and_then(|deadline| deadline.passed()) {
                    Some(timeout) if is_reset(&error) => Err(Error::late(timeout, &error)),
                    _ => Err(Error::call(error)),
                },
            });
        }
        let timeout = ready!(this.deadline.poll_passed(cx));
        let error = Error::deadline(timeout, &this.call.progress());
        let answer = this.call.as_mut().last_answer();
        this.call.expire();
        let answer = answer.map(|response| within(response, this.deadline.take()));
        Poll::Ready(answer.ok_or(error))
    }
}

impl Timer {
    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        if let Self::Within(timeout) = *self {
            *self = Self::Waiting(Deadline::within(timeout));
        }
        match self {
            Self::Waiting(deadline) => deadline.poll_passed(cx),
            Self::None | Self::Within(_) => Poll::Pending,
        }
    }

    fn take(&mut self) -> Option<Deadline> {
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::Within(timeout) => Some(Deadline::within(timeout)),
            Self::Waiting(deadline) => Some(deadline),
        }
    }
}

/// Whether the instance gave the call up, and its connection stays.
fn is_reset(error: &CallError) -> bool {
    let transport = error.inner::<transport::Error>();
    transport.is_some_and(|error| error.kind() == ErrorKind::Reset)
}

/// `own` and then the crate's name.
fn joined(own: &HeaderValue) -> HeaderValue {
    let bytes = [own.as_bytes(), b" ", USER_AGENT_OF_CRATE.as_bytes()].concat();
    HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| own.clone())
}

impl<P: Policy> Clone for Channel<P> {
    fn clone(&self) -> Self {
        Self {
            balance: self.balance.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P: Policy> fmt::Debug for Channel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("balance", &self.balance)
            .finish_non_exhaustive()
    }
}

impl<P: Policy + fmt::Debug> fmt::Debug for ChannelBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("balance", &self.balance)
            .field("transport", &self.transport)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<P: Policy> fmt::Debug for ResponseFuture<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

const USER_AGENT_OF_CRATE: &str = concat!("tower-nacos/", env!("CARGO_PKG_VERSION"));

const fn _assert_shareable<T: Clone + Send + Sync + fmt::Debug + 'static>() {}
const fn _assert_send<T: Send + 'static>() {}
const _: () = _assert_shareable::<Channel>();
const _: () = _assert_send::<ResponseFuture>();
