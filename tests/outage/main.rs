//! Real outages under the eyes of a real Prometheus: each alert of `docs/alerts.yml` fires, no other does, and all
//! are silent again when it is over.
//!
//! `tools/alerts/outage CACHE` runs it: it fetches the program and shortens the alerts' durations. Without
//! `PROMETHEUS` and `ALERTS`, which it sets, the test says so in one line (`PROMETHEUS_REQUIRED=1` makes it fail).

mod prometheus;
mod services;

use std::{env, net::SocketAddr, path::PathBuf};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tower_nacos::{Client, http, metrics::BUCKETS, testing::Registry};

use self::{
    prometheus::{Firing, Prometheus},
    services::{Provider, Stuck, keep_calling, unreal},
};

/// What is made to fire here; of others it is said that they are not.
const MADE: [&str; 5] = [
    "NacosServiceEmpty",
    "NacosInstancesAllOut",
    "NacosRegistryAway",
    "NacosCallsFail",
    "NacosEvictionSlow",
];

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

    let well = Provider::start(&registry, "well").await;
    let bad = Provider::start(&registry, "bad").await;
    let dead = Provider::start(&registry, "dead").await;
    let emptied = Provider::start(&registry, "emptied").await;
    for service in ["well", "bad", "dead"] {
        keep_calling(&http, service);
    }
    let _emptied = nacos.subscribe("emptied").await.unwrap();
    let mut stuck = Stuck::start(&registry, &nacos).await;

    let folder = rules.with_file_name("outage");
    let prometheus = Prometheus::start(&program, &rules, &folder, scraped).await;
    prometheus.sees_calls_of(&["well", "bad", "dead"]).await;
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
    bad.answers_badly(true);
    stuck.block(&registry);
    let outage = [
        ("NacosServiceEmpty", "nobody"),
        ("NacosServiceEmpty", "emptied"),
        ("NacosInstancesAllOut", "dead"),
        ("NacosCallsFail", "dead"),
        ("NacosCallsFail", "bad"),
        ("NacosEvictionSlow", "stuck"),
    ];
    let outage = outage.map(|(alert, service)| (alert.to_owned(), service.to_owned()));
    let outage = Firing::from(outage);
    prometheus
        .until("an outage", |firing| *firing == outage)
        .await;

    // And on top of it the registry.
    registry.stop().await;
    let away = ("NacosRegistryAway".to_owned(), String::new());
    prometheus
        .until("no registry", |firing| firing.contains(&away))
        .await;

    // It is over. A registry that comes back knows nothing until its providers have told it.
    registry.register("nobody", &unreal("10.0.0.3:80"));
    registry.register("stuck", &unreal("10.0.0.2:80"));
    for provider in [&well, &bad, &emptied] {
        provider.register(&registry);
    }
    let _new = Provider::start(&registry, "dead").await;
    registry.resume().await.unwrap();
    bad.answers_badly(false);
    stuck.let_go();
    prometheus.until("the end of it", Firing::is_empty).await;

    for alert in alerts.iter().filter(|name| !MADE.contains(&&***name)) {
        println!("outage: {alert} was not made to fire");
    }
    println!("outage: ok alerts={}", MADE.len());
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
