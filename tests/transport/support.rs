//! Servers that behave and servers that do not.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// A server over hyper, for HTTP/1 and HTTP/2, that notes what it was asked.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, Arc::clone(&noted)));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection_with_upgrades(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    noted: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let authority = match parts.uri.authority() {
        Some(authority) => authority.to_string(),
        None => parts.headers["host"].to_str().unwrap().to_owned(),
    };
    let line = format!(
        "{:?} {} {} {authority}",
        parts.version,
        parts.method,
        parts.uri.path()
    );
    let body = body
        .collect()
        .await
        .map(|b| b.to_bytes())
        .unwrap_or_default();
    noted.lock().unwrap().push(line);
    Ok(Response::new(Full::new(body)))
}

/// What must come, within a time that only a hang exceeds.
pub(super) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("it hangs")
}
