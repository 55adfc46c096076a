//! How a provider comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tower_nacos::{
    Instance,
    provider::{OnlineError, Provider, Stage},
    testing::{Fault, Script},
};

use crate::support::{Served, call, registry, within};

#[tokio::test]
async fn it_is_registered_when_it_is_ready_and_not_before() {
    let (registry, nacos) = registry().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    // Panics, then says no, then yes; then it is not asked any more.
    let ready = move || {
        let nth = count.fetch_add(1, SeqCst);
        assert!(nth != 0, "on purpose");
        async move { nth > 1 }
    };
    let served = Served::start(&nacos, "orders", |b| b.ready(ready)).await;
    within("online", served.provider.reached(Stage::Online)).await;
    assert_eq!(asked.load(SeqCst), 3);
    assert!(served.provider.is_ready());
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
}

/// Somebody else's code may do what it must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_blocks_its_thread_holds_up_nothing_else() {
    let (_registry, nacos) = registry().await;
    let asked = Arc::new(AtomicU32::new(0));
    let (go, held) = std::sync::mpsc::channel::<()>();
    let (count, held) = (asked.clone(), std::sync::Mutex::new(held));
    let ready = move || {
        count.fetch_add(1, SeqCst);
        let _ = held.lock().unwrap().recv();
        async { true }
    };
    let mut served = Served::start(&nacos, "orders", |b| b.ready(ready)).await;
    within("asked", async {
        while asked.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    served.signal();
    let report = served.ended().await.report();
    assert!(report.offline.unwrap().never_online);
    assert_eq!(asked.load(SeqCst), 1);
    drop(go);
}

#[tokio::test]
async fn what_it_waits_for_is_in_its_report() {
    let (_registry, nacos) = registry().await;
    let go = tokio::sync::watch::Sender::new(false);
    let told = go.subscribe();
    let ready = move || std::future::ready(*told.borrow());
    let served = Served::start(&nacos, "orders", |b| b.ready(ready)).await;
    within("a no", async {
        while served.provider.report().waits_for.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let report = served.provider.report();
    assert!(!report.ready);
    assert!(
        report.to_string().ends_with(": `ready` says no"),
        "{report}"
    );
    go.send_replace(true);
    within("online", served.provider.reached(Stage::Online)).await;
    let report = served.provider.report();
    assert!(report.ready && report.waits_for.is_none(), "{report}");
    assert!(report.to_json().contains("\"ready\":true"));
}

#[tokio::test]
async fn a_delay_lies_between_ready_and_the_registration() {
    let (registry, nacos) = registry().await;
    let hour = Duration::from_secs(3_600);
    let mut served = Served::start(&nacos, "orders", |b| b.delay(hour)).await;
    within("starting", served.provider.reached(Stage::Starting)).await;
    // It delays, and leaves at once when it is told: nobody knows of it.
    served.signal();
    let report = served.ended().await.report();
    assert!(report.offline.unwrap().never_online);
    assert_eq!(registry.inspect(|view| view.count("InstanceRequest")), 0);
    let short = Duration::from_millis(1);
    let served = Served::start(&nacos, "billing", |b| b.delay(short)).await;
    within("online", served.provider.reached(Stage::Online)).await;
    assert_eq!(registry.inspect(|view| view.addresses("billing").len()), 1);
}

#[tokio::test]
async fn a_path_is_asked_over_the_listener_itself_and_is_no_call() {
    let (_registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b.ready_path("/wait")).await;
    let in_flight = async {
        while served.provider.report().in_flight == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("it is asked", in_flight).await;
    assert_eq!(served.provider.stage(), Stage::Starting);
    served.hold.0.send_replace(true);
    within("online", served.provider.reached(Stage::Online)).await;
    let missing = Served::start(&nacos, "billing", |b| b.ready_path("/nothing")).await;
    assert_eq!(call(missing.address, "/nothing", &[]).await.0, 404);
    assert_ne!(missing.provider.stage(), Stage::Online);
}

/// And its readiness is asked there.
#[tokio::test]
async fn an_address_that_is_left_to_be_found_is_checked_and_served() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, address) = (
        listener.local_addr().unwrap().port(),
        listener.local_addr().unwrap(),
    );
    let builder = || Provider::builder(&nacos, "orders").instance(Instance::on_port(port));
    let (app, _hold) = crate::support::app();
    let provider = builder().ready_path("/").build();
    let app = app.layer(provider.layer());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    within("online", provider.online()).await.unwrap();
    let listed = || registry.inspect(|view| view.addresses("orders"));
    assert_eq!(listed(), [address.to_string()]);
    within("drained", provider.drain()).await.unwrap();
    assert_eq!(listed(), [address.to_string()]);
    // Who was meant by a caller is known by the address that callers have.
    let meant = format!("strangers;namespace=public;address={address}");
    let refused = call(address, "/", &[("x-nacos-service", &meant)]).await;
    assert_eq!(refused.0, 421);
    let elsewhere = format!("strangers;namespace=public;address=10.0.0.9:{port}");
    assert_eq!(
        call(address, "/", &[("x-nacos-service", &elsewhere)])
            .await
            .0,
        200
    );
    provider.hasten();
    drop(provider);
    serving.abort();
    let _ = serving.await;
    registry
        .wait_until(|view| view.addresses("orders").is_empty())
        .await;
    let error = within("an error", builder().build().online())
        .await
        .unwrap_err();
    let wanted = format!("nothing answers at {address}");
    assert!(error.to_string().starts_with(&wanted), "{error}");
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_not_registered() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let builder = || Provider::builder(&nacos, "orders").instance(address.into());
    let provider = builder().build();
    let error = within("an error", provider.online()).await.unwrap_err();
    assert!(error.is_tried_again(), "{error}");
    let text = error.to_string();
    let wanted = format!("nothing answers at {address}, which is what callers will be given");
    assert!(text.starts_with(&wanted), "{text}");
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    assert_eq!(provider.report().error, Some(text));
    drop(provider);
    // Unseen, if one wants that.
    let provider = builder().check_address(false).build();
    within("online", provider.online()).await.unwrap();
}

/// Its question has one, and is no call for that.
#[tokio::test]
async fn a_path_with_a_query_is_no_call_either() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| {
        b.ready_path("wait?why=ready") // as many write it
            .no_call("/metrics")
            .push_delay(Duration::from_secs(3_600))
            .max_linger(Duration::from_secs(3_600))
    })
    .await;
    let provider = served.provider.clone();
    served.hold.0.send_replace(true);
    within("online", provider.reached(Stage::Online)).await;
    served.signal();
    within("lingering", provider.reached(Stage::Lingering)).await;
    let scrape = ("x-prometheus-scrape-timeout-seconds", "10");
    for (path, header) in [
        ("/wait?why=ready", None),
        ("/metrics", None),
        ("/metrics?all", None),
        ("/", Some(scrape)),
        ("/", Some(("user-agent", "GoogleHC/1.0"))),
    ] {
        call(served.address, path, header.as_slice()).await;
        let offline = provider.report().offline.unwrap();
        assert_eq!(offline.calls_after_offline, 0, "{path} {header:?}");
    }
    for (nth, (path, header)) in (1..).zip([
        ("/wait?why=me", None),
        ("/", Some(("user-agent", "my kube-probe/1"))),
    ]) {
        call(served.address, path, header.as_slice()).await;
        let offline = provider.report().offline.unwrap();
        assert_eq!(offline.calls_after_offline, nth, "{path} {header:?}");
    }
    provider.hasten();
    served.ended().await;
    let nonsense = Provider::builder(&nacos, "orders").instance("10.0.0.3:1".parse_instance());
    let error = nonsense.ready_path("/a b").build().online().await;
    let error = error.unwrap_err();
    assert!(matches!(error, OnlineError::InvalidPath(_)) && !error.is_tried_again());
}

