//! A provider: an HTTP server that answers with its own port, and its registrations.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, extract::Request};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, task::JoinHandle};
use tower_nacos::{Instance, http::Error, model::SERVICE_HEADER};

/// Ends with its drop.
pub(crate) struct Provider {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Provider {
    /// Answers with its port and whom it was asked for.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let app = Router::new().fallback(async move |request: Request| {
            count.fetch_add(1, SeqCst);
            let meant = request.headers().get(SERVICE_HEADER);
            let meant = meant.map_or("-", |meant| meant.to_str().unwrap());
            format!("{} {meant}", address.port())
        });
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        Self {
            address,
            calls,
            serving,
        }
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::from(self.address)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The answer in words.
pub(crate) async fn said(
    response: Result<::http::Response<tower_nacos::http::ResponseBody>, Error>,
) -> String {
    let response = response.unwrap_or_else(|error| panic!("{error}"));
    assert!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
