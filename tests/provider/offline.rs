//! How a provider leaves.

use std::time::Duration;

use http_body_util::BodyExt;
use tower_nacos::{
    Client,
    provider::Stage,
    testing::{Fault, Registry, Script},
};

use crate::support::{Served, Wire, call, registry, within};

const MARK: &str = "x-nacos-offline";

#[tokio::test]
async fn it_leaves_in_order_and_nobody_is_refused_before_the_end() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b).await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    registry
        .wait_until(|view| view.addresses("orders").len() == 1)
        .await;
    let listed = nacos.instances("orders").await.unwrap();
    let start = listed.instances()[0]
        .metadata()
        .get("startTime")
        .unwrap()
        .to_owned();

    let (status, headers, body) = call(served.address, "/", &[]).await;
    assert_eq!((status, &*body), (200, "here"));
    assert!(!headers.contains_key(MARK) && !headers.contains_key("connection"));
    let mut kept = Wire::dial(served.address).await.unwrap();
    drop(kept.send("/", &[]).await.collect().await.unwrap());
    let mut long = Wire::dial(served.address).await.unwrap();
    let mut stream = long.send("/stream", &[]).await.into_body();
    stream.frame().await.unwrap().unwrap();

    served.signal();
    within("lingering", provider.reached(Stage::Lingering)).await;
    assert!(!provider.is_ready());
    // Acknowledged means: the registry knows nobody any more, from here on, for everybody.
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    // Over a connection of before and over a new one: served, marked, and told to go elsewhere.
    for answer in [kept.send("/", &[]).await, {
        let mut fresh = Wire::dial(served.address).await.unwrap();
        fresh.send("/", &[]).await
    }] {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[MARK], *start);
        assert_eq!(answer.headers()["connection"], "close");
    }

    within("draining", provider.reached(Stage::Draining)).await;
    served.hold.0.send_replace(true);
    let rest = within("the rest of a stream", stream.collect())
        .await
        .unwrap();
    assert_eq!(rest.to_bytes(), "last");
    let address = served.address;
    let provider = served.ended().await;
    within("over", provider.reached(Stage::Over)).await;
    assert!(Wire::dial(address).await.is_err());
    let report = provider.report();
    let offline = report.offline.as_ref().unwrap();
    assert!(
        offline.acknowledged_in.is_some() && offline.unconfirmed.is_none(),
        "{report}"
    );
    assert_eq!(
        (offline.calls_after_offline, offline.calls_after_listening),
        (2, 0),
        "{report}"
    );
    assert_eq!((offline.in_flight_at_end, offline.cut), (1, 0), "{report}");
    assert!(offline.linger >= Duration::from_millis(1_200), "{report}");
    assert!(
        report.to_string().starts_with("acknowledged after "),
        "{report}"
    );
}

/// A gateway tells on what it was told; each caller obeys who speaks of the instance that it called.
#[tokio::test]
async fn a_mark_of_a_service_further_in_stays_beside_ours() {
    let (_registry, nacos) = registry().await;
    let with_start = |address: &str, start: &str| {
        let pairs = [("startTime", start)].into_iter().collect();
        tower_nacos::Instance::parse(address)
            .unwrap()
            .with_metadata(pairs)
    };
    let mut served = Served::start(&nacos, "orders", |b| {
        b.instance(with_start("127.0.0.1:9", "started-9"))
            .instance(with_start("127.0.0.1:10", "started-10"))
            .check_address(false)
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    let listed = nacos.instances("orders").await.unwrap();
    let starts = listed
        .instances()
        .iter()
        .map(|one| one.metadata().get("startTime").unwrap().to_owned());
    let starts: Vec<_> = starts.collect();
    assert_eq!(starts.len(), 3);
    served.signal();
    within("lingering", served.provider.reached(Stage::Lingering)).await;
    let (status, headers, _) = call(served.address, "/gateway", &[]).await;
    assert_eq!(status, 200);
    let marks = headers.get_all(MARK).iter();
    let marks: Vec<&str> = marks.map(|mark| mark.to_str().unwrap()).collect();
    let (ours, theirs) = (marks[0], &marks[1..]);
    assert_eq!(theirs, ["another's"]);
    for start in starts {
        assert!(
            ours.split(',').any(|mark| mark == start),
            "{start} in {ours}"
        );
    }
    served.provider.hasten();
    served.ended().await;
}

/// On a registry that takes its time, which a look at the own service shows.
#[tokio::test]
async fn it_serves_until_callers_have_heard_if_it_looks() {
    let slow = Registry::builder().push_delay(Some(Duration::from_secs(2)));
    let registry = slow.start().await.unwrap();
    let caller = Client::connect(registry.addr()).await.unwrap();
    let orders = caller.subscribe("orders").await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::from_millis(10))
            .measure_push_delay(true)
    })
    .await;
    let listed = orders.wait_for(1, Duration::from_secs(20));
    within("listed", listed).await.unwrap();
    let own = nacos.subscribe("orders").await.unwrap(); // the same that the provider has
    within("listed", own.wait_for(1, Duration::from_secs(20)))
        .await
        .unwrap();
    served.signal();
    within("draining", served.provider.reached(Stage::Draining)).await;
    assert_eq!(own.snapshot().entries().len(), 0);
    assert_eq!(orders.snapshot().entries().len(), 0);
    served.ended().await;
}

