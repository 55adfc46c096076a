//! The `metrics` facade is told what the documentation's table says, and nothing else.
#![cfg(feature = "metrics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::body::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::{sync::Notify, time::timeout};
use tower::{Layer, ServiceExt};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::WeightedRoundRobin,
    endpoint::Verdict,
    provider::{Provider, Stage},
    testing::Registry,
};

const HANG: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Recorded {
    values: Arc<Mutex<BTreeMap<String, Arc<Cell>>>>,
    described: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Default)]
struct Cell {
    value: AtomicU64,
    /// Whether it may be set, and need not add up.
    settable: bool,
}

impl Cell {
    fn add(&self, value: f64) {
        let add = |now: u64| Some((f64::from_bits(now) + value).to_bits());
        self.value.fetch_update(SeqCst, SeqCst, add).unwrap();
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("two clients of one namespace would overwrite each other");
    }
}

/// Its sum.
impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        let settable = self.settable;
        assert!(
            settable,
            "two clients of one namespace would overwrite each other"
        );
        self.value.store(value.to_bits(), SeqCst);
    }
}

impl Recorded {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let settable = key.name() == "tower_nacos_last_news_timestamp_seconds";
        let cell = || {
            let value = AtomicU64::default();
            Arc::new(Cell { value, settable })
        };
        let mut values = self.values.lock().unwrap();
        values.entry(name).or_insert_with(cell).clone()
    }

    fn get(&self, name: &str) -> f64 {
        let values = self.values.lock().unwrap();
        values
            .get(name)
            .map_or(0.0, |cell| f64::from_bits(cell.value.load(SeqCst)))
    }

    fn described(&self, name: &KeyName) {
        let new = self
            .described
            .lock()
            .unwrap()
            .insert(name.as_str().to_owned());
        assert!(new, "{name:?} is described twice");
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// The names in the table of the module's documentation.
fn documented() -> BTreeSet<String> {
    include_str!("../src/metrics/mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
        .filter(|name| name.starts_with("tower_nacos_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_table_the_descriptions_and_what_is_told_agree() {
    let recorded = Recorded::default();
    // On one thread, which is the one that knows this recorder.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorded, || runtime.block_on(scenario(&recorded)));
    drop(runtime);

    assert_eq!(*recorded.described.lock().unwrap(), documented());
    for name in recorded.values.lock().unwrap().keys() {
        let (name, labels) = name.split_once('{').unwrap();
        assert!(documented().contains(name), "{name} is in no table");
        let labels: Vec<_> = labels
            .split(',')
            .map(|l| l.split_once('=').unwrap().0)
            .collect();
        let of_service = ["namespace", "group", "service"];
        match name {
            "tower_nacos_requests_total" => {
                assert_eq!(labels[..3], of_service);
                assert_eq!(labels[3..], ["outcome", "reason"]);
            }
            _ => assert!(labels == ["namespace"] || labels == of_service),
        }
    }
}

async fn scenario(recorded: &Recorded) {
    const SERVICE: &str = "{namespace=public,group=DEFAULT_GROUP,service=orders}";
    let of_service = |name: &str| recorded.get(&format!("tower_nacos_{name}{SERVICE}"));
    let of_client = |name: &str| recorded.get(&format!("tower_nacos_{name}{{namespace=public}}"));

    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let instances: Vec<_> = (1..=3)
        .map(|n| Instance::parse(&format!("10.0.0.{n}:80")).unwrap())
        .collect();
    registry.register_as("p", "orders", &instances);
    let client = timeout(HANG, Client::connect(registry.addr()))
        .await
        .unwrap()
        .unwrap();
    let orders = timeout(HANG, client.subscribe("orders"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (of_service("instances"), of_service("instances_callable")),
        (3.0, 3.0)
    );

    let lists = of_service("lists_total");
    let mut status = orders.status_changes();
    registry.register_as("p", "orders", &instances[..2]);
    let two = async {
        while orders.snapshot().callable_len() != 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, two).await.unwrap();
    assert_eq!(of_service("instances"), 2.0);
    assert!(of_service("lists_total") > lists);

    calls_and_ejections(&orders, &of_service).await;
    a_provider(&client, recorded).await;

    // A registry that comes back without its instances.
    timeout(HANG, async {
        registry.restart().await.unwrap();
        while !matches!(
            status.next().await,
            Some(tower_nacos::directory::Status::Held { .. })
        ) {}
    })
    .await
    .unwrap();
    assert_eq!(of_service("instances_held"), 2.0);
    assert_eq!(of_service("collapses_total"), 1.0);
    assert_eq!(of_service("held_total"), 2.0);
    assert_eq!(of_service("subscriptions_stale"), 0.0);
    assert_eq!(of_client("connections_lost_total"), 1.0);
    // Told after each turn of the client's task, so perhaps a moment later than the status.
    timeout(HANG, async {
        while of_client("connections_total") != 2.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!((of_client("connected"), of_client("clients")), (1.0, 1.0));
    assert_eq!(
        client.counters().connections as f64,
        of_client("connections_total")
    );
    assert_eq!(client.counters().pushes as f64, of_client("pushes_total"));

    assert_eq!(of_service("calls_in_flight"), 0.0);

    timeout(HANG, client.close(HANG)).await.unwrap().unwrap();
    assert_eq!((of_client("connected"), of_client("clients")), (0.0, 0.0));
    assert!(of_client("last_news_timestamp_seconds") > 1e9);
    assert_eq!(of_service("instances"), 2.0, "the last set serves");
    assert_eq!(of_service("subscriptions"), 1.0);
    drop((status, orders, client));
    timeout(HANG, async {
        while of_service("instances") != 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(of_service("instances_callable"), 0.0);
    assert_eq!(of_service("instances_held"), 0.0);
    assert_eq!(of_service("subscriptions"), 0.0);
}

/// One call is in flight at the end, and is cut; another one came late.
async fn a_provider(client: &Client, recorded: &Recorded) {
    const SERVICE: &str = "{namespace=public,group=DEFAULT_GROUP,service=leaves}";
    let get = |name: &str| recorded.get(&format!("tower_nacos_{name}{SERVICE}"));
    let hour = Duration::from_secs(3_600);
    let provider = Provider::builder(client, "leaves")
        .instance(Instance::parse("10.0.0.9:80").unwrap())
        .check_address(false)
        .push_delay(hour)
        .max_linger(hour)
        .drain_timeout(Duration::from_millis(20))
        .build();
    let app = provider
        .layer()
        .layer(tower::service_fn(async |request: Request<bool>| {
            if *request.body() {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }));
    timeout(HANG, provider.online()).await.unwrap().unwrap();
    let mut stays = Box::pin(app.clone().oneshot(Request::new(true)));
    let waker = Waker::noop();
    assert!(
        stays
            .as_mut()
            .poll(&mut Context::from_waker(waker))
            .is_pending()
    );
    let mut offline = Box::pin(provider.offline());
    let lingering = async {
        tokio::select! {
            _ = &mut offline => panic!("an hour was given"),
            () = provider.reached(Stage::Lingering) => {}
        }
    };
    timeout(HANG, lingering).await.unwrap();
    drop(app.oneshot(Request::new(false)).await.unwrap());
    provider.hasten();
    let report = timeout(HANG, offline).await.unwrap();
    assert_eq!(stays.await.unwrap().status(), 503);
    let offline = report.offline.unwrap();
    timeout(HANG, async {
        while get("offline_linger_seconds") == 0.0 {
            tokio::task::yield_now().await; // told a moment after the stage
        }
    })
    .await
    .unwrap();
    for (name, wanted) in [
        ("offlines_total", 1),
        ("offlines_unconfirmed_total", 0),
        ("calls_after_offline_total", 1),
        ("calls_after_listening_total", 0),
        ("calls_rejected_total", 0),
        ("calls_in_flight_at_end_total", 1),
        ("calls_cut_total", 1),
    ] {
        assert_eq!(get(name), f64::from(wanted), "{name}");
    }
    for (name, wanted) in [
        ("offline_acknowledged_seconds", offline.acknowledged_in),
        ("offline_linger_seconds", Some(offline.linger)),
        ("offline_last_call_seconds", offline.last_call_after),
    ] {
        assert_eq!(get(name), wanted.unwrap().as_secs_f64(), "{name}");
    }
}

/// Of a balancer over two instances, one of which cannot be reached.
async fn calls_and_ejections(orders: &Subscription, of_service: &impl Fn(&str) -> f64) {
    let hold = Arc::new(Notify::new());
    let up = Arc::new(AtomicBool::new(false));
    let (held, is_up) = (Arc::clone(&hold), Arc::clone(&up));
    let balance = Balance::builder(orders)
        .policy(WeightedRoundRobin::new())
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let dead = instance.address().to_string() == "10.0.0.1:80";
            let (held, up) = (Arc::clone(&held), Arc::clone(&is_up));
            tower::service_fn(move |wait: bool| {
                let (held, up) = (Arc::clone(&held), Arc::clone(&up));
                async move {
                    if dead && !up.load(SeqCst) {
                        return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                    }
                    if wait {
                        held.notified().await;
                    }
                    Ok(())
                }
            })
        });
    let mut failed = 0;
    for _ in 0..10 {
        failed += u32::from(balance.clone().oneshot(false).await.is_err());
    }
    assert_eq!(failed, 1);
    let told = async |name: &str, value: f64| {
        let told = async {
            while of_service(name) != value {
                tokio::task::yield_now().await;
            }
        };
        let told = timeout(HANG, told).await;
        assert!(told.is_ok(), "{name} is {} not {value}", of_service(name));
    };
    told("ejections_total", 1.0).await;
    told("instances_ejected", 1.0).await;
    told("calls_failed_total", 1.0).await;
    assert_eq!(balance.counters().ejections, 1);

    // Both in flight as the first comes back: its return tells of them.
    let mut waits = Box::pin(balance.clone().oneshot(true));
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    up.store(true, SeqCst);
    let back = async {
        while balance.counters().restorations == 0 {
            balance.clone().oneshot(false).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, back).await.expect("a probe");
    told("restorations_total", 1.0).await;
    told("instances_ejected", 0.0).await;
    told("calls_in_flight", 1.0).await;
    hold.notify_waiters();
    waits.await.unwrap();
    let calls: u64 = ["10.0.0.1:80", "10.0.0.2:80"]
        .iter()
        .map(|address| balance.explain(&address.parse().unwrap()))
        .map(|explained| explained.activity.unwrap().calls)
        .sum();
    drop(balance);
    told("calls_in_flight", 0.0).await;
    told("calls_total", calls as f64).await;
    assert_eq!(of_service("calls_after_evict_total"), 0.0);
    assert_eq!(of_service("calls_failed_total"), 1.0);
}
