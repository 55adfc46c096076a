//! Full is not ready: who waits for room has it in the order in which they came, wherever it
//! appears, however many keep coming after them. In virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, yield_now},
    time::sleep,
};
use tower::{Service, ServiceExt, limit::ConcurrencyLimit};
use tower_nacos::{
    Balance, Instance,
    balance::{P2c, PeakEwma, Policy, WeightedRoundRobin},
    directory::{Subscription, Writer},
    endpoint::CallError,
};

/// Says who is served, in which order, and takes so long for it.
#[derive(Clone)]
struct Desk {
    served: Arc<Mutex<Vec<usize>>>,
    takes: Duration,
}

/// One at a time: tower's own limit, which is fair.
type Instances<P> = Balance<ConcurrencyLimit<Desk>, P>;
type Caller = JoinHandle<Result<(), CallError>>;

impl Desk {
    fn new(takes: Duration) -> Self {
        let served = Arc::default();
        Self { served, takes }
    }

    fn served(&self) -> Vec<usize> {
        self.served.lock().unwrap().clone()
    }

    fn balance<P: Policy>(&self, orders: &Subscription, policy: P) -> Instances<P> {
        let desk = self.clone();
        let one_at_a_time = move |_: &Instance| ConcurrencyLimit::new(desk.clone(), 1);
        Balance::builder(orders).policy(policy).build(one_at_a_time)
    }
}

impl Service<usize> for Desk {
    type Response = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, caller: usize) -> Self::Future {
        self.served.lock().unwrap().push(caller);
        let takes = self.takes;
        Box::pin(async move {
            sleep(takes).await;
            Ok(())
        })
    }
}

fn list(writer: &mut Writer, n: usize) {
    let all = (1..=n).map(|at| instance(&format!("10.0.0.{at}:80")));
    writer.publish(all, now());
}

/// A caller that has looked for an instance before the next one comes.
async fn come<P: Policy>(instances: &Instances<P>, caller: usize) -> Caller {
    let caller = tokio::spawn(instances.clone().oneshot(caller));
    yield_now().await;
    caller
}

/// Three instances serve 300 a second, and for a while 1,000 a second come.
async fn in_order(policy: impl Policy) {
    let (mut writer, orders) = registry();
    list(&mut writer, 3);
    let desk = Desk::new(Duration::from_millis(10));
    let instances = desk.balance(&orders, policy);
    let mut callers = Vec::new();
    for caller in 0..400 {
        callers.push(come(&instances, caller).await);
        if caller >= 50 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(desk.served().is_sorted(), "{:?}", desk.served());
    assert_eq!(desk.served().len(), 400);
    assert_eq!(instances.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_order_however_many_keep_coming() {
    in_order(P2c::default()).await;
    in_order(PeakEwma::new()).await;
    in_order(WeightedRoundRobin::new()).await;
}

/// On several threads too, since room is handed to who waits longest, whichever task is polled first.
#[test]
fn on_two_threads_who_waits_for_room_has_it_in_the_order_of_coming() {
    const CALLERS: usize = 64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let test = async {
        let (mut writer, orders) = registry();
        list(&mut writer, 1);
        // No call ends but when it is let: a place at a time.
        let (served, gate) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Semaphore::new(0)),
        );
        let (seen, opened) = (Arc::clone(&served), Arc::clone(&gate));
        let instances = Balance::builder(&orders).build(move |_: &Instance| {
            let (served, gate) = (Arc::clone(&seen), Arc::clone(&opened));
            let one = tower::service_fn(move |caller: usize| {
                served.lock().unwrap().push(caller);
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, io::Error>(())
                }
            });
            ConcurrencyLimit::new(one, 1)
        });
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            callers.push(tokio::spawn(instances.clone().oneshot(caller)));
            // In flight or waiting, before the next comes.
            while { instances.counts()[0] + instances.counts()[2] } < caller as u64 + 1 {
                yield_now().await;
            }
        }
        for (let_go, caller) in callers.into_iter().enumerate() {
            gate.add_permits(1);
            caller.await.unwrap().unwrap();
            // Others keep coming meanwhile.
            if let_go < CALLERS / 2 {
                drop(tokio::spawn(instances.clone().oneshot(CALLERS + let_go)));
            }
        }
        let served = served.lock().unwrap();
        let first: Vec<_> = served.iter().take(CALLERS).copied().collect();
        assert_eq!(first, (0..CALLERS).collect::<Vec<_>>());
    };
    let hang = Duration::from_secs(60);
    runtime
        .block_on(async { tokio::time::timeout(hang, test).await })
        .expect("it hangs");
}

