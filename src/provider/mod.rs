//! Being called: a provider registers when it can serve, and leaves so that no call fails, whoever calls.
//!
//! ```no_run
//! # async fn example(nacos: tower_nacos::Client, router: axum::Router) -> std::io::Result<()> {
//! use tower_nacos::{Instance, provider::{self, Provider}};
//!
//! let listener = tokio::net::TcpListener::bind("10.0.0.3:8080").await?;
//! let instance = Instance::new(listener.local_addr()?.into());
//! let provider = Provider::builder(&nacos, "orders").instance(instance).build();
//! axum::serve(listener, router.layer(provider.layer()))
//!     .with_graceful_shutdown(provider.offline_on(provider::signal())) // goes online, too
//!     .await?;
//! println!("{}", provider.report());
//! # Ok(()) }
//! ```
//!
//! # Online
//!
//! Four steps, each of which waits for the one before: [`ready`](ProviderBuilder::ready) says yes, the announced address
//! takes connections, a [`delay`](ProviderBuilder::delay) is over if there is one, and the registry confirms the
//! registration. The metadata are yours, with `startTime` added: by that callers know a restart when they see one.
//!
//! # Offline, in this order
//!
//! | step | for how long at most |
//! |---|---|
//! | it says that it is not ready ([`Provider::is_ready`]) | – |
//! | the registry confirms that it does not list it | [`deregister_timeout`](ProviderBuilder::deregister_timeout), 3 s |
//! | all calls are served, and each response carries the mark, over HTTP/1 with `connection: close`, until callers have heard: twice the [`push_delay`](ProviderBuilder::push_delay), and until no call came for twice the usual time between two | [`max_linger`](ProviderBuilder::max_linger), 10 s |
//! | HTTP/2 connections are told (GOAWAY), idle ones of HTTP/1 close, listening stops, and what is in flight is finished | [`drain_timeout`](ProviderBuilder::drain_timeout), 15 s; what is left then is cut |
//!
//! The sum, 28 s by default, fits into the 30 s that Kubernetes gives a pod. The *mark* is a header by which callers on
//! this crate's transports know that the first such answer is the last call. If the registry does not confirm that the
//! instance is gone, the mark alone carries the news; then the provider lingers for the 30 s that a registry needs to
//! notice, or for `max_linger` if that is shorter, and the [`Report`] says so. A second signal skips what is left but the
//! drain. Nothing here runs in your handlers: one that panics or hangs holds up its own call and nothing else.
//!
//! How long callers take to hear is an option, or [measured](ProviderBuilder::measure_push_delay). Without
//! [`layer`](Provider::layer) a provider knows nothing of its calls: it lingers for twice the push delay, and your server
//! decides which calls are finished.
//!
//! # What it cannot do
//!
//! The limits above are a provider's own, and [`serve()`] closes what is left a second after them. The servers of axum
//! and tonic wait for their connections for as long as those last, so a peer that is frozen, or does not read, keeps
//! them from ending. If that must not be, end the server a second after [`reached`](Provider::reached)`(Stage::Over)`
//! returns.
//!
//! A provider does not see what passes over an upgraded connection (WebSocket): end that yourself when
//! [`reached`](Provider::reached)`(Stage::Lingering)` returns. And callers that read the list of addresses once, and never
//! again, fail when any of them leaves.

mod body;
mod builder;
mod clock;
mod driver;
mod error;
mod handle;
mod hooks;
mod inner;
mod layer;
mod listening;
mod names;
mod no_calls;
mod ready;
mod registration;
mod report;
mod sequence;
#[cfg(test)]
mod sequence_tests;
mod serve;
mod signal;
mod stage;
mod timing;
mod traffic;
mod work;

use std::{fmt, future::Future, sync::Arc};

use tokio::sync::oneshot;

