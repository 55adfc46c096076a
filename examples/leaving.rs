//! How long a provider needs from the signal to its exit: alone, and with callers that heed the mark on its
//! responses or know nothing of it.
//!
//! `cargo run --example leaving -- [ROUNDS]`
//!
//! Nothing is in flight when it goes, so this is the time that news take: until the registry's word, and twice its
//! push delay, 0.6 s, from then on. A line each: `exit <what> bound_s=… median_s=… max_s=… late_calls=…`, where
//! `late_calls` is how many calls came after the signal to the one that left, in all rounds.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

use std::{
    convert::Infallible,
    future::IntoFuture,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::get};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{interval, timeout},
};
use tower_nacos::{
    Client, Instance, Subscription, http,
    provider::{Provider, Report, Stage},
    testing::Registry,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Who calls while one of two providers leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Callers {
    Nobody,
    /// Through this crate's client, which obeys the mark.
    HeedTheMark,
    /// A plain client that takes each instance of the registry's list in turn.
    KnowNothing,
}

const CALLERS: usize = 8;
const BETWEEN_CALLS: Duration = Duration::from_millis(20);
/// No step takes longer than this unless something hangs.
const HANG: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let rounds = std::env::args().nth(1).map_or(Ok(3), |n| n.parse())?;
    for (what, callers, marks) in [
        ("alone", Callers::Nobody, true),
        ("alone,no-layer", Callers::Nobody, false),
        ("callers-heed-the-mark", Callers::HeedTheMark, true),
        ("callers-know-nothing", Callers::KnowNothing, true),
        ("callers-know-nothing,no-layer", Callers::KnowNothing, false),
    ] {
        let (mut took, mut late) = (Vec::new(), 0);
        for round in 0..rounds {
            let service = format!("{what}-{round}").replace(',', "-");
            let (time, report) = timeout(HANG, leave(&service, callers, marks)).await??;
            took.push(time);
            late += report
                .offline
                .map_or(0, |offline| offline.calls_after_offline);
        }
        took.sort();
        println!(
            "exit {what} bound_s=1.4 median_s={:.3} max_s={:.3} late_calls={}",
            took[took.len() / 2].as_secs_f64(),
            took[took.len() - 1].as_secs_f64(),
            if marks {
                late.to_string()
            } else {
                "unknown".to_owned()
            },
        );
    }
    Ok(())
}

/// From the signal until its server has ended.
async fn leave(service: &str, callers: Callers, marks: bool) -> Result<(Duration, Report), Error> {
    let registry = Registry::start().await?;
    let nacos = Client::connect(registry.addr()).await?;
    let (stays, leaves) = (
        Server::start(&registry, service, marks).await?,
        Server::start(&registry, service, marks).await?,
    );
    let orders = nacos.subscribe(service).await?;
    orders.wait_for(2, HANG).await?;
    let mut calling = call(&nacos, &orders, service, callers);
    // Some calls, so that there is something usual about them.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let began = Instant::now();
    let _ = leaves.signal.send(());
    leaves.serving.await??;
    let took = began.elapsed();
    leaves.provider.reached(Stage::Over).await;
    calling.shutdown().await;
    let _ = stays.signal.send(());
    stays.provider.hasten();
    Ok((took, leaves.provider.report()))
}

struct Server {
    provider: Provider,
    signal: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(registry: &Registry, service: &str, marks: bool) -> Result<Self, Error> {
        let nacos = Client::connect(registry.addr()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let instance = Instance::from(listener.local_addr()?);
        let provider = Provider::builder(&nacos, service)
            .instance(instance)
            .build();
        let (signal, told) = oneshot::channel();
        let offline = provider.offline_on(async { drop(told.await) });
        let mut router = Router::new().route("/", get(async || "here"));
        if marks {
            router = router.layer(provider.layer());
        }
        let served = axum::serve(listener, router).with_graceful_shutdown(offline);
        let serving = tokio::spawn(served.into_future());
        provider.reached(Stage::Online).await;
        Ok(Self {
            provider,
            signal,
            serving,
        })
    }
}

fn call(nacos: &Client, orders: &Subscription, service: &str, who: Callers) -> JoinSet<Infallible> {
    let mut calling = JoinSet::new();
    if who == Callers::Nobody {
        return calling;
    }
    let ours = http::Client::new(nacos);
    let plain: Pool<HttpConnector, Empty<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    for caller in 0..CALLERS {
        let (ours, plain, orders) = (ours.clone(), plain.clone(), orders.clone());
        let uri = format!("nacos://{service}/");
        calling.spawn(async move {
            let (mut ticks, mut turn) = (interval(BETWEEN_CALLS), caller);
            loop {
                ticks.tick().await;
                turn += 1;
                if who == Callers::HeedTheMark {
                    if let Err(error) = ours.get(&uri).await {
                        eprintln!("a call failed: {error}");
                    }
                } else {
                    let listed = orders.snapshot();
                    let listed: Vec<_> = listed.callable().collect();
                    let at = listed[turn % listed.len()].instance().address().to_string();
                    let uri = format!("http://{at}/").parse().expect("an address");
                    if let Err(error) = plain.get(uri).await {
                        eprintln!("a call failed: {error}");
                    }
                }
            }
        });
    }
    calling
}
