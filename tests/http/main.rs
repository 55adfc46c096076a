//! `http::Client`: what a user sees, over the embedded registry and real providers.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod addresses;
mod calls;
mod faults;
mod layer;
mod misdirected;
mod provider;
mod read;
mod retry;
mod services;
mod spans;
mod told;
mod traces;

use std::{future::Future, time::Duration};

use ::http::Response;
use http_body_util::BodyExt;
use tower_nacos::{
    Client,
    http::{self, ResponseBody},
    testing::Registry,
};

use provider::Provider;

/// A registry that pushes at once, and a client of it.
struct World {
    registry: Registry,
    nacos: Client,
    http: http::Client,
}

impl World {
    async fn new() -> Self {
        let registry = Registry::builder().push_delay(None).start().await.unwrap();
        let nacos = Client::connect(registry.addr()).await.unwrap();
        let http = http::Client::new(&nacos);
        Self {
            registry,
            nacos,
            http,
        }
    }

    /// Starts a provider and lists it.
    async fn provider(&self, service: &str, name: &'static str) -> Provider {
        let provider = Provider::start(name).await;
        self.registry.register(service, &provider.instance());
        provider
    }
}

/// Under a limit that only a hang reaches.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: no end after 20 s"))
}

async fn text(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
