//! The life of the client's own thread. A file of its own: threads are the whole process's.
#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use tokio::{runtime::Runtime, time::timeout};
use tower_nacos::{Client, Instance, testing::Registry};

const HANG: Duration = Duration::from_secs(20);

/// How many threads have the name of the client's.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.trim_end() == "tower-nacos")
        .count()
}

/// Waits until there is one: a thread gives itself its name.
async fn one_is_there() {
    let there = async {
        while threads() != 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, there).await.expect("the thread starts");
}

async fn none_left() {
    let gone = async {
        while threads() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, gone).await.expect("the thread ends");
}

#[test]
fn it_needs_no_runtime_outlives_them_and_ends_with_the_client() {
    let outer = Runtime::new().unwrap();
    let registry = outer
        .block_on(Registry::builder().push_delay(None).start())
        .unwrap();
    let builder = || Client::builder().servers(registry.addr()).own_thread(true);
    assert_eq!(threads(), 0);

    // Ended by `close`.
    let nacos = builder().connect_lazy().unwrap(); // outside of a runtime
    outer.block_on(one_is_there());
    outer.block_on(async {
        let orders = timeout(HANG, nacos.subscribe("orders")).await;
        drop(orders.unwrap().unwrap());
        timeout(HANG, nacos.close(HANG)).await.unwrap().unwrap();
        none_left().await;
    });

    // Ended by the last handle, not by the runtime that it was built on.
    let inner = Runtime::new().unwrap();
    let (nacos, orders) = inner.block_on(async {
        let nacos = timeout(HANG, builder().connect()).await.unwrap().unwrap();
        let orders = timeout(HANG, nacos.subscribe("orders")).await;
        (nacos, orders.unwrap().unwrap())
    });
    drop(inner);
    let instance = Instance::parse("10.0.0.1:80").unwrap();
    registry.register("orders", &instance);
    let own = Instance::parse("10.0.0.2:80").unwrap();
    outer.block_on(async {
        let both = orders.wait_for(1, HANG).await;
        both.expect("the set is followed");
        let registered = timeout(HANG, nacos.register("orders", own)).await;
        registered.unwrap().unwrap();
        drop(nacos);
        let withdrawn = registry.wait_until(|view| view.addresses("orders").len() == 1);
        timeout(HANG, withdrawn).await.expect("its farewell");
        assert_eq!(threads(), 1, "a subscription is a handle");
        drop(orders);
        none_left().await;
    });
}

#[tokio::test]
async fn options_that_cannot_be_are_an_error_and_no_panic() {
    let builder = || Client::builder().servers("127.0.0.1:1").own_thread(true);
    let lazy = builder().group("not a group").connect_lazy();
    assert!(lazy.unwrap_err().to_string().contains("not a group"));
    let waiting = builder().group("not a group").connect().await;
    assert!(waiting.unwrap_err().to_string().contains("not a group"));
}
