use futures_util::future::BoxFuture;

use crate::{endpoint::checks::question::Asker, model::Instance, retry::Retry};

/// Makes the service that calls one instance.
///
/// Runs at the instance's first use, in the context of the call that needs it, once for each of
/// its generations, and again if the service said that it can no longer be used (an error of
/// `poll_ready`). It should return at once and leave dialling to the service; calls to the same
/// instance wait for it meanwhile, calls to others do not. A panic in it marks that instance as
/// unusable until its attributes change, and nothing else. Every closure
/// `Fn(&Instance) -> S` is one, and so is a function; one that returns `impl Service` has to say that it
/// keeps nothing of the reference, by `+ use<>`, since edition 2024 takes it for kept otherwise:
///
/// ```
/// use tower::Service;
/// use tower_nacos::{Balance, Instance, Subscription};
///
/// type Response = Result<String, std::io::Error>;
///
/// fn client_of(
///     instance: &Instance,
/// ) -> impl Service<u32, Response = String, Error = std::io::Error, Future: Send> + Clone + Send + Sync + use<>
/// {
///     let address = instance.address().to_string();
///     tower::service_fn(move |item: u32| std::future::ready(Response::Ok(format!("{item} of {address}"))))
/// }
///
/// let orders = Subscription::fixed([Instance::parse("10.0.0.3:8080")?]);
/// let balance = Balance::builder(&orders).build(client_of);
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use tower::ServiceExt;
/// assert_eq!(balance.oneshot(7).await.unwrap(), "7 of 10.0.0.3:8080");
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// For an eviction to close connections the service must own them: one that is a clone of a shared
/// pooled client cannot close anything by being dropped.
pub trait MakeEndpoint: Send + Sync + 'static {
    /// What calls the instance.
    ///
    /// A [`Balance`](crate::Balance) wants a `Service<Request>` that is `Clone + Send + Sync + 'static`, since calls of
    /// several threads take clones of it. A box that is not `Sync` (tower's `BoxCloneService`) becomes one as
    /// `tower::util::BoxCloneSyncService`.
    type Service;

    /// Makes it.
    fn make(&self, instance: &Instance) -> Self::Service;

    /// Whether the instance's attributes changed so that its service has to be made anew: another
    /// port, say, or TLS. Asked by the balancer's task after attributes changed in place. Calls in
    /// flight end on the former one. Default: never.
    fn is_stale(&self, service: &Self::Service, instance: &Instance) -> bool {
        let _ = (service, instance);
        false
    }

    /// Whether services are made as soon as their instances may be called, by the balancer's task,
    /// and not at their first use. Default: no; ten thousand instances would be as many services.
    fn is_eager(&self) -> bool {
        false
    }

    /// Finds out whether an instance that could not be reached, or that lost a connection with a call
    /// on it, can be reached now, off the way of calls: by a dial, say. An `Err` says why not.
    ///
    /// `None`, the default: the next call finds out. A probe of one's own runs on the balancer's
    /// task, at most 16 at a time and one for each instance: at once after a lost connection, after
    /// rests of 1, 2, 4 to 30 s when none could be had, and for a call that has nobody else as soon as
    /// the last is 250 ms ago (`redial_after`). All calls that have nobody else wait for the same
    /// one. It is dropped when the instance leaves, and after 5 s (`probe_timeout`), which counts as
    /// a failure; so does a panic in it.
    fn probe(&self, instance: &Instance) -> Option<BoxFuture<'static, Result<(), String>>> {
        let _ = instance;
        None
    }

    /// How a [`HealthCheck`](crate::endpoint::HealthCheck) by HTTP or gRPC reaches the instances that this
    /// makes services for. Default: as [`Transport::builder`](crate::transport::Transport::builder) does with
    /// its defaults; [`MakeTransport`](crate::transport::MakeTransport) says how it does itself, and a maker
    /// around one hands that on.
    fn asker(&self) -> Option<Asker> {
        None
    }

    /// The retry policy of its calls, where the balancer was given none. Default: none.
    fn retry(&self) -> Option<Retry> {
        None
    }
}

impl<F, S> MakeEndpoint for F
where
    F: Fn(&Instance) -> S + Send + Sync + 'static,
{
    type Service = S;

    fn make(&self, instance: &Instance) -> S {
        self(instance)
    }
}
