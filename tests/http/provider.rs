//! A provider: an axum application on its own sockets, and sockets that misbehave.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::HeaderMap,
    routing::{any, get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tower_nacos::Instance;

/// Answers with its name; `/echo` with what it was sent, `/request` with how it was asked,
/// `/endless` without an end, `/never` not at all, `/large` and `/big` with more headers than anybody wants.
pub(crate) struct Provider {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    connections: watch::Receiver<usize>,
    accepting: AbortHandle,
}

impl Provider {
    pub(crate) async fn start(name: &'static str) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let app = Router::new()
            .route("/echo", post(async |body: Bytes| body))
            .route("/request", any(shown))
            .route(
                "/traceparent",
                get(async |headers: HeaderMap| told(&headers)),
            )
            .route("/endless", any(async || endless()))
            .route("/never", any(std::future::pending::<()>))
            .route("/big", get(async || headers(20)))
            .route("/large", get(async || headers(3)))
            .fallback(async move || name)
            .layer(axum::middleware::map_request(move |request: Request| {
                count.fetch_add(1, SeqCst);
                async { request }
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, connections) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // dropped, and so aborted, with this task
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let app = TowerToHyperService::new(app.clone());
                let open = open.clone();
                open.send_modify(|open| *open += 1);
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), app).await;
                    open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            address,
            calls,
            connections,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn instance(&self) -> Instance {
        self.address.into()
    }

    /// Requests that reached it.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    /// Waits until so many connections to it are open.
    pub(crate) async fn until_connections(&self, count: usize) {
        let mut connections = self.connections.clone();
        connections.wait_for(|open| *open == count).await.unwrap();
    }

    /// Dies with all its connections. Whoever lists it does not know.
    pub(crate) fn kill(&self) {
        self.accepting.abort();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn shown(request: Request) -> String {
    let header = |name| {
        let value = request.headers().get(name);
        value
            .map_or("-", |value| value.to_str().unwrap())
            .to_owned()
    };
    format!(
        "{} {} host={} x={}",
        request.method(),
        request.uri(),
        header("host"),
        header("x-test")
    )
}

fn told(headers: &HeaderMap) -> String {
    let value = headers.get("traceparent");
    value
        .map_or("-", |value| value.to_str().unwrap())
        .to_owned()
}

fn endless() -> axum::body::Body {
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 1024]));
    axum::body::Body::from_stream(pieces)
}

fn headers(of_30_kb: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..of_30_kb {
        headers.append("x-big", "b".repeat(30_000).parse().unwrap());
    }
    headers
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Accepts, and does with each connection what it is told.
pub(crate) async fn peer<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Takes what comes and says nothing.
pub(crate) async fn silent(mut stream: TcpStream) {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
}

/// Answers each request with these bytes.
pub(crate) async fn saying(mut stream: TcpStream, answer: String) {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