#[tokio::test]
async fn a_registry_that_refuses_is_asked_again() {
    let (registry, nacos) = registry().await;
    registry.script(Script::next("InstanceRequest", Fault::Refuse(400)));
    let served = Served::start(&nacos, "orders", |b| b).await;
    let error = within("an error", served.provider.online()).await;
    // Either this saw the refusal, or it was mended before.
    if let Err(error) = error {
        assert!(matches!(error, OnlineError::Registry(_)), "{error}");
    }
    within("online", served.provider.reached(Stage::Online)).await;
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
}

#[tokio::test]
async fn what_can_never_be_is_said_at_once() {
    let (_registry, nacos) = registry().await;
    let nameless = Provider::builder(&nacos, "no name").instance("10.0.0.3:1".parse_instance());
    let error = nameless.build().online().await.unwrap_err();
    assert!(matches!(error, OnlineError::InvalidName(_)) && !error.is_tried_again());
    let error = Provider::builder(&nacos, "orders")
        .build()
        .online()
        .await
        .unwrap_err();
    assert!(matches!(error, OnlineError::NoInstance), "{error}");
}

#[tokio::test]
async fn one_client_provides_a_service_once() {
    let (registry, nacos) = registry().await;
    let first = Served::start(&nacos, "orders", |b| b).await;
    within("online", first.provider.reached(Stage::Online)).await;
    let second = Served::start(&nacos, "orders", |b| b).await;
    let error = within("an error", second.provider.online())
        .await
        .unwrap_err();
    assert!(
        matches!(error, OnlineError::AlreadyProvided { .. }),
        "{error}"
    );
    // The first is where it was, and the second takes its place once it is gone.
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
    first.provider.hasten();
    within("over", async {
        let offline = first.provider.offline();
        tokio::join!(offline, async {
            first.provider.reached(Stage::Lingering).await;
            first.provider.hasten();
        })
    })
    .await;
    within("online", second.provider.reached(Stage::Online)).await;
}

