//! Tasks that call the service: half of them through tower's p2c balancer over our `Discover`, half
//! through our `Balance`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes};
use hyper_util::{
    client::legacy::{Client as HttpClient, Error as HttpError, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tower::{Service, ServiceExt, balance::p2c::Balance as Stock, buffer::Buffer};
use tower_nacos::{
    Balance,
    directory::Subscription,
    endpoint::Verdict,
    model::{Address, Instance},
};

use crate::{
    Error, HANG,
    provider::{BALANCER, Provider, SEQUENCE},
};

type Body = Empty<Bytes>;

/// One instance as the balancer sees it: a connection pool of its own, and an address.
///
/// The pool belongs to this service and its clones alone, so when the balancer lets go of an
/// evicted instance, its connections close.
#[derive(Clone)]
struct InstanceService {
    http: HttpClient<HttpConnector, Body>,
    authority: String,
    balancer: u64,
    shared: Arc<Shared>,
    calls: Arc<AtomicU64>,
}

/// The balancers, by their places.
pub(crate) const BALANCERS: [&str; 2] = ["tower's p2c", "Balance"];

/// The running callers and what they count.
pub(crate) struct Callers {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    sequence: AtomicU64,
    /// Calls made, by balancer.
    made: [AtomicU64; 2],
    done: watch::Sender<u64>,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    running: watch::Sender<bool>,
    /// How many callers have no call under way.
    resting: watch::Sender<usize>,
    /// Calls of each instance since the last reset.
    shares: Mutex<BTreeMap<Address, Arc<AtomicU64>>>,
}

impl Callers {
    pub(crate) fn start(orders: &Subscription, callers: usize) -> Self {
        let shared = Arc::new(Shared {
            sequence: AtomicU64::new(0),
            made: Default::default(),
            done: watch::channel(0).0,
            failed: AtomicU64::new(0),
            last_error: Mutex::new(None),
            running: watch::channel(true).0,
            resting: watch::channel(0).0,
            shares: Mutex::default(),
        });

        // The whole integration: a service for each instance, and a stock balancer over them.
        let discover = orders
            .discover_with()
            .classify(judge)
            .build(shared.maker(0));
        let stock = Buffer::new(Stock::new(discover), 1_024);

        // Or ours, which needs no buffer.
        let ours = Balance::builder(orders)
            .classify(judge)
            .build(shared.maker(1));

        let mut tasks = JoinSet::new();
        for _ in 0..callers / 2 {
            tasks.spawn(call_for_ever(stock.clone(), shared.clone()));
            tasks.spawn(call_for_ever(ours.clone(), shared.clone()));
        }
        Self { tasks, shared }
    }

    /// The sequence number given last.
    pub(crate) fn sequence(&self) -> u64 {
        self.shared.sequence.load(SeqCst)
    }

    /// How many calls each balancer made.
    pub(crate) fn made(&self) -> [u64; 2] {
        [0, 1].map(|balancer: usize| self.shared.made[balancer].load(SeqCst))
    }

    /// How many calls failed.
    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(SeqCst)
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap().clone()
    }

    /// Who got which share of the calls since the last reset.
    pub(crate) fn shares(&self, providers: &[&Provider]) -> String {
        let counts: Vec<u64> = providers
            .iter()
            .map(|provider| self.shared.share_of(provider.address()).load(SeqCst))
            .collect();
        let all = counts.iter().sum::<u64>().max(1);
        let share = |(provider, n): (&&Provider, &u64)| {
            format!("{} {}%", provider.name(), (n * 100 + all / 2) / all)
        };
        let shares: Vec<String> = providers.iter().zip(&counts).map(share).collect();
        shares.join(", ")
    }

    pub(crate) fn reset_shares(&self) {
        for calls in self.shared.shares.lock().unwrap().values() {
            calls.store(0, SeqCst);
        }
    }

    /// Waits until this many more calls have been made.
    pub(crate) async fn wait_for_calls(&self, more: u64) -> Result<(), Error> {
        let until = *self.shared.done.borrow() + more;
        self.wait_for_total(until).await
    }

    pub(crate) async fn wait_for_total(&self, total: u64) -> Result<(), Error> {
        let mut done = self.shared.done.subscribe();
        let reached = timeout(HANG, done.wait_for(|done| *done >= total)).await;
        reached.map_err(|_| format!("calls hang: {} of {total}", *self.shared.done.borrow()))??;
        Ok(())
    }

    /// Lets the callers finish their last calls and rest; the balancer stays. Returns how many
    /// calls were made in all.
    pub(crate) async fn stop(&self) -> Result<u64, Error> {
        self.shared.running.send_replace(false);
        let mut resting = self.shared.resting.subscribe();
        let all = self.tasks.len();
        timeout(HANG, resting.wait_for(|resting| *resting == all))
            .await
            .map_err(|_| {
                let at_rest = *self.shared.resting.borrow();
                format!("calls hang: {at_rest} of {all} callers have come to rest")
            })??;
        Ok(*self.shared.done.borrow())
    }

    /// Ends the tasks, and with them the balancer.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A connection that fails takes its instance out before the registry says anything.
fn judge(error: &HttpError) -> Verdict {
    match error.is_connect() {
        true => Verdict::unreachable(error),
        false => Verdict::Reachable,
    }
}

impl Shared {
    /// Makes the service that calls one instance.
    fn maker(self: &Arc<Self>, balancer: u64) -> impl Fn(&Instance) -> InstanceService + use<> {
        let shared = self.clone();
        move |instance: &Instance| InstanceService {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            authority: instance.address().to_string(),
            balancer,
            shared: shared.clone(),
            calls: shared.share_of(instance.address()),
        }
    }

    fn share_of(&self, address: &Address) -> Arc<AtomicU64> {
        self.shares
            .lock()
            .unwrap()
            .entry(address.clone())
            .or_default()
            .clone()
    }
}

async fn call_for_ever<S>(mut balance: S, shared: Arc<Shared>)
where
    S: Service<Request<Body>, Response = Response<hyper::body::Incoming>>,
    S::Error: std::fmt::Display,
{
    let mut running = shared.running.subscribe();
    loop {
        shared.resting.send_modify(|resting| *resting += 1);
        if running.wait_for(|running| *running).await.is_err() {
            return;
        }
        shared.resting.send_modify(|resting| *resting -= 1);
        if let Err(error) = call(&mut balance).await {
            shared.failed.fetch_add(1, SeqCst);
            *shared.last_error.lock().unwrap() = Some(error);
        }
        shared.done.send_modify(|done| *done += 1);
    }
}

async fn call<S>(balance: &mut S) -> Result<(), String>
where
    S: Service<Request<Body>, Response = Response<hyper::body::Incoming>>,
    S::Error: std::fmt::Display,
{
    let request = Request::get("/")
        .body(Body::new())
        .map_err(|e| e.to_string())?;
    let ready = balance.ready().await.map_err(|e| e.to_string())?;
    let response = ready.call(request).await.map_err(|e| e.to_string())?;
    response
        .into_body()
        .collect()
        .await
        .map_err(|e| e.to_string())?;
    Ok(())
}

impl Service<Request<Body>> for InstanceService {
    type Response = Response<hyper::body::Incoming>;
    type Error = HttpError;
    type Future = hyper_util::client::legacy::ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        self.http.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let uri = format!("http://{}{}", self.authority, request.uri().path());
        *request.uri_mut() = uri.parse().expect("an instance's address is an authority");
        let stamp = self.shared.sequence.fetch_add(1, SeqCst) + 1;
        self.shared.made[self.balancer as usize].fetch_add(1, SeqCst);
        self.calls.fetch_add(1, SeqCst);
        let headers = request.headers_mut();
        headers.insert(SEQUENCE, stamp.into());
        headers.insert(BALANCER, self.balancer.into());
        self.http.call(request)
    }
}