#[tokio::test]
async fn a_second_signal_leaves_the_drain() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::from_secs(3_600))
            .max_linger(Duration::from_secs(3_600))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    served.signal();
    within("lingering", served.provider.reached(Stage::Lingering)).await;
    served.provider.hasten();
    let report = served.ended().await.report();
    assert!(report.offline.unwrap().hastened);
}

#[tokio::test]
async fn a_signal_during_the_start_ends_it_at_once() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b.ready(std::future::pending)).await;
    within("starting", served.provider.reached(Stage::Starting)).await;
    served.signal();
    let report = served.ended().await.report();
    assert!(report.offline.unwrap().never_online);
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
}

#[tokio::test]
async fn a_frozen_registry_holds_up_nothing_and_is_told_of() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.deregister_timeout(Duration::from_millis(100))
            .max_linger(Duration::from_millis(200))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    registry.freeze();
    served.signal();
    within("lingering", served.provider.reached(Stage::Lingering)).await;
    let (status, headers, _) = call(served.address, "/", &[]).await;
    assert!(status == 200 && headers.contains_key(MARK));
    let report = served.ended().await.report();
    let text = report.to_string();
    let offline = report.offline.unwrap();
    assert!(offline.acknowledged_in.is_none() && offline.unconfirmed.is_some());
    assert!(text.contains("which may list it for 30s"), "{text}");
    registry.thaw();
}

#[tokio::test]
async fn a_registry_that_is_gone_holds_up_nothing_and_is_told_of() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.deregister_timeout(Duration::from_millis(100))
            .max_linger(Duration::from_millis(200))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    registry.stop().await;
    served.signal();
    let report = served.ended().await.report();
    let text = report.to_string();
    let offline = report.offline.unwrap();
    assert!(!offline.is_confirmed() && offline.unconfirmed.is_some());
    assert!(text.contains("which may list it for 30s"), "{text}");
}

#[tokio::test]
async fn a_call_in_flight_is_answered_however_long_it_takes() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::ZERO)
            .drain_timeout(Duration::from_secs(3_600))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    let address = served.address;
    let waiting = tokio::spawn(async move { call(address, "/wait", &[]).await });
    let busy = async {
        while served.provider.report().in_flight == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("it is in flight", busy).await;
    served.signal();
    within("draining", served.provider.reached(Stage::Draining)).await;
    // Nobody listens any more.
    let refused = async { while Wire::dial(address).await.is_ok() {} };
    within("nobody listens", refused).await;
    assert!(!waiting.is_finished());
    served.hold.0.send_replace(true);
    let (status, headers, body) = within("an answer", waiting).await.unwrap();
    assert_eq!((status, &*body), (200, "waited"));
    assert!(headers.contains_key(MARK));
    let offline = served.ended().await.report().offline.unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (1, 0));
}

#[tokio::test]
async fn a_refused_deregistration_is_not_taken_for_one() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.deregister_timeout(Duration::from_secs(1))
            .max_linger(Duration::from_millis(200))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    registry.script(Script::every("InstanceRequest", Fault::Refuse(500)));
    served.signal();
    let report = served.ended().await.report();
    let offline = report.offline.unwrap();
    assert!(!offline.is_confirmed() && offline.unconfirmed.is_some());
}

#[tokio::test]
async fn what_does_not_end_is_cut() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::ZERO)
            .drain_timeout(Duration::from_millis(300))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    let address = served.address;
    let waiting = tokio::spawn(async move { call(address, "/wait", &[]).await });
    let mut long = Wire::dial(address).await.unwrap();
    let mut stream = long.send("/stream", &[]).await.into_body();
    stream.frame().await.unwrap().unwrap();
    let busy = async {
        while served.provider.report().in_flight < 2 {
            tokio::task::yield_now().await;
        }
    };
    within("both are in flight", busy).await;
    served.signal();
    let (status, headers, _) = within("an answer", waiting).await.unwrap();
    assert_eq!(status, 503);
    assert!(headers.contains_key("retry-after") && headers.contains_key(MARK));
    assert!(within("its end", stream.collect()).await.is_err());
    let offline = served.ended().await.report().offline.unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (2, 2));
}

#[tokio::test]
async fn a_handler_that_panics_stops_nothing() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b.push_delay(Duration::ZERO)).await;
    within("online", served.provider.reached(Stage::Online)).await;
    let socket = tokio::net::TcpStream::connect(served.address)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("/panic").header("host", "orders");
    let request = request
        .body(http_body_util::Empty::<axum::body::Bytes>::new())
        .unwrap();
    within("its end", sender.send_request(request))
        .await
        .unwrap_err();
    assert_eq!(served.provider.report().in_flight, 0);
    served.signal();
    let report = served.ended().await.report();
    assert_eq!(report.offline.unwrap().in_flight_at_end, 0);
}

