use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::{
    balance::{Balance, BalanceCounters, BalanceExplanation, HintsOf, Policy, ResponseFuture},
    directory::Subscription,
    endpoint::{CallError, InFlight, Judge, Recover},
    model::Address,
};

/// A [`Balance`] whose type names only what goes in and what comes out.
///
/// The type of a [`Balance`] names its service, policy and rules, closures among them, so a field of a
/// struct cannot hold one without type parameters. This can: [`Balance::boxed`] makes it. It is `Clone` and its
/// clones share everything, as those of the balancer do.
///
/// Costs one allocation a call, for the future, and one call through a table of functions; picking, eviction
/// and counters are the same.
///
/// ```
/// use tower::{ServiceExt, service_fn};
/// use tower_nacos::{Instance, Subscription, balance::{Balance, BoxBalance}};
///
/// struct Orders {
///     calls: BoxBalance<u32, String>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let subscription = Subscription::fixed([Instance::parse("10.0.0.3:8080")?]);
/// let balance = Balance::builder(&subscription).build(|instance: &Instance| {
///     let address = instance.address().to_string();
///     service_fn(move |item: u32| {
///         let answer = format!("item {item} of {address}");
///         async move { Ok::<_, std::io::Error>(answer) }
///     })
/// });
/// let orders = Orders { calls: balance.boxed() };
/// assert_eq!(orders.calls.clone().oneshot(7).await?, "item 7 of 10.0.0.3:8080");
/// println!("{}", orders.calls.explain(&"10.0.0.3:8080".parse()?));
/// # Ok(())
/// # }
/// ```
pub struct BoxBalance<Req, Res>(Arc<dyn AnyBalance<Req, Res>>);

/// What a balancer does whatever its type.
trait AnyBalance<Req, Res>: Send + Sync {
    fn start_boxed(&self, request: Req) -> BoxFuture<'static, Result<Res, CallError>>;
    fn subscription(&self) -> &Subscription;
    fn explain(&self, address: &Address) -> BalanceExplanation;
    fn counters(&self) -> BalanceCounters;
}

impl<S, P: Policy, R, C, V, K> Balance<S, P, R, C, V, K> {
    /// The same balancer with a type that can be named; see [`BoxBalance`].
    pub fn boxed<Req>(self) -> BoxBalance<Req, C::Output>
    where
        Req: Send + 'static,
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        R: Recover<Req, S::Error> + Send + Sync + 'static,
        C: TrackCompletion<InFlight, S::Response> + Send + Sync + 'static,
        V: Judge<S::Response, S::Error> + Send + Sync + 'static,
        K: HintsOf<Req> + Send + Sync + 'static,
        ResponseFuture<S, Req, P, R, C, V>: Send,
    {
        BoxBalance(Arc::new(self))
    }
}

impl<S, Req, P, R, C, V, K> AnyBalance<Req, C::Output> for Balance<S, P, R, C, V, K>
where
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error> + Send + Sync + 'static,
    C: TrackCompletion<InFlight, S::Response> + Send + Sync + 'static,
    V: Judge<S::Response, S::Error> + Send + Sync + 'static,
    K: HintsOf<Req> + Send + Sync + 'static,
    ResponseFuture<S, Req, P, R, C, V>: Send,
{
    fn start_boxed(&self, request: Req) -> BoxFuture<'static, Result<C::Output, CallError>> {
        Box::pin(self.start(request))
    }

    fn subscription(&self) -> &Subscription {
        self.subscription()
    }

    fn explain(&self, address: &Address) -> BalanceExplanation {
        self.explain(address)
    }

    fn counters(&self) -> BalanceCounters {
        self.counters()
    }
}

impl<Req, Res> BoxBalance<Req, Res> {
    /// The subscription that it follows.
    pub fn subscription(&self) -> &Subscription {
        self.0.subscription()
    }

    /// Why this balancer picks the instance at `address`, or does not. Displays as a sentence.
    pub fn explain(&self, address: &Address) -> BalanceExplanation {
        self.0.explain(address)
    }

    /// What happened in it so far.
    pub fn counters(&self) -> BalanceCounters {
        self.0.counters()
    }
}

impl<Req, Res> Clone for BoxBalance<Req, Res> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Req, Res> fmt::Debug for BoxBalance<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxBalance")
            .field("service", self.subscription().key())
            .finish_non_exhaustive()
    }
}

impl<Req, Res> Service<Req> for BoxBalance<Req, Res> {
    type Response = Res;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Res, CallError>>;

    /// Always ready, as [`Balance`] is.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.0.start_boxed(request)
    }
}
