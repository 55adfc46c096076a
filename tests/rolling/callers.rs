//! The load: three ways that this crate offers, and three that know nothing of marks and retries.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tower::{Service, ServiceExt, balance::p2c::Balance};
use tower_nacos::{
    Client, Instance, Subscription,
    grpc::Channel,
    http::{self, ServiceClient},
    transport::{Protocol, Transport},
};

use crate::{
    HANG,
    fleet::WAY,
    greeter::{HelloRequest, greeter_client::GreeterClient},
};

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http1,
    Http2,
    Grpc,
    /// tower's balancer over our `discover`, with a plain client for each instance.
    StockHttp1,
    StockHttp2,
    /// A list, from which one is taken for a plain client: what registries' SDKs offer.
    List,
}

pub(crate) const WAYS: [Way; 6] = [
    Way::Http1,
    Way::Http2,
    Way::Grpc,
    Way::StockHttp1,
    Way::StockHttp2,
    Way::List,
];
/// A caller makes one call at a time, so many a second: its pace leaves room for slow ones.
const CALLS_OF_ONE: u64 = 16;

pub(crate) struct Callers {
    tasks: JoinSet<()>,
    running: watch::Sender<bool>,
    wires: Wires,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: [AtomicU64; WAYS.len()],
    failures: Mutex<BTreeMap<String, u64>>,
}

/// What came of all calls.
pub(crate) struct Counted {
    calls: [u64; WAYS.len()],
    /// What was said, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Calls of ours that went on to another instance.
    pub(crate) moved: u64,
}

#[derive(Clone)]
struct Wires {
    http1: ServiceClient,
    http2: ServiceClient,
    channel: Channel,
    orders: Subscription,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Called = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Callers {
    /// Makes so many calls a second, for as long as providers keep up.
    pub(crate) fn start(nacos: &Client, orders: &Subscription, rate: u64) -> Self {
        let name = &**orders.key().name();
        let http2 = Transport::builder().protocol(Protocol::Http2);
        let http2 = http::Client::builder(nacos).transport(http2).build();
        let wires = Wires {
            http1: http::Client::new(nacos).service(name).unwrap(),
            http2: http2.service(name).unwrap(),
            channel: Channel::new(orders),
            orders: orders.clone(),
        };
        let running = watch::channel(true).0;
        let seen = Arc::<Seen>::default();
        let mut tasks = JoinSet::new();
        let callers = rate.div_ceil(CALLS_OF_ONE * WAYS.len() as u64).max(1);
        let period = Duration::from_secs(callers * WAYS.len() as u64) / rate as u32;
        for way in WAYS {
            for _ in 0..callers {
                let (call, running, seen) = (way.caller(&wires), running.subscribe(), seen.clone());
                tasks.spawn(call_on(way, call, period, running, seen));
            }
        }
        Self {
            tasks,
            running,
            wires,
            seen,
        }
    }

    /// Lets the calls that are under way end.
    pub(crate) async fn stop(mut self) -> Counted {
        self.running.send_replace(false);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let moved = self.wires.http1.counters().moved
            + self.wires.http2.counters().moved
            + self.wires.channel.balance().counters().moved;
        Counted {
            calls: std::array::from_fn(|way| self.seen.calls[way].load(SeqCst)),
            failures: std::mem::take(&mut self.seen.failures.lock().unwrap()),
            moved,
        }
    }
}

async fn call_on(
    way: Way,
    mut call: Box<dyn FnMut() -> Called + Send>,
    period: Duration,
    running: watch::Receiver<bool>,
    seen: Arc<Seen>,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *running.borrow() {
        ticks.tick().await;
        let failure = match timeout(HANG, call()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&*error)),
            Err(_) => Some("it hangs".to_owned()),
        };
        seen.calls[way as usize].fetch_add(1, SeqCst);
        if let Some(failure) = failure {
            let mut failures = seen.failures.lock().unwrap();
            let failure = format!("{}: {failure}", way.name());
            *failures.entry(failure).or_default() += 1;
        }
    }
}

impl Way {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::StockHttp1 => "stock-http1",
            Self::StockHttp2 => "stock-http2",
            Self::List => "list",
        }
    }

    /// One caller, which has nothing in common with the others but what it calls through.
    fn caller(self, wires: &Wires) -> Box<dyn FnMut() -> Called + Send> {
        match self {
            Self::Http1 => by_name(self, wires.http1.clone()),
            Self::Http2 => by_name(self, wires.http2.clone()),
            Self::Grpc => {
                let greeter = GreeterClient::new(wires.channel.clone());
                Box::new(move || {
                    let mut greeter = greeter.clone();
                    Box::pin(async move {
                        let name = "Ann".to_owned();
                        greeter.say_hello(HelloRequest { name }).await?;
                        Ok(())
                    })
                })
            }
            Self::StockHttp1 | Self::StockHttp2 => self.stock(&wires.orders),
            Self::List => {
                let (orders, pool) = (wires.orders.clone(), self.pool());
                let mut turn = 0;
                Box::new(move || {
                    turn += 1;
                    let snapshot = orders.snapshot();
                    let listed: Vec<_> = snapshot.callable().collect();
                    let chosen = listed[turn % listed.len()].instance().address().to_string();
                    let pool = pool.clone();
                    Box::pin(async move { self.plain(&pool, &chosen).await })
                })
            }
        }
    }

    fn stock(self, orders: &Subscription) -> Box<dyn FnMut() -> Called + Send> {
        let discover = orders.discover(move |instance: &Instance| {
            let (pool, address) = (self.pool(), instance.address().to_string());
            tower::service_fn(move |()| {
                let (pool, address) = (pool.clone(), address.clone());
                async move { self.plain(&pool, &address).await }
            })
        });
        let balance = Arc::new(tokio::sync::Mutex::new(Balance::new(discover)));
        Box::new(move || {
            let balance = balance.clone();
            Box::pin(async move {
                let answer = balance.lock().await.ready().await?.call(());
                answer.await
            })
        })
    }

    fn pool(self) -> Pool<HttpConnector, Full<Bytes>> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        let http2 = self == Self::StockHttp2;
        // Not even what hyper-util repeats by default.
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.retry_canceled_requests(false)
            .http2_only(http2)
            .build(http)
    }

    /// One POST, made once.
    async fn plain(
        self,
        pool: &Pool<HttpConnector, Full<Bytes>>,
        address: &str,
    ) -> Result<(), Failure> {
        let request = Request::post(format!("http://{address}/orders"))
            .header(WAY, self.name())
            .body(Full::new(Bytes::from_static(b"order")))?;
        let response = pool.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        whole(status.as_u16(), &body)
    }
}

fn by_name(way: Way, orders: ServiceClient) -> Box<dyn FnMut() -> Called + Send> {
    Box::new(move || {
        let orders = orders.clone();
        Box::pin(async move {
            let request = orders.post("/orders", "order").header(WAY, way.name());
            let response = request.send().await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            whole(status.as_u16(), &body)
        })
    })
}

fn whole(status: u16, body: &[u8]) -> Result<(), Failure> {
    match (status, body) {
        (200, b"order") => Ok(()),
        _ => Err(format!("{status} {}", String::from_utf8_lossy(body)).into()),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

impl Counted {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.calls.iter().sum();
        write!(
            f,
            "calls={all} failed={} moved={}",
            self.failed(),
            self.moved
        )?;
        for way in WAYS {
            write!(f, " {}={}", way.name(), self.calls[way as usize])?;
        }
        Ok(())
    }
}
