//! A recorder that blocks: who tells it waits, and nobody else. A file of its own: a recorder is a process's.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use http::Request;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tower::ServiceExt;
use tower_nacos::{Balance, Client, Instance, Subscription, status::StatusPage, testing::Registry};

const HANG: Duration = Duration::from_secs(60);

/// Blocks whoever tells it of `orders`, while it is shut.
#[derive(Clone)]
struct Blocks(Arc<Door>);

struct Door {
    shut: Mutex<bool>,
    opened: Condvar,
    entered: mpsc::UnboundedSender<()>,
    values: Mutex<BTreeMap<String, f64>>,
}

struct Cell(Blocks, String);

/// A test that fails lets everybody go, or its runtime would wait for them.
struct Opens(Arc<Door>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.shut(false);
    }
}

impl Door {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let shut = self.shut.lock().unwrap();
        if *shut {
            let _ = self.entered.send(());
            drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        }
    }

    fn value(&self, name: &str) -> f64 {
        let values = self.values.lock().unwrap();
        values.get(name).copied().unwrap_or_default()
    }
}

impl Cell {
    fn add(&self, value: f64) {
        let Self(blocks, name) = self;
        if name.is_empty() {
            return;
        }
        blocks.0.pass();
        let mut values = blocks.0.values.lock().unwrap();
        *values.entry(name.clone()).or_default() += value;
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {}
}

impl Blocks {
    /// Nameless where it is of no interest.
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let of_orders = key.labels().any(|label| label.value() == "orders");
        let name = if of_orders { key.name() } else { "" };
        Arc::new(Cell(self.clone(), name.to_owned()))
    }
}

impl Recorder for Blocks {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn instance(n: u8) -> Instance {
    Instance::parse(&format!("10.0.0.{n}:80")).unwrap()
}

/// A client on a thread of its own, and what it knows of the service.
async fn listing(registry: &Registry, service: &str) -> (Client, Subscription) {
    registry.register(service, &instance(1));
    let builder = Client::builder()
        .servers([registry.addr()])
        .own_thread(true);
    let client = timeout(HANG, builder.connect()).await.unwrap().unwrap();
    let subscribed = timeout(HANG, client.subscribe(service)).await;
    let service = subscribed.unwrap().unwrap();
    service.wait_for(1, HANG).await.unwrap();
    (client, service)
}

async fn hears(service: &Subscription, registry: &Registry, n: u8) {
    registry.register(service.key(), &instance(n));
    let heard = service.wait_for(usize::from(n), HANG).await;
    assert!(heard.is_ok(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_recorder_that_blocks_blocks_who_tells_it_and_nobody_else() {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let door = Arc::new(Door {
        shut: Mutex::new(false),
        opened: Condvar::new(),
        entered,
        values: Mutex::default(),
    });
    metrics::set_global_recorder(Blocks(Arc::clone(&door))).unwrap();
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let (nacos, orders) = listing(&registry, "orders").await;
    let (other, carts) = listing(&registry, "carts").await;
    let make = |_: &Instance| tower::service_fn(|n: u32| std::future::ready(Ok::<_, io::Error>(n)));
    let page = StatusPage::new(&nacos).with(&orders);

    let _opens = Opens(Arc::clone(&door));
    door.shut(true);
    // Two tell of orders: the balancer's janitor, on a worker, that there is a balancer ...
    let balance = Balance::builder(&orders).build(make);
    timeout(HANG, entries.recv()).await.unwrap().unwrap();
    // ... and the client, on its thread, that there is an instance.
    hears(&orders, &registry, 2).await;
    timeout(HANG, entries.recv()).await.unwrap().unwrap();
    for n in 0..1_000 {
        let called = timeout(HANG, balance.clone().oneshot(n)).await;
        assert_eq!(called.unwrap().unwrap(), n);
    }
    assert!(
        balance
            .explain(instance(2).address())
            .to_string()
            .contains("10.0.0.2:80")
    );
    let shown = timeout(HANG, page.oneshot(Request::new(()))).await;
    assert!(shown.unwrap().unwrap().status().is_success());
    hears(&carts, &registry, 2).await;
    // Whoever lets go of the last clone does not wait for the one who is at it.
    let (gone, is_gone) = oneshot::channel();
    thread::spawn(move || {
        drop(balance);
        let _ = gone.send(());
    });
    timeout(HANG, is_gone).await.unwrap().unwrap();

    // It goes on, and all is told that there was to tell.
    door.shut(false);
    hears(&orders, &registry, 3).await;
    let told = async {
        let told = || {
            let value = |name: &str| door.value(&format!("tower_nacos_{name}"));
            let calls = value("requests_total");
            (
                value("instances"),
                value("balancers"),
                value("calls_total"),
                calls,
            )
        };
        while told() != (3.0, 0.0, 1_000.0, 1_000.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, told).await.expect("nothing is left untold");
    for client in [nacos, other] {
        timeout(HANG, client.close(HANG)).await.unwrap().unwrap();
    }
}
