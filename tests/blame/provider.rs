//! An axum application over hyper, HTTP/1 and HTTP/2, whose paths do to their connections what
//! programs do that are not well.

use std::{net::SocketAddr, panic::resume_unwind, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, Response, StatusCode, Version},
    response::IntoResponse,
    routing::any,
};
use futures_util::stream;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use super::wire::Wire;

pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let app = Router::new()
            .route("/good", any(async |_: Bytes| "good"))
            .route("/panic", any(panics))
            .route(
                "/close",
                any(async |Extension(wire): Extension<Wire>| wire.close().await),
            )
            .route(
                "/reset",
                any(async |Extension(wire): Extension<Wire>| wire.reset().await),
            )
            .route("/malformed", any(malformed))
            .route("/large_head", any(large_head))
            .route("/early", any(async || StatusCode::PAYLOAD_TOO_LARGE))
            .route("/cut", any(cut))
            .route("/chunk", any(chunk))
            .route("/late", any(late));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, app)
    }

    /// Serves a router, with its [`Wire`] in each request's extensions.
    pub(crate) fn serve(listener: TcpListener, app: Router) -> Self {
        let address = listener.local_addr().unwrap();
        let task = spawn(async move {
            let mut connections = JoinSet::new(); // aborted with this task
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let wire = Wire::of(&socket);
                let app = TowerToHyperService::new(app.clone().layer(Extension(wire.clone())));
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let connection = server.serve_connection(TokioIo::new(socket), app);
                    wire.serve(connection).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, task }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As `panic!`, without the noise.
async fn panics() {
    resume_unwind(Box::new("a handler that panics"))
}

async fn malformed(Extension(wire): Extension<Wire>, request: Request) {
    wire.say(if request.version() == Version::HTTP_2 {
        &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x80] // HEADERS that name entry 0 of HPACK's table
    } else {
        b"HTTP/1.1 200 OK\r\nx-broken: a\0b\r\ncontent-length: 0\r\n\r\n"
    })
    .await;
}

/// More than anybody takes by default.
async fn large_head() -> impl IntoResponse {
    let value = HeaderValue::try_from("x".repeat(1 << 20)).unwrap();
    [("x-large", value)]
}

/// Announces a hundred bytes, sends ten, and fails.
async fn cut() -> Response<Body> {
    let pieces = [Ok(Bytes::from_static(b"ten bytes.")), Err("it breaks off")];
    let body = Body::from_stream(stream::iter(pieces));
    Response::builder()
        .header("content-length", "100")
        .body(body)
        .unwrap()
}

async fn chunk(Extension(wire): Extension<Wire>, request: Request) {
    wire.say(if request.version() == Version::HTTP_2 {
        &[0, 0, 0, 0, 0, 0, 0, 0, 0] // DATA for the connection itself
    } else {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nno number\r\n"
    })
    .await;
}

/// Answers, and closes the connection a moment later without having said so.
async fn late(Extension(wire): Extension<Wire>) -> &'static str {
    spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        wire.close().await;
    });
    "good"
}

/// A task of a test, which ends with its runtime.
#[expect(clippy::disallowed_methods, reason = "a test's runtime owns it")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
