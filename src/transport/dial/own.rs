use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tower::{BoxError, Service};

use crate::{
    model::{Address, Instance},
    tls::Socket,
    transport::dial::{addresses, connect, error::DialError, options::DialOptions, target::Target},
};

/// Connects to an instance in a way of its own: over a Unix socket, vsock, through a proxy.
///
/// For [`TransportBuilder::connector`](crate::transport::TransportBuilder::connector). Every closure
/// `Fn(Destination) -> impl Future<Output = Result<io, error>>` is one.
///
/// It may be asked again while a dial of its goes on, for the same instance too. A dial is dropped when it
/// is out of time, or nobody wants it any more. One that blocks its thread cannot be given up: put what
/// blocks into `spawn_blocking`. A panic is an error.
///
/// ```
/// # #[cfg(unix)] {
/// use tokio::net::UnixStream;
/// use tower_nacos::transport::{Destination, Transport};
///
/// // Sidecars of this host say in their metadata where their socket is.
/// let transport = Transport::builder().connector(|to: Destination| async move {
///     let path = to.instance().metadata().get("unix").ok_or("it names no socket")?;
///     Ok::<_, tower::BoxError>(UnixStream::connect(path).await?)
/// });
/// # }
/// ```
///
/// Virtual machines on one host are reached by the crate `tokio-vsock` (Linux):
///
/// ```ignore
/// use tokio_vsock::{VsockAddr, VsockStream};
/// use tower_nacos::transport::{Destination, Transport};
///
/// let transport = Transport::builder().connector(|to: Destination| async move {
///     let cid = to.instance().metadata().get("cid").ok_or("it names no machine")?.parse()?;
///     let port = to.address().port().into();
///     Ok::<_, tower::BoxError>(VsockStream::connect(VsockAddr::new(cid, port)).await?)
/// });
/// ```
pub trait Dial: Send + Sync + 'static {
    /// What is read and written. A tokio [`TcpStream`] is known for one: the builder's TCP options are
    /// set on it, and its end is seen as early as on those that are dialled without a connector.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Why there is none. It counts as an instance that cannot be reached: that is ejected, and probed.
    type Error: Into<BoxError>;

    /// A connection to it: the bare one, under which TLS is spoken if the instance wants that.
    fn dial(&self, to: Destination) -> impl Future<Output = Result<Self::Io, Self::Error>> + Send;
}

/// Whom a [`Dial`] is to connect to.
#[derive(Clone)]
pub struct Destination(Arc<Inner>);

struct Inner {
    instance: Instance,
    target: Target,
    options: DialOptions,
}

/// A connector of the kind that hyper's clients have, a tower service of [`Uri`]s: of hyper-util
/// `HttpConnector`, and for proxies `Tunnel` (CONNECT) and `SocksV5`.
///
/// It is asked for [`Destination::uri`], by a clone for each dial.
///
/// ```
/// # mod proxies {
/// use hyper_util::client::legacy::connect::{HttpConnector, proxy::Tunnel};
/// use tower_nacos::transport::{ByUri, Transport};
///
/// # pub fn example() {
/// let proxy = http::Uri::from_static("http://proxy.internal:3128");
/// let tunnel = Tunnel::new(proxy, HttpConnector::new());
/// let transport = Transport::builder().connector(ByUri::new(tunnel));
/// # } }
/// # proxies::example();
/// ```
#[derive(Clone, Debug)]
pub struct ByUri<S>(S);

/// A user's connector, whatever its type.
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Erased>);

/// A connector and whom it connects to.
pub(in crate::transport) struct Bound {
    connector: Connector,
    to: Destination,
}

type Dialling = BoxFuture<'static, Result<Socket, BoxError>>;

trait Erased: Send + Sync {
    fn dial(self: Arc<Self>, to: Destination) -> Dialling;
}

/// What is the user's: its panic is not ours, however it ends.
struct Contained(Option<Dialling>);

