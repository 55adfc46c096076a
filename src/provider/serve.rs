use std::{
    fmt,
    future::{Future, IntoFuture},
    io,
    pin::{Pin, pin},
    time::Duration,
};

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer, Service};

use super::{
    OfflineLayer, OfflineService, OnlineError, Provider, ProviderBuilder, Report, Stage,
    body::BoxError,
};
use crate::{
    client::Client,
    logs,
    model::{Instance, InvalidName, ServiceName},
};

/// Serves `app`, an axum `Router` say, over HTTP/1 and HTTP/2 on `listener`, as an instance of `service`.
///
/// Nothing happens until [`with_graceful_offline`](Serve::with_graceful_offline) is awaited. The
/// instance has the listener's address; for one that listens on all of them it is the one that this
/// machine has towards the registry ([`Instance::on_port`]), unless
/// [`configure`](Serve::configure) gives another.
///
/// ```no_run
/// # async fn example(nacos: tower_nacos::Client, app: axum::Router) -> Result<(), tower::BoxError> {
/// use tower_nacos::provider;
///
/// let listener = tokio::net::TcpListener::bind("10.0.0.3:8080").await?;
/// let report = provider::serve(&nacos, "orders", listener, app)
///     .with_graceful_offline(provider::signal())
///     .await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
pub fn serve<N, S>(nacos: &Client, service: N, listener: TcpListener, app: S) -> Serve<S>
where
    N: TryInto<ServiceName, Error: Into<InvalidName>>,
{
    Serve {
        builder: Provider::builder(nacos, service),
        named: false,
        listener,
        app,
    }
}

/// A server that is set up; see [`serve`].
///
/// Example: [`serve`](crate::provider::serve())
#[must_use = "it serves when `with_graceful_offline` is awaited"]
pub struct Serve<S> {
    builder: ProviderBuilder,
    /// The builder was given instances, or may have been.
    named: bool,
    listener: TcpListener,
    app: S,
}

/// A server that goes offline on a signal; see [`serve`].
///
/// Example: [`serve`](crate::provider::serve())
#[must_use = "it serves when it is awaited"]
pub struct Serving<S, F> {
    serve: Serve<S>,
    signal: F,
}

/// Why nothing was served.
///
/// Example: [a provider](crate::provider)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot be registered, whatever is tried.
    #[error(transparent)]
    Online(#[from] OnlineError),
    /// The listener's address cannot be read.
    #[error("the listener has no address: {0}")]
    Listener(io::Error),
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Listener(error)
    }
}

/// What is left of a connection when its calls have ended: the rest of its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// After an error of `accept`, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<S> Serve<S> {
    /// Sets up the provider: readiness, limits, further services, or
    /// [`instance`](ProviderBuilder::instance)s in place of the listener's own address.
    pub fn configure(mut self, set: impl FnOnce(ProviderBuilder) -> ProviderBuilder) -> Self {
        self.builder = set(self.builder);
        self.named = self.builder.has_instances();
        self
    }

    /// Goes offline on `signal`, in the order that the [module](crate::provider) tells.
    pub fn with_graceful_offline<F>(self, signal: F) -> Serving<S, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Serving {
            serve: self,
            signal,
        }
    }
}

impl<S, F, B> IntoFuture for Serving<S, F>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = Result<Report, ServeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Ends when the provider is over and its connections have ended.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S, F, B> Serving<S, F>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    async fn run(self) -> Result<Report, ServeError> {
        let Serve {
            mut builder,
            named,
            listener,
            app,
        } = self.serve;
        if !named {
            let listens = listener.local_addr()?;
            builder = builder.instance(match listens.ip().is_unspecified() {
                true => Instance::on_port(listens.port()),
                false => Instance::new(listens.into()),
            });
        }
        let drain = builder.drain_limit();
        let provider = builder.build();
        if let Some(broken) = &provider.handle.inner.broken {
            return Err(broken.clone().into());
        }
        let mut connections = Connections::new(&provider.layer(), app);
        let mut offline = pin!(provider.offline_on(self.signal));
        loop {
            tokio::select! {
                () = &mut offline => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => connections.take(socket, true),
                    Err(error) if is_of_the_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(target: logs::PROVIDER, cause = %error, "cannot accept connections");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.tasks.join_next() => {}
            }
        }
        connections.say_goodbye();
        // Who is in the queue of the listener was let in by the system: each gets one answer.
        while let Some(Ok((socket, _))) = listener.accept().now_or_never() {
            connections.take(socket, false);
        }
        drop(listener);
        // The provider cuts calls after `drain`; what has none any more needs no longer than this.
        let ended = async { while connections.tasks.join_next().await.is_some() {} };
        if timeout(drain.saturating_add(GOODBYE), ended).await.is_err() {
            provider.handle.inner.shared.traffic.cut();
            tracing::debug!(target: logs::PROVIDER, "connections outlive `drain_timeout`, and are closed");
        }
        connections.tasks.shutdown().await;
        let _ = provider.handle.tell(super::inner::Command::Stopped);
        provider.reached(Stage::Over).await;
        Ok(provider.report())
    }
}

struct Connections<S> {
    app: OfflineService<S>,
    tasks: JoinSet<()>,
    goodbye: watch::Sender<bool>,
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn new(layer: &OfflineLayer, app: S) -> Self {
        Self {
            app: layer.layer(app),
            tasks: JoinSet::new(),
            goodbye: watch::Sender::new(false),
        }
    }

    /// Serves a connection; `stays`: for more than one request.
    fn take(&mut self, socket: TcpStream, stays: bool) {
        let app = TowerToHyperService::new(self.app.clone());
        let mut goodbye = self.goodbye.subscribe();
        self.tasks.spawn(async move {
            let _ = socket.set_nodelay(true);
            let mut server = auto::Builder::new(TokioExecutor::new());
            // A head that never ends is no reason to wait for it.
            server.http1().keep_alive(stays).timer(TokioTimer::new());
            server.http2().timer(TokioTimer::new());
            let connection = server.serve_connection_with_upgrades(TokioIo::new(socket), app);
            let mut connection = pin!(connection);
            let told = goodbye.wait_for(|told| *told);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                _ = told, if stays => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::trace!(target: logs::PROVIDER, cause = error, "a connection ended");
            }
        });
    }

    /// GOAWAY over HTTP/2; over HTTP/1 idle connections close, others after their answer.
    fn say_goodbye(&self) {
        self.goodbye.send_replace(true);
    }
}

/// Whether the error speaks of who wanted in, not of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl<S, F> fmt::Debug for Serving<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("serve", &self.serve)
            .finish_non_exhaustive()
    }
}