/// It was never the one that is registered, and takes back nothing of the one that is.
#[tokio::test]
async fn a_provider_that_was_refused_leaves_the_other_as_it_is() {
    let (registry, nacos) = registry().await;
    let first = Served::start(&nacos, "orders", |b| b).await;
    within("online", first.provider.reached(Stage::Online)).await;
    let second = Served::start(&nacos, "orders", |b| b).await;
    let refused = within("an error", second.provider.online()).await;
    assert!(matches!(refused, Err(OnlineError::AlreadyProvided { .. })));
    let report = within("over", second.provider.offline()).await;
    let offline = report.offline.as_ref().unwrap();
    assert!(offline.is_confirmed(), "{report}");
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
    assert_eq!(first.provider.stage(), Stage::Online);
    first.provider.set_weight(2.0).await.unwrap();
}

/// What is wanted while it registers is registered, too.
#[tokio::test]
async fn what_is_wanted_during_the_registration_is_not_lost() {
    let (registry, nacos) = registry().await;
    let slow = Fault::Delay(Duration::from_millis(200));
    registry.script(Script::next("InstanceRequest", slow));
    let served = Served::start(&nacos, "orders", |b| b).await;
    within("asked", async {
        while registry.inspect(|view| view.count("InstanceRequest")) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    served.provider.drain().await.unwrap();
    within("drained", async {
        loop {
            let listed = nacos.instances("orders").await.unwrap();
            if listed.instances().iter().any(|one| one.weight().is_zero()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// However many changes nobody waits for, the next is not behind them all.
#[tokio::test]
async fn changes_that_nobody_waits_for_go_with_the_next() {
    let (registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b).await;
    within("online", served.provider.reached(Stage::Online)).await;
    let before = registry.inspect(|view| view.count("InstanceRequest"));
    let slow = Fault::Delay(Duration::from_millis(20));
    registry.script(Script::every("InstanceRequest", slow));
    for weight in 1..=500 {
        let setting = served.provider.set_weight(f64::from(weight));
        assert!(setting.now_or_never().is_none(), "asks the registry");
    }
    within("set", served.provider.set_weight(7.0))
        .await
        .unwrap();
    let asked = registry.inspect(|view| view.count("InstanceRequest")) - before;
    assert!(asked < 50, "{asked} requests");
    let listed = nacos.instances("orders").await.unwrap();
    assert_eq!(listed.instances()[0].weight(), 7.0.into());
}

#[tokio::test]
async fn several_services_and_addresses_over_one_client() {
    let (registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| {
        b.service("G@@billing")
            .instance("127.0.0.1:9".parse_instance())
            .check_address(false)
    })
    .await;
    within("online", served.provider.reached(Stage::Online)).await;
    for service in ["orders", "G@@billing"] {
        assert_eq!(
            registry.inspect(|view| view.addresses(service).len()),
            2,
            "{service}"
        );
    }
    let callee = format!("G@@billing;address={}", served.address);
    let (status, ..) = call(served.address, "/", &[("x-nacos-service", &callee)]).await;
    assert_eq!(status, 200);
    served.provider.hasten();
    let (report, ()) = tokio::join!(served.provider.offline(), async {
        served.provider.reached(Stage::Lingering).await;
        served.provider.hasten();
    });
    assert!(report.offline.unwrap().acknowledged_in.is_some());
    for service in ["orders", "G@@billing"] {
        assert!(
            registry.inspect(|view| view.addresses(service).is_empty()),
            "{service}"
        );
    }
}

#[tokio::test]
async fn weights_change_in_place() {
    let (_registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b).await;
    let provider = &served.provider;
    within("online", provider.reached(Stage::Online)).await;
    let orders = nacos.subscribe("orders").await.unwrap();
    let mut changes = orders.changes();
    let weight = |wanted: f64| {
        let orders = &orders;
        move || {
            let snapshot = orders.snapshot();
            let callable = snapshot.entries().iter();
            let mut weights = callable.map(|listed| listed.instance().weight().get());
            weights.any(|weight| weight == wanted)
        }
    };
    for (change, wanted) in [(0, 2.5), (1, 0.0), (2, 2.5)] {
        let done = match change {
            0 => within("weighed", provider.set_weight(2.5)).await,
            1 => within("drained", provider.drain()).await,
            _ => within("resumed", provider.resume()).await,
        };
        done.unwrap();
        let seen = weight(wanted);
        within("seen", async {
            while !seen() {
                changes.next().await.unwrap();
            }
        })
        .await;
        assert!(provider.is_ready());
    }
}

trait ParseInstance {
    fn parse_instance(&self) -> Instance;
}

impl ParseInstance for str {
    fn parse_instance(&self) -> Instance {
        Instance::parse(self).unwrap()
    }
}
