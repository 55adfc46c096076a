//! Keeps the services of one registry in another in step, one way:
//! `cargo run --example mirror -- FROM TO [FILTER…]`, until Ctrl-C or SIGTERM.
//!
//! `FROM` and `TO` are `host:8848` or URLs as `Client::from_url` reads them, with login and namespace:
//! `nacos://user:password@old:8848/dev`. A `FILTER` is a group or `group@name`, each with `*` at its
//! ends: `shop`, `shop@order-*`. Without one it is everything, which servers before 3.0 cannot list;
//! name their groups one by one.
//!
//! Without arguments it shows itself on two registries of its own, and ends with a line that begins
//! `mirror: ok`.
//!
//! What may be called in the source is registered in the target, with cluster, weight, health and
//! metadata, and follows each change. What a source that restarted does not list yet stays, as for
//! every subscriber: 3 s if it is little, else for a minute. Mirrored instances have the metadata
//! `mirrored-from`; nothing that has it is mirrored, so mirrors in opposite directions do no harm,
//! and a chain has to be made of mirrors from the one source. Who is registered in both registries
//! by itself is not mirrored. Left out with a warning is who has an address that nobody can call,
//! link-local say. While the target refuses a service's list, those who left are withdrawn all the
//! same; the rest is told again each 10 s.
//!
//! What is mirrored lives as long as the mirror: it takes everything back as it ends, since nobody
//! would look after it. Two mirrors beside each other publish the same twice, and Nacos lists it
//! until both are gone; that is how one is replaced, or two are kept for safety.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

mod arguments;
mod demonstration;
mod mirror;
mod retries;
mod service;

use std::{env, future::Future, time::Duration};

use tower_nacos::{Client, client::ConnectError, model::ServiceFilter};
use tracing::{info, warn};

use arguments::{name_of, read_filter};
use mirror::Mirror;

/// How long after a refusal, or no answer, the target is told again.
const RETRY: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let filter = env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    log.with_writer(std::io::stderr).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => demonstration::run().await,
        [from, to, filters @ ..] => {
            let filters: Vec<_> = filters.iter().map(|text| read_filter(text)).collect();
            mirror(from, to, filters, stopped()?).await
        }
        _ => Err("usage: mirror FROM TO [FILTER…], or nothing for a demonstration".into()),
    }
}

async fn mirror(
    from: &str,
    to: &str,
    mut filters: Vec<ServiceFilter>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    if filters.is_empty() {
        filters.push(ServiceFilter::namespace());
    }
    let (source, target) = (connect(from).await?, connect(to).await?);
    let origin = name_of(from);
    info!("mirrors {origin} in {}", name_of(to));
    let mirror = Mirror::new(source.clone(), target.clone(), origin, RETRY);
    let result = mirror.run(&filters, stop).await;
    info!("takes back what it mirrored");
    const DEADLINE: Duration = Duration::from_secs(5);
    let (taken_back, _) = tokio::join!(target.close(DEADLINE), source.close(DEADLINE));
    if let Err(error) = taken_back {
        warn!("{error}");
    }
    Ok(result?)
}

async fn connect(server: &str) -> Result<Client, ConnectError> {
    if server.starts_with("nacos") && server.contains("://") {
        Client::from_url(server).await
    } else {
        Client::connect(server).await
    }
}

/// The first Ctrl-C, or SIGTERM where there is such a thing.
fn stopped() -> Result<impl Future<Output = ()>, Error> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?
    };
    Ok(async move {
        let interrupted = tokio::signal::ctrl_c();
        #[cfg(unix)]
        tokio::select! {
            _ = interrupted => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = interrupted.await;
    })
}
