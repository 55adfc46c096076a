//! Ends that nobody told of: of a server, of one server of two, of a runtime, of a registry.

use std::{future::pending, time::Duration};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tower_nacos::{
    Client,
    provider::{Provider, Stage},
};

use crate::support::{Served, Wire, app, call, registry, within};

const HOUR: Duration = Duration::from_secs(3_600);

/// axum has put the shutdown signal into a task of its own, which waits on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_is_dropped_is_missed() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b).await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    // A connection of before lives on, and has its server's tasks with it.
    let mut kept = Wire::dial(served.address).await.unwrap();
    drop(kept.send("/", &[]).await.collect().await.unwrap());
    served.drop_server().await;
    within("over", provider.reached(Stage::Over)).await;
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    // Its tasks hear of the end as they do of an ordinary one.
    within("its end", kept.ended()).await;
    let report = provider.report();
    assert!(report.offline.unwrap().acknowledged_in.is_some());
}

#[tokio::test]
async fn the_first_of_two_servers_to_end_takes_nothing_from_the_other() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b.push_delay(HOUR).max_linger(HOUR)).await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    let other = tokio::spawn(provider.offline_on(pending()));
    let third = tokio::spawn(provider.offline_on(pending()));
    tokio::task::yield_now().await; // they have begun
    other.abort();
    assert!(other.await.unwrap_err().is_cancelled());
    provider.set_weight(2.0).await.unwrap(); // what was told before is heard by then
    assert_eq!(provider.stage(), Stage::Online);
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
    served.signal();
    within("lingering", provider.reached(Stage::Lingering)).await;
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    let (status, headers, _) = call(served.address, "/", &[]).await;
    assert!(status == 200 && headers.contains_key("x-nacos-offline"));
    assert_eq!(provider.stage(), Stage::Lingering);
    provider.hasten();
    served.ended().await;
}

/// The other has what is in flight to finish.
#[tokio::test]
async fn a_server_that_is_dropped_while_another_drains_ends_nothing() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::ZERO).drain_timeout(HOUR)
    })
    .await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    let mut long = Wire::dial(served.address).await.unwrap();
    let mut stream = long.send("/stream", &[]).await.into_body();
    stream.frame().await.unwrap().unwrap();
    let mut other = Box::pin(provider.offline_on(pending()));
    assert!((&mut other).now_or_never().is_none());
    served.signal();
    within("draining", provider.reached(Stage::Draining)).await;
    drop(other);
    provider.set_weight(1.0).await.unwrap_err(); // what was told before is heard by then
    assert_eq!(provider.stage(), Stage::Draining, "a call is in flight");
    served.hold.0.send_replace(true);
    let rest = within("the rest", stream.collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "last");
    let report = served.ended().await.report();
    assert_eq!(report.offline.unwrap().cut, 0);
}

/// A server that nobody told to stop: what begins when the provider is over ends with the limit as well.
#[tokio::test]
async fn a_stream_that_begins_after_the_end_is_cut_at_the_limit() {
    let (_registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Provider::builder(&nacos, "orders")
        .instance(address.into())
        .push_delay(Duration::ZERO)
        .drain_timeout(Duration::from_secs(2))
        .build();
    let (app, _hold) = app();
    let app = app.layer(provider.layer());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    within("online", provider.online()).await.unwrap();
    within("over", provider.offline()).await;
    let mut late = Wire::dial(address).await.unwrap();
    let answer = late.send("/stream", &[]).await;
    assert_eq!(answer.status(), 200);
    within("its end", answer.into_body().collect())
        .await
        .unwrap_err();
    // And what comes yet later is refused.
    assert_eq!(call(address, "/", &[]).await.0, 503);
    assert_eq!(provider.report().in_flight, 0);
    serving.abort();
}

/// On a runtime of its own, which ends. Its client lives elsewhere and takes back what is registered.
#[tokio::test]
async fn the_end_of_its_runtime_ends_a_provider() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = Provider::builder(&nacos, "orders")
        .instance(listener.local_addr().unwrap().into())
        .build();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let its = provider.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(its.online()).unwrap();
        end.recv().unwrap();
    });
    within("online", provider.reached(Stage::Online)).await;
    let offline = tokio::spawn(provider.offline_on(pending()));
    tokio::task::yield_now().await;
    ended.send(()).unwrap();
    within("it ends", offline).await.unwrap();
    within(
        "gone",
        registry.wait_until(|view| view.addresses("orders").is_empty()),
    )
    .await;
    let report = within("an answer", provider.offline()).await;
    assert_eq!(report.stage, Stage::Online, "how far it came");
    provider.online().await.unwrap_err();
    tokio::task::spawn_blocking(|| thread.join().unwrap())
        .await
        .unwrap();
}

#[test]
fn without_a_runtime_nothing_hangs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_registry, nacos) = runtime.block_on(registry());
    let provider = Provider::builder(&nacos, "orders")
        .instance(std::net::SocketAddr::from(([10, 0, 0, 3], 80)).into())
        .build();
    provider.online().now_or_never().unwrap().unwrap_err();
    let report = provider.offline().now_or_never().unwrap();
    assert_eq!(report.stage, Stage::Idle);
    let offline = provider.offline_on(std::future::ready(()));
    offline.now_or_never().unwrap();
}

#[tokio::test]
async fn a_registry_that_was_never_reached_confirms_nothing() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nacos = Client::connect_lazy(dead.local_addr().unwrap().to_string()).unwrap();
    drop(dead);
    let mut served = Served::start(&nacos, "orders", |b| b).await;
    within("starting", served.provider.reached(Stage::Starting)).await;
    served.signal();
    let report = served.ended().await.report();
    let text = report.to_string();
    let offline = report.offline.unwrap();
    assert!(
        offline.never_online && offline.acknowledged_in.is_none(),
        "{text}"
    );
    assert!(text.starts_with("never registered"), "{text}");
}
