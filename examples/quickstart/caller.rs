//! Sixteen tasks that call the service through tower's p2c balancer over our `Discover`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes};
use hyper_util::{
    client::legacy::{Client as HttpClient, Error as HttpError, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tower::{Service, ServiceExt, balance::p2c::Balance, buffer::Buffer};
use tower_nacos::{directory::Subscription, model::Instance};

use crate::{Error, HANG, provider::SEQUENCE};

type Body = Empty<Bytes>;

/// One instance as the balancer sees it: a connection pool of its own, and an address.
///
/// The pool belongs to this service and its clones alone, so when the balancer lets go of an
/// evicted instance, its connections close.
#[derive(Clone)]
struct InstanceService {
    http: HttpClient<HttpConnector, Body>,
    authority: String,
    sequence: Arc<AtomicU64>,
}

/// The running callers and what they count.
pub struct Callers {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
    sequence: Arc<AtomicU64>,
}

struct Shared {
    done: watch::Sender<u64>,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    running: watch::Sender<bool>,
}

impl Callers {
    pub fn start(orders: &Subscription, callers: usize) -> Self {
        let sequence = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Shared {
            done: watch::channel(0).0,
            failed: AtomicU64::new(0),
            last_error: Mutex::new(None),
            running: watch::channel(true).0,
        });

        // The whole integration: a service for each instance, and a stock balancer over them.
        let stamp = sequence.clone();
        let discover = orders.discover(move |instance: &Instance| InstanceService {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            authority: instance.address().to_string(),
            sequence: stamp.clone(),
        });
        let balance = Buffer::new(Balance::new(discover), 1_024);

        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            tasks.spawn(call_for_ever(balance.clone(), shared.clone()));
        }
        Self {
            tasks,
            shared,
            sequence,
        }
    }

    /// The sequence number given last.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(SeqCst)
    }

    pub fn failed(&self) -> u64 {
        self.shared.failed.load(SeqCst)
    }

    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap().clone()
    }

    /// Waits until this many more calls have been made.
    pub async fn wait_for_calls(&self, more: u64) -> Result<(), Error> {
        let until = *self.shared.done.borrow() + more;
        self.wait_for_total(until).await
    }

    pub async fn wait_for_total(&self, total: u64) -> Result<(), Error> {
        let mut done = self.shared.done.subscribe();
        let reached = timeout(HANG, done.wait_for(|done| *done >= total)).await;
        reached.map_err(|_| format!("calls hang: {} of {total}", *self.shared.done.borrow()))??;
        Ok(())
    }

    /// Lets the callers finish their last calls and rest; the balancer stays.
    pub async fn stop(&self) -> u64 {
        self.shared.running.send_replace(false);
        let mut done = *self.shared.done.borrow();
        // At rest is when no call ended for a while; each takes well under a millisecond.
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = *self.shared.done.borrow();
            if now == done {
                return done;
            }
            done = now;
        }
    }

    /// Ends the tasks, and with them the balancer.
    pub fn close(mut self) -> Self {
        self.tasks.abort_all();
        self
    }
}

async fn call_for_ever<S>(mut balance: S, shared: Arc<Shared>)
where
    S: Service<Request<Body>, Response = Response<hyper::body::Incoming>>,
    S::Error: std::fmt::Display,
{
    let mut running = shared.running.subscribe();
    while running.wait_for(|running| *running).await.is_ok() {
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
        let stamp = self.sequence.fetch_add(1, SeqCst) + 1;
        request.headers_mut().insert(SEQUENCE, stamp.into());
        self.http.call(request)
    }
}
