//! T1 to T3: from the push to the balancer, with tower's own p2c over our `Discover`.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use tokio::sync::{Semaphore, watch};
use tower::{Service, ServiceExt, balance::p2c::Balance, buffer::Buffer};
use tower_nacos::model::Instance;

use crate::{
    on_every_server,
    server::Server,
    steps::{added, instance, provider, removed, settles, soon},
};

on_every_server! {
    t1_an_evicted_instance_leaves_the_pick_set_under_load,
    t2_nothing_is_called_after_its_eviction_was_applied,
    t3_a_call_in_flight_finishes,
}

/// A service that counts who is called, and may hold its answers back.
#[derive(Clone)]
struct Called {
    port: u16,
    audit: Arc<Audit>,
}

#[derive(Default)]
struct Audit {
    /// Ports whose eviction was applied.
    evicted: Mutex<BTreeSet<u16>>,
    called_after_eviction: AtomicU64,
    calls: AtomicU64,
    /// `Some`: answers wait for a permit.
    hold: Option<Semaphore>,
    entered: watch::Sender<u64>,
}

impl Service<()> for Called {
    type Response = u16;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<u16, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.audit.calls.fetch_add(1, SeqCst);
        self.audit.entered.send_modify(|entered| *entered += 1);
        if self.audit.evicted.lock().unwrap().contains(&self.port) {
            self.audit.called_after_eviction.fetch_add(1, SeqCst);
        }
        let (port, audit) = (self.port, self.audit.clone());
        Box::pin(async move {
            if let Some(hold) = &audit.hold {
                hold.acquire().await.expect("never closed").forget();
            }
            tokio::task::yield_now().await;
            Ok(port)
        })
    }
}

fn make(audit: &Arc<Audit>) -> impl Fn(&Instance) -> Called + Send + Sync + 'static {
    let audit = audit.clone();
    move |instance| Called {
        port: instance.address().port(),
        audit: audit.clone(),
    }
}

async fn t1_an_evicted_instance_leaves_the_pick_set_under_load(server: Server) {
    under_load(server, "t1").await;
}

async fn t2_nothing_is_called_after_its_eviction_was_applied(server: Server) {
    let audit = under_load(server, "t2").await;
    assert_eq!(audit.called_after_eviction.load(SeqCst), 0);
}

/// Sixteen callers; one of two instances leaves and returns three times. Each eviction is applied
/// while calls go on, which is what the awaits in here assert.
async fn under_load(server: Server, service: &str) -> Arc<Audit> {
    let leaving = provider(&server, service, instance(1001)).await;
    let _staying = provider(&server, service, instance(1002)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe(service)).await.unwrap();
    settles(&orders, &[1001, 1002]).await;
    let audit = Arc::new(Audit::default());
    let balance = Buffer::new(Balance::new(orders.discover(make(&audit))), 64);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (mut balance, stop) = (balance.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    balance.ready().await.unwrap().call(()).await.unwrap();
                }
            })
        })
        .collect();
    let mut changes = orders.changes();
    for _ in 0..3 {
        soon("deregister", leaving.deregister(service))
            .await
            .unwrap();
        let change = removed(&mut changes, 1001).await;
        soon("applied", orders.applied(change.revision))
            .await
            .unwrap();
        audit.evicted.lock().unwrap().insert(1001);
        let calls = audit.calls.load(SeqCst);
        let mut entered = audit.entered.subscribe();
        soon(
            "calls go on",
            entered.wait_for(|entered| *entered > calls + 1_000),
        )
        .await
        .unwrap();
        audit.evicted.lock().unwrap().clear();
        soon("register", leaving.register(service, instance(1001)))
            .await
            .unwrap();
        added(&mut changes, 1001).await;
    }
    stop.store(true, SeqCst);
    for caller in callers {
        soon("the callers", caller).await.unwrap();
    }
    audit
}

async fn t3_a_call_in_flight_finishes(server: Server) {
    let leaving = provider(&server, "t3", instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("t3")).await.unwrap();
    settles(&orders, &[1001]).await;
    let audit = Arc::new(Audit {
        hold: Some(Semaphore::new(0)),
        ..Audit::default()
    });
    let mut balance = Buffer::new(Balance::new(orders.discover(make(&audit))), 64);
    let call = tokio::spawn(soon("ready", balance.ready()).await.unwrap().call(()));
    let mut entered = audit.entered.subscribe();
    soon("the call", entered.wait_for(|entered| *entered == 1))
        .await
        .unwrap();
    soon("deregister", leaving.deregister("t3")).await.unwrap();
    settles(&orders, &[]).await;
    soon("applied", orders.applied(orders.revision()))
        .await
        .unwrap();
    assert!(!call.is_finished());
    audit.hold.as_ref().unwrap().add_permits(1);
    assert_eq!(soon("the answer", call).await.unwrap().unwrap(), 1001);
    // And with nobody left, the next call fails at once and says so.
    let error = soon(
        "no instances",
        soon("ready", balance.ready()).await.unwrap().call(()),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("t3"), "{error}");
}