/// Who found room elsewhere stands in no other queue: room that its first choice gives back is for others,
/// however long its own call is.
#[tokio::test(start_paused = true)]
async fn who_is_served_elsewhere_holds_no_room_where_it_waited() {
    let (mut writer, orders) = registry();
    list(&mut writer, 2);
    // The callers' own times: the first two are done at once where they are let, the others never.
    let (served, gate) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Semaphore::new(0)),
    );
    let (seen, opened) = (Arc::clone(&served), Arc::clone(&gate));
    let instances = Balance::builder(&orders)
        .policy(WeightedRoundRobin::new())
        .build(move |_: &Instance| {
            let (served, gate) = (Arc::clone(&seen), Arc::clone(&opened));
            let one = tower::service_fn(move |caller: usize| {
                served.lock().unwrap().push(caller);
                let gate = Arc::clone(&gate);
                async move {
                    match caller {
                        0 => gate.acquire().await.unwrap().forget(),
                        _ => std::future::pending().await,
                    }
                    Ok::<_, io::Error>(())
                }
            });
            ConcurrencyLimit::new(one, 1)
        });
    // One of the two is taken; the next looks at it, in its turn, and goes to the other.
    let first = tokio::spawn(instances.clone().oneshot(0));
    yield_now().await;
    for given_up in 0..2 {
        let next = tokio::spawn(instances.clone().oneshot(1 + given_up));
        yield_now().await;
        if given_up == 0 {
            next.abort();
            let _ = next.await;
        }
    }
    assert_eq!(served.lock().unwrap().len(), 3);
    gate.add_permits(1);
    first.await.unwrap().unwrap();
    let last = tokio::spawn(instances.clone().oneshot(9));
    yield_now().await;
    assert_eq!(served.lock().unwrap().last(), Some(&9), "one is idle");
    drop(last);
}

/// Who came last sits where somebody left before, and is not before the others for it.
#[tokio::test(start_paused = true)]
async fn a_newcomer_s_room_is_for_who_waits_longest() {
    let (mut writer, orders) = registry();
    list(&mut writer, 1);
    let desk = Desk::new(Duration::from_secs(3600));
    let instances = desk.balance(&orders, P2c::default());
    let mut callers = Vec::new();
    for caller in 0..6 {
        callers.push(come(&instances, caller).await);
    }
    for given_up in [1, 3] {
        callers[given_up].abort();
        yield_now().await;
    }
    for caller in 6..9 {
        callers.push(come(&instances, caller).await);
    }
    assert_eq!(desk.served(), [0]);
    for (n, next) in [(2, 2), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)] {
        list(&mut writer, n);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(desk.served().last(), Some(&next), "{:?}", desk.served());
    }
}

/// So it is for those who wait until it is known that an instance can be called.
#[tokio::test(start_paused = true)]
async fn the_registry_s_first_answer_serves_who_waits_longest() {
    let (mut writer, orders) = registry();
    let desk = Desk::new(Duration::from_millis(10));
    let instances = desk.balance(&orders, P2c::default());
    let mut callers = Vec::new();
    for caller in 0..4 {
        callers.push(come(&instances, caller).await);
    }
    callers[0].abort();
    yield_now().await;
    for caller in 4..8 {
        callers.push(come(&instances, caller).await);
    }
    list(&mut writer, 1);
    for caller in callers.drain(1..) {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(desk.served(), [1, 2, 3, 4, 5, 6, 7]);
}
