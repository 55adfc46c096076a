//! A recorder that panics. A file of its own: names are described once in a process.

use std::{io, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_nacos::{Balance, Client, Instance, testing::Registry};

const HANG: Duration = Duration::from_secs(20);

/// A recorder that cannot take anything.
struct Broken;

impl Recorder for Broken {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("broken");
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("broken");
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("broken");
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        panic!("broken");
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("broken");
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("broken");
    }
}

#[test]
fn a_recorder_that_panics_costs_nothing_but_its_numbers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&Broken, || {
        runtime.block_on(async {
            let registry = Registry::builder().push_delay(None).start().await.unwrap();
            let connected = timeout(HANG, Client::connect(registry.addr())).await;
            let client = connected.unwrap().unwrap();
            let subscribed = timeout(HANG, client.subscribe("orders")).await;
            let orders = subscribed.unwrap().unwrap();
            registry.register("orders", &Instance::parse("10.0.0.1:80").unwrap());
            let listed = timeout(HANG, orders.wait_for(1, HANG)).await;
            listed.unwrap().unwrap();
            let balance = Balance::builder(&orders).build(|_: &Instance| {
                tower::service_fn(|n: u32| std::future::ready(Ok::<_, io::Error>(n)))
            });
            for n in 0..10 {
                assert_eq!(balance.clone().oneshot(n).await.unwrap(), n);
                tokio::task::yield_now().await;
            }
            drop(balance);
            timeout(HANG, client.close(HANG)).await.unwrap().unwrap();
        });
    });
}