impl<F, Fut, Io, E> Dial for F
where
    F: Fn(Destination) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Io, E>> + Send,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Into<BoxError>,
{
    type Io = Io;
    type Error = E;

    fn dial(&self, to: Destination) -> impl Future<Output = Result<Io, E>> + Send {
        self(to)
    }
}

impl<D: Dial> Erased for D {
    fn dial(self: Arc<Self>, to: Destination) -> Dialling {
        Box::pin(async move {
            let dialled = Dial::dial(&*self, to).await;
            dialled.map(Socket::of).map_err(Into::into)
        })
    }
}

impl Destination {
    /// The instance, as the registry listed it when this transport was made. A change in metadata makes
    /// another, one of weight or health does not.
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// What the rule for metadata made of it: where it listens and what is spoken.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.0.target.address
    }

    /// Where it listens, as an absolute URI without a path: `http://10.0.0.3:8080`, `https` if TLS is to
    /// be spoken, which is not the connector's to do.
    ///
    /// # Errors
    ///
    /// If its host is a name that no URI can have.
    pub fn uri(&self) -> Result<Uri, http::Error> {
        let scheme = if self.0.target.tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).path_and_query("/");
        uri.authority(self.address().to_string()).build()
    }

    /// Connects by TCP as is done without a connector: resolver, local address, second address, TCP
    /// options. For connectors that are about some instances only, or about what follows on TCP.
    ///
    /// # Errors
    ///
    /// If nobody answers. There is no limit of time but the dial's own.
    pub async fn connect(&self) -> Result<TcpStream, BoxError> {
        let Inner {
            target, options, ..
        } = &*self.0;
        let addresses = addresses::find(target, options).await?;
        Ok(connect::connect(addresses, options).await?)
    }
}

impl<S> ByUri<S> {
    /// That connector.
    pub const fn new(connector: S) -> Self {
        Self(connector)
    }
}

impl<S> Dial for ByUri<S>
where
    S: Service<Uri> + Clone + Send + Sync + 'static,
    S::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Io = TokioIo<S::Response>;
    type Error = BoxError;

    async fn dial(&self, to: Destination) -> Result<Self::Io, BoxError> {
        let mut connector = self.0.clone();
        let ready = std::future::poll_fn(|cx| connector.poll_ready(cx)).await;
        ready.map_err(Into::into)?;
        let connected = connector.call(to.uri()?).await.map_err(Into::into)?;
        Ok(TokioIo::new(connected))
    }
}

impl Connector {
    pub(crate) fn new(dial: impl Dial) -> Self {
        Self(Arc::new(dial))
    }

    /// The same for two only if they are one.
    pub(in crate::transport) fn identity(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }

    pub(in crate::transport) fn to(
        &self,
        instance: &Instance,
        target: &Target,
        options: &DialOptions,
    ) -> Bound {
        let inner = Inner {
            instance: instance.clone(),
            target: target.clone(),
            options: options.clone(),
        };
        Bound {
            connector: self.clone(),
            to: Destination(Arc::new(inner)),
        }
    }
}

impl Bound {
    pub(in crate::transport) fn instance(&self) -> &Instance {
        self.to.instance()
    }

    /// One connection. Whoever is silent is asked a second time beside that.
    pub(in crate::transport) async fn connect(
        &self,
        options: &DialOptions,
    ) -> Result<Socket, DialError> {
        let once = |()| async {
            let dialling = Arc::clone(&self.connector.0).dial(self.to.clone());
            match Contained(Some(dialling)).await {
                Some(Ok(socket)) => Ok(socket),
                Some(Err(error)) => Err(DialError::connector(error)),
                None => Err(DialError::new("its connector panicked")),
            }
        };
        let socket = connect::race(&[()], once).await?;
        if let Socket::Plain(tcp) = &socket {
            connect::tune(tcp, options);
        }
        Ok(socket)
    }
}

impl Future for Contained {
    type Output = Option<Result<Socket, BoxError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(dialling) = &mut self.0 else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| dialling.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let dialling = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(dialling)));
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("instance", &self.0.instance)
            .field("target", &self.0.target)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
