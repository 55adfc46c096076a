//! What a server's stamps say of its pushes' delay, as the status page shows it.

use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_nacos::status::StatusPage;

use crate::{
    on_every_server,
    server::Server,
    steps::{instance, provider, settles, soon},
};

on_every_server! {
    the_delay_of_a_push_is_known,
}

async fn the_delay_of_a_push_is_known(server: Server) {
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("pace")).await.unwrap();
    soon("ready", orders.ready()).await.unwrap();
    let _a = provider(&server, "pace", instance(1001)).await;
    settles(&orders, &[1001]).await;
    let status = StatusPage::new(&client);
    let page = soon("the delay", async {
        loop {
            let request = Request::get("/?format=json").body(()).unwrap();
            let answer = status.clone().oneshot(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let page: Value = serde_json::from_slice(&body).unwrap();
            if page["registries"][0]["push_delay_ms"].is_number() {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let shown = &page["registries"][0];
    println!(
        "latency {} ms, push delay {} ± {} ms",
        shown["latency_ms"], shown["push_delay_ms"], shown["push_delay_error_ms"]
    );
    assert!(shown["latency_ms"].is_number());
}