pub use self::{
    body::OfflineBody,
    builder::ProviderBuilder,
    error::OnlineError,
    hooks::{Hooks, HooksBody, HooksFuture},
    layer::{OfflineLayer, OfflineService, ResponseFuture},
    report::{Offline, Report},
    serve::{Serve, ServeError, Serving, serve},
    signal::signal,
    stage::Stage,
};
use self::{
    handle::Handle,
    inner::{Command, Status},
};
use crate::{
    client::{Client, RequestError},
    logs,
    model::{InvalidName, ServiceName, Weight},
};

/// One start of a provider: its services and addresses, from the registration to the exit.
///
/// Clones are handles on the same. A task does the work, on the runtime of the first call that
/// needs it; when the last handle is dropped it deregisters, without lingering. It holds a clone of its
/// client, so that one may be dropped; a client that is closed takes its registrations with it.
///
/// Example: [a provider](crate::provider)
#[derive(Clone)]
pub struct Provider {
    handle: Arc<Handle>,
}

impl Provider {
    /// A provider of `service` (`"orders"` or `"billing@orders"`) over this client.
    ///
    /// A name that breaks Nacos's rules is the error of [`online`](Self::online).
    pub fn builder<N>(nacos: &Client, service: N) -> ProviderBuilder
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        ProviderBuilder::new(nacos.clone()).service(service)
    }

    /// Goes online, and returns when the registry has confirmed it. Callers hear of it about 0.6 s
    /// later. Somebody has to listen meanwhile, since that is looked at.
    ///
    /// # Errors
    ///
    /// What the first attempt met; it goes on trying in the background, after 1, 2, 4 to 30 s, unless
    /// [`is_tried_again`](OnlineError::is_tried_again) says no. [`Leaving`](OnlineError::Leaving) when it
    /// is told to leave meanwhile.
    pub async fn online(&self) -> Result<(), OnlineError> {
        if let Some(broken) = &self.handle.inner.broken {
            return Err(broken.clone());
        }
        let mut status = self.handle.status.clone();
        let failures = status.borrow().failures;
        self.handle.tell(Command::Online)?;
        let settled = |status: &Status| status.stage >= Stage::Online || status.failures > failures;
        let status = status
            .wait_for(settled)
            .await
            .map_err(|_| self.handle.gone())?
            .clone();
        match (status.stage, status.error) {
            (Stage::Online, _) => Ok(()),
            (Stage::Idle | Stage::Starting, Some(error)) => Err(error),
            _ => Err(OnlineError::Leaving),
        }
    }

    /// Goes online, waits for `signal`, goes offline, and returns when it is time to stop listening:
    /// what axum, hyper and tonic take as their shutdown signal.
    ///
    /// It returns as well when the provider went offline for another reason ([`offline`](Self::offline), a hook), and
    /// when the runtime that the provider lives on ends.
    ///
    /// If it cannot go online, one WARN a minute and [`report`](Self::report) say why; the server serves on, and the
    /// provider tries again until the signal. To fail instead, await [`online`](Self::online) beside the server.
    ///
    /// If this future is dropped before its end, the server is taken for gone: the provider deregisters without lingering,
    /// unless another server has such a future, too. axum hands the future to a task of its own, so that dropping
    /// `axum::serve` does not drop it. On Linux the provider [sees](ProviderBuilder::check_address) after ten seconds that
    /// nobody listens; elsewhere call [`offline`](Self::offline) as well.
    pub fn offline_on<F>(&self, signal: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        async move {
            let present = this.handle.present();
            if let Some(broken) = &this.handle.inner.broken {
                tracing::error!(target: logs::PROVIDER, cause = %broken, "the provider cannot go online; it serves unregistered");
            } else {
                let _ = this.handle.tell(Command::Online);
            }
            tokio::select! {
                () = signal => {
                    if this.handle.tell(Command::Offline).is_ok() {
                        this.reached(Stage::Draining).await;
                    }
                }
                () = this.reached(Stage::Draining) => {}
            }
            present.told_to_stop();
        }
    }

    /// Goes offline, and returns when it is over: what was in flight has ended or was cut.
    ///
    /// A second call while it lingers does not hasten it. If the runtime ends first, this returns, too; the report shows
    /// how far the provider came.
    pub async fn offline(&self) -> Report {
        self.offline_until(Stage::Over).await;
        self.report()
    }

    /// Whether it got so far: not if there is no runtime to do it on, or that ends meanwhile.
    async fn offline_until(&self, stage: Stage) -> bool {
        let left = self.stage() >= Stage::Leaving;
        if left || self.handle.tell(Command::Offline).is_ok() {
            self.reached(stage).await;
        }
        self.stage() >= stage
    }

    /// Ends the waiting of a provider that leaves: it stops listening at once and finishes what is
    /// in flight. The second signal of [`signal()`] does the same.
    pub fn hasten(&self) {
        let _ = self.handle.tell(Command::Hasten);
    }

    /// The tower layer for the service that it serves; several share one count.
    pub fn layer(&self) -> OfflineLayer {
        let shared = self.handle.inner.shared.clone();
        OfflineLayer { shared }
    }

    /// Sets its share of the calls, in place: [`Weight`] says what the number means. Before the provider is online, the
    /// weight takes effect with the registration.
    ///
    /// # Errors
    ///
    /// Those of [`Client::register`]; what was confirmed before holds then, and the next change or
    /// registration carries this one, too. [`NotRegistered`](RequestError::NotRegistered) once it leaves.
    pub async fn set_weight(&self, weight: impl Into<Weight>) -> Result<(), RequestError> {
        self.handle.inner.wanted.set_weight(weight.into());
        self.update().await
    }

    /// Stays listed and gets no new calls (weight 0), until [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// As those of [`set_weight`](Self::set_weight).
    pub async fn drain(&self) -> Result<(), RequestError> {
        self.handle.inner.wanted.set_drained(true);
        self.update().await
    }

    /// Takes the weight of before [`drain`](Self::drain) again.
    ///
    /// # Errors
    ///
    /// As those of [`set_weight`](Self::set_weight).
    pub async fn resume(&self) -> Result<(), RequestError> {
        self.handle.inner.wanted.set_drained(false);
        self.update().await
    }

    async fn update(&self) -> Result<(), RequestError> {
        let (reply, done) = oneshot::channel();
        let gone = || match self.stage() {
            Stage::Over => RequestError::NotRegistered,
            _ => RequestError::RuntimeGone,
        };
        self.handle
            .tell(Command::Update(reply))
            .map_err(|_| gone())?;
        // Dropped unanswered: the deregistration came between.
        done.await.unwrap_or(Err(RequestError::NotRegistered))
    }

    /// How far it is now.
    pub fn stage(&self) -> Stage {
        self.handle.status.borrow().stage
    }

    /// Whether it is online and not about to leave: what a readiness probe wants to know.
    pub fn is_ready(&self) -> bool {
        self.stage() == Stage::Online
    }

    /// Returns when the provider has reached that stage or a later one, or when its runtime is gone.
    pub async fn reached(&self, stage: Stage) {
        let mut status = self.handle.status.clone();
        let _ = status.wait_for(|status| status.stage >= stage).await;
    }

    /// How it is now, and how it went offline, as far as it has.
    pub fn report(&self) -> Report {
        self.handle.report()
    }
}

impl ProviderBuilder {
    /// Makes it. Nothing happens before [`online`](Provider::online),
    /// [`offline_on`](Provider::offline_on) or [`offline`](Provider::offline).
    pub fn build(self) -> Provider {
        let handle = Arc::new(self.into_handle());
        Provider { handle }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("services", &self.handle.inner.shared.names.services())
            .field("instances", &self.handle.inner.shared.names.addresses())
            .field("stage", &self.stage())
            .finish_non_exhaustive()
    }
}

/// What a handle promises, held by the compiler.
const _: () = {
    const fn handle<T: Clone + Send + Sync + 'static>() {}
    handle::<Provider>();
    handle::<OfflineLayer>();

    const fn future<T: Send>(_: &T) {}
    #[expect(dead_code, reason = "compiled, never called")]
    fn futures(provider: &Provider) {
        future(&provider.online());
        future(&provider.offline());
        future(&provider.drain());
        future(&provider.reached(Stage::Over));
    }
};
