//! The status page in a real browser, driven by `status.mjs`: changes while it watches, what others say is
//! inert, a thousand services of a thousand instances, axe, keyboard, without JavaScript.
//!
//! `tools/browser/prepare CACHE`, then `BROWSER=CACHE cargo test --test browser`; without that it says so in one
//! line (`BROWSER_REQUIRED=1` makes it fail). Pictures are left in `CACHE/shots`.

use std::{
    env,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing::post};
use tokio::{net::TcpListener, process::Command, time::timeout};
use tower::ServiceExt;
use tower_nacos::{
    Balance, Client, Instance, ServiceKey, Subscription,
    directory::{Options, Writer, channel},
    status::StatusPage,
    testing::Registry,
};

const EVIL: &str = "\"><script>window.evil = 1</script><img src=x onerror='window.evil = 2'>";

#[expect(clippy::disallowed_methods, reason = "a writer is told the time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn service(name: &str) -> (Writer, Subscription) {
    let key = ServiceKey::new("public", name.parse().unwrap()).unwrap();
    channel(key, Options::default())
}

fn orders(weight: f64) -> Vec<Instance> {
    let pairs = [
        ("version", "1.2.3"),
        ("evil", EVIL),
        ("db.password", "hunter2"),
    ];
    let instance = |n: u8| Instance::parse(&format!("10.0.0.{n}:80")).unwrap();
    let evil = instance(2)
        .with_metadata(pairs.into_iter().collect())
        .with_cluster(EVIL);
    vec![instance(1).with_weight(weight), evil, instance(3)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_it_and_follows() {
    let required = env::var_os("BROWSER_REQUIRED").is_some();
    let Some(cache) = env::var_os("BROWSER").map(PathBuf::from) else {
        assert!(
            !required,
            "BROWSER names no folder; see tools/browser/prepare"
        );
        println!("skipped: BROWSER names no folder that tools/browser/prepare made");
        return;
    };
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let (mut writer, subscription) = service("orders");
    writer.publish(orders(1.0), now());
    let balance = Balance::builder(&subscription)
        .build(|_: &Instance| tower::service_fn(async |(): ()| Ok::<_, std::io::Error>(())));
    for _ in 0..100 {
        balance.clone().oneshot(()).await.unwrap();
    }
    let few = StatusPage::new(&nacos).with(&balance);

    let mut many = StatusPage::new(&nacos);
    let all: Vec<_> = (0..1_000)
        .map(|n| Instance::parse(&format!("10.0.{}.{}:80", n / 250, n % 250)).unwrap())
        .collect();
    let mut kept = Vec::new();
    for n in 0..1_000 {
        let (mut writer, subscription) = service(&format!("service-{n:04}"));
        writer.publish(all.iter().cloned(), now());
        many = many.with(&subscription);
        kept.push((writer, subscription));
    }

    let writer = Arc::new(Mutex::new(writer));
    let weigh = async move |Path(weight): Path<f64>| {
        writer.lock().unwrap().publish(orders(weight), now());
        StatusCode::NO_CONTENT
    };
    let app = Router::new()
        .nest_service("/nacos", few.clone())
        .nest_service("/deep/er/many", many)
        .route("/weigh/{weight}", post(weigh));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "aborted below")]
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/status.mjs");
    let mut browsing = Command::new("node");
    browsing
        .arg(script)
        .arg(&base)
        .arg(&cache)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let browsed = match browsing.spawn() {
        Ok(mut node) => timeout(Duration::from_secs(600), node.wait()).await,
        Err(error) => {
            assert!(!required, "node: {error}");
            println!("skipped: no node ({error})");
            return;
        }
    };
    let browsed = browsed.expect("it ends within 10 min").unwrap();
    serving.abort();
    match browsed.code() {
        Some(77) if !required => println!("skipped: no browser"),
        code => assert_eq!(code, Some(0), "status.mjs says above what is wrong"),
    }
}