#[tokio::test]
async fn a_handler_that_panics_during_the_drain_stops_nothing() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::ZERO)
            .drain_timeout(Duration::from_secs(3_600))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    let mut calls = Vec::new();
    for path in ["/wait-and-panic", "/wait"] {
        let mut wire = Wire::dial(served.address).await.unwrap();
        calls.push(tokio::spawn(async move { wire.try_send(path).await }));
    }
    let busy = async {
        while served.provider.report().in_flight < 2 {
            tokio::task::yield_now().await;
        }
    };
    within("both are in flight", busy).await;
    served.signal();
    within("draining", served.provider.reached(Stage::Draining)).await;
    served.hold.0.send_replace(true);
    let [panicked, answered] = &mut calls[..] else {
        unreachable!()
    };
    within("its end", panicked).await.unwrap().unwrap_err();
    let answer = within("an answer", answered).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    let offline = served.ended().await.report().offline.unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (2, 0));
}

/// It takes the registration with it, and says so to who asks for a change.
#[tokio::test]
async fn a_client_that_is_closed_before_its_provider_holds_up_nothing() {
    let (registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::ZERO)
            .max_linger(Duration::from_millis(200))
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    within("closed", nacos.close(Duration::from_secs(5)))
        .await
        .unwrap();
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    within("refused", served.provider.set_weight(2.0))
        .await
        .unwrap_err();
    assert_eq!(call(served.address, "/", &[]).await.0, 200);
    served.signal();
    let report = served.ended().await.report();
    assert_eq!(report.stage, Stage::Over, "{report}");
    assert!(report.offline.unwrap().cut == 0);
}

#[tokio::test]
async fn calls_are_refused_only_where_that_is_wanted() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b.reject_after(Duration::ZERO)).await;
    within("online", served.provider.reached(Stage::Online)).await;
    assert_eq!(call(served.address, "/", &[]).await.0, 200);
    served.signal();
    within("lingering", served.provider.reached(Stage::Lingering)).await;
    let (status, headers, _) = call(served.address, "/", &[]).await;
    assert_eq!(
        (status, headers["retry-after"].as_bytes()),
        (503, &b"1"[..])
    );
    let report = served.ended().await.report();
    assert_eq!(report.offline.unwrap().rejected, 1);
}

#[tokio::test]
async fn who_means_another_service_at_this_address_is_misdirected() {
    let (_registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b).await;
    let here = |service: &str| format!("{service};namespace=public;address={}", served.address);
    let ask = async |callee: String| {
        call(served.address, "/", &[("x-nacos-service", &callee)])
            .await
            .0
    };
    assert_eq!(ask(here("DEFAULT_GROUP@@orders")).await, 200);
    assert_eq!(ask(here("DEFAULT_GROUP@@strangers")).await, 421);
    // Through a gateway that copies headers on; and nonsense.
    assert_eq!(ask("strangers;address=10.0.0.9:80".to_owned()).await, 200);
    assert_eq!(ask("%%%".to_owned()).await, 200);
    assert_eq!(ask("a".repeat(9_000)).await, 200);
    assert_eq!(served.provider.report().misdirected, 1);
}

/// Registered without a provider, beside one: its callers are where they wanted to be, to the last.
#[tokio::test]
async fn a_service_that_is_registered_by_hand_is_no_strangers() {
    let (_registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b).await;
    let callee = format!("by-hand;namespace=public;address={}", served.address);
    let ask = async || {
        let (status, ..) = call(served.address, "/", &[("x-nacos-service", &callee)]).await;
        status
    };
    assert_eq!(ask().await, 421);
    let instance = tower_nacos::Instance::from(served.address);
    nacos.register("by-hand", instance).await.unwrap();
    assert_eq!(ask().await, 200);
    nacos.deregister("by-hand").await.unwrap();
    assert_eq!(ask().await, 200, "callers have yet to hear of it");
}

#[tokio::test]
async fn the_drop_of_the_last_handle_deregisters() {
    let (registry, nacos) = registry().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = tower_nacos::provider::Provider::builder(&nacos, "orders")
        .instance(listener.local_addr().unwrap().into())
        .build();
    drop(nacos); // a client that goes first takes nothing with it
    within("online", provider.online()).await.unwrap();
    registry
        .wait_until(|view| view.addresses("orders").len() == 1)
        .await;
    drop(provider);
    within(
        "gone",
        registry.wait_until(|view| view.addresses("orders").is_empty()),
    )
    .await;
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_deregistered_at_once() {
    let (registry, nacos) = registry().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = tower_nacos::provider::Provider::builder(&nacos, "orders")
        .instance(listener.local_addr().unwrap().into())
        .build();
    let waiting = tokio::spawn(provider.offline_on(std::future::pending()));
    within("online", provider.reached(Stage::Online)).await;
    waiting.abort(); // whoever served with it is gone
    within("over", provider.reached(Stage::Over)).await;
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
}
