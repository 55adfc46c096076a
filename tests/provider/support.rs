//! A registry, an axum server, and a caller that knows nothing of us.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    routing::get,
};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tower_nacos::{
    Client, Instance,
    provider::{Provider, ProviderBuilder},
    testing::Registry,
};

/// No step takes longer than this unless something hangs.
pub(crate) const HANG: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(HANG, future).await;
    done.unwrap_or_else(|_| panic!("{what}: nothing for {HANG:?}"))
}

/// A registry and a client of it.
pub(crate) async fn registry() -> (Registry, Client) {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    (registry, nacos)
}

/// Holds what waits in handlers until the test lets it go.
#[derive(Clone)]
pub(crate) struct Hold(pub(crate) watch::Sender<bool>);

/// `/` answers, `/wait` when it is let go, `/stream` in pieces until then, `/panic` does, `/echo` is an
/// upgrade to a connection that says what it hears.
pub(crate) fn app() -> (Router, Hold) {
    let hold = Hold(watch::Sender::new(false));
    let app = Router::new()
        .route("/", get(async || "here"))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
        .route("/gateway", get(async || [("x-nacos-offline", "another's")]))
        .route("/wait", get(wait))
        .route("/wait-and-panic", get(wait_and_panic))
        .route("/stream", get(pieces))
        .route("/echo", get(echo))
        .with_state(hold.clone());
    (app, hold)
}

async fn wait(State(hold): State<Hold>) -> &'static str {
    hold.let_go().await;
    "waited"
}

async fn wait_and_panic(State(hold): State<Hold>) -> &'static str {
    hold.let_go().await;
    panic!("on purpose")
}

/// What a WebSocket is to HTTP.
async fn echo(mut request: axum::extract::Request) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        let mut heard = [0; 64];
        while let Ok(length @ 1..) = io.read(&mut heard).await {
            io.write_all(&heard[..length]).await.unwrap();
        }
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Body::empty())
        .unwrap()
}

async fn pieces(State(hold): State<Hold>) -> Body {
    let first = stream::once(async { Ok::<_, Infallible>("first ") });
    let last = stream::once(async move {
        hold.let_go().await;
        Ok("last")
    });
    Body::from_stream(first.chain(last))
}

impl Hold {
    async fn let_go(&self) {
        let mut held = self.0.subscribe();
        let _ = held.wait_for(|go| *go).await;
    }
}

/// An axum server that registers and leaves as the documentation shows.
pub(crate) struct Served {
    pub(crate) provider: Provider,
    pub(crate) address: SocketAddr,
    pub(crate) hold: Hold,
    signal: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn start(
        nacos: &Client,
        service: &str,
        set: impl FnOnce(ProviderBuilder) -> ProviderBuilder,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let builder = Provider::builder(nacos, service).instance(Instance::new(address.into()));
        let provider = set(builder).build();
        let (app, hold) = app();
        let (signal, told) = oneshot::channel();
        let offline = provider.offline_on(async move { drop(told.await) });
        let app = app.layer(provider.layer());
        let serving = async move {
            let served = axum::serve(listener, app);
            served.with_graceful_shutdown(offline).await
        };
        Self {
            provider,
            address,
            hold,
            signal: Some(signal),
            serving: tokio::spawn(serving),
        }
    }

    pub(crate) fn signal(&mut self) {
        self.signal.take().unwrap().send(()).unwrap();
    }

    /// Drops the server where it is, without a word to the provider.
    pub(crate) async fn drop_server(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Waits for the server's end.
    pub(crate) async fn ended(self) -> Provider {
        within("the server ends", self.serving)
            .await
            .unwrap()
            .unwrap();
        self.provider
    }
}

/// One connection of a plain caller.
pub(crate) struct Wire(http1::SendRequest<Empty<Bytes>>);

impl Wire {
    pub(crate) async fn dial(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Returns when the server has closed it.
    pub(crate) async fn ended(&mut self) {
        while self.0.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn try_send(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::get(path).header("host", "orders");
        let request = request.body(Empty::new()).unwrap();
        within("an answer", self.0.send_request(request)).await
    }

    pub(crate) async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let mut request = Request::get(path).header("host", "orders");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        within("an answer", self.0.send_request(request))
            .await
            .unwrap()
    }
}

/// Status, headers and body of one call over a connection of its own.
pub(crate) async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, String) {
    let mut wire = Wire::dial(address).await.unwrap();
    let response = wire.send(path, headers).await;
    let (head, body) = response.into_parts();
    let body = within("a body", body.collect()).await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (head.status.as_u16(), head.headers, body)
}
