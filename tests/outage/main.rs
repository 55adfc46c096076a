//! Real outages under the eyes of a real Prometheus: each alert of `docs/alerts.yml` fires, no other does, and all
//! are silent again when it is over.
//!
//! `tools/alerts/outage CACHE` runs it: it fetches the program and shortens the alerts' durations. Without
//! `PROMETHEUS` and `ALERTS`, which it sets, the test says so in one line (`PROMETHEUS_REQUIRED=1` makes it fail).

mod prometheus;
mod services;

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{Client, balance::Outliers, http, metrics::BUCKETS, testing::Registry};

use self::{
    prometheus::{Firing, HANG, Prometheus},
    services::{Provider, Stuck, keep_calling, unreal},
};

/// What fires in the outage that is made here, and for which service.
const OUTAGE: [(&str, &str); 8] = [
    ("NacosServiceEmpty", "nobody"),
    ("NacosServiceEmpty", "emptied"),
    ("NacosInstancesAllOut", "dead"),
    ("NacosPanic", "panicking"),
    ("NacosCallsFail", "dead"),
    ("NacosCallsFail", "bad"),
    ("NacosCallsFail", "panicking"),
    ("NacosEvictionSlow", "stuck"),
];
const AWAY: (&str, &str) = ("NacosRegistryAway", "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_fire_in_an_outage_and_end_with_it() {
    let path = |name: &str| env::var_os(name).map(PathBuf::from);
    let (Some(program), Some(rules)) = (path("PROMETHEUS"), path("ALERTS")) else {
        let required = env::var_os("PROMETHEUS_REQUIRED").is_some();
        assert!(
            !required,
            "PROMETHEUS or ALERTS is not set; see tools/alerts/outage"
        );
        println!("skipped: PROMETHEUS and ALERTS are not set, which tools/alerts/outage does");
        return;
    };
    let scraped = scraped().await;
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let http = http::Client::builder(&nacos)
        .balance(|service| service.request_durations())
        .build();
    let strict = http::Client::builder(&nacos)
        .balance(|service| service.eject_outliers(Outliers::new()))
        .build();

    let well = Provider::start(&registry, "well").await;
    let bad = Provider::start(&registry, "bad").await;
    let dead = Provider::start(&registry, "dead").await;
    let emptied = Provider::start(&registry, "emptied").await;
    let odd = Provider::start(&registry, "panicking").await;
    let even = [
        Provider::start(&registry, "panicking").await,
        Provider::start(&registry, "panicking").await,
    ];
    for service in ["well", "bad", "dead"] {
        keep_calling(&http, service);
    }
    keep_calling(&strict, "panicking");
    let _emptied = nacos.subscribe("emptied").await.unwrap();
    let mut stuck = Stuck::start(&registry, &nacos).await;

    let folder = rules.with_file_name("outage");
    let prometheus = Prometheus::start(&program, &rules, &folder, scraped).await;
    prometheus
        .sees_calls_of(&["well", "bad", "dead", "panicking"])
        .await;
    let alerts = prometheus.looked_at_all(5).await;
    assert_eq!(
        prometheus.firing().await,
        Some(Firing::new()),
        "all is well"
    );

    // The outage: a service that nobody ever provided, one that lost its last instance, one whose instance is
    // listed and gone, one that answers 500, and one whose callers block.
    let _nobody = nacos.subscribe("nobody").await.unwrap();
    emptied.deregister(&registry);
    drop(dead);
    for provider in [&bad, &odd] {
        provider.answers_badly(true);
    }
    // One is out for its answers, and then those beside it die: it is let in again, which is a panic.
    let ejected = async {
        let panicking = strict.service("panicking").unwrap();
        while panicking.counters().outlier_ejections == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANG, ejected).await.expect("one is ejected");
    drop(even);
    stuck.block(&registry);
    let named = |(alert, service): (&str, &str)| (alert.to_owned(), service.to_owned());
    let outage = OUTAGE.map(named).into_iter();
    let outage: Firing = outage.filter(|(name, _)| alerts.contains(name)).collect();
    prometheus.all_of("an outage", &outage).await;

    // And on top of it the registry.
    registry.stop().await;
    let away = named(AWAY);
    prometheus
        .until("no registry", |firing| firing.contains(&away))
        .await;

    // It is over. A registry that comes back knows nothing until its providers have told it.
    registry.register("nobody", &unreal("10.0.0.3:80"));
    registry.register("stuck", &unreal("10.0.0.2:80"));
    for provider in [&well, &bad, &odd, &emptied] {
        provider.register(&registry);
    }
    let _new = Provider::start(&registry, "dead").await;
    registry.resume().await.unwrap();
    for provider in [&bad, &odd] {
        provider.answers_badly(false);
    }
    stuck.let_go();
    prometheus.until("the end of it", Firing::is_empty).await;

    let made = |alert: &str| OUTAGE.iter().chain([&AWAY]).any(|(name, _)| *name == alert);
    let others: Vec<_> = alerts.iter().filter(|alert| !made(alert)).collect();
    assert!(
        others.is_empty(),
        "make the outage that these are for: {others:?}"
    );
    println!("outage: ok alerts={}", alerts.len());
}

/// What this process tells, where Prometheus asks for it.
async fn scraped() -> SocketAddr {
    let matcher = Matcher::Prefix("tower_nacos_".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, &BUCKETS);
    let told = builder.unwrap().install_recorder().unwrap();
    let app = Router::new().route("/metrics", get(move || std::future::ready(told.render())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}
