//! O1 to O3: which of two lists is news. (O4, a read against a push, is a unit test of `session`,
//! where the race is exact.)

use tower_nacos::{
    directory::Revision,
    testing::{Fault, Script},
};

use crate::{
    server::Server,
    steps::{callable, instance, settles, soon},
};

#[tokio::test]
async fn o1_a_removal_after_the_clock_stepped_back_an_hour_is_applied() {
    let server = Server::embedded().await;
    let registry = server.registry();
    registry.register("o1", &instance(1001));
    registry.register("o1", &instance(1002));
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("o1")).await.unwrap();
    settles(&orders, &[1001, 1002]).await;
    registry.step_clock(-3_600_000);
    registry.deregister("o1", "127.0.0.1:1001");
    settles(&orders, &[1002]).await;
    assert_eq!(orders.counters().older_stamps, 1);
}

#[tokio::test]
async fn o2_an_equal_stamp_is_accepted() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("o2")).await.unwrap();
    let push = |ports: &[u16]| {
        let hosts: Vec<String> = ports
            .iter()
            .map(|port| format!(r#"{{"ip":"127.0.0.1","port":{port}}}"#))
            .collect();
        format!(
            r#"{{"name":"o2","groupName":"DEFAULT_GROUP","lastRefTime":7,"hosts":[{}]}}"#,
            hosts.join(",")
        )
    };
    for ports in [&[1001, 1002][..], &[1002], &[1002, 1003]] {
        registry.push_raw("o2", &push(ports));
        settles(&orders, ports).await;
    }
}

#[tokio::test]
async fn o3_a_lower_stamp_on_a_new_connection_is_accepted() {
    let server = Server::embedded().await;
    let registry = server.registry();
    for port in 1001..=1006 {
        registry.register("o3", &instance(port));
    }
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("o3")).await.unwrap();
    settles(&orders, &[1001, 1002, 1003, 1004, 1005, 1006]).await;
    registry.script(Script::every_push(Fault::Drop)); // only the first answer can tell
    registry.step_clock(-3_600_000);
    registry.deregister("o3", "127.0.0.1:1001");
    registry.kill_all();
    settles(&orders, &[1002, 1003, 1004, 1005, 1006]).await;
}

#[tokio::test]
async fn a_push_that_comes_twice_or_shuffled_is_no_news() {
    let server = Server::embedded().await;
    let registry = server.registry();
    for port in 1001..=1009 {
        registry.register("same", &instance(port));
    }
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("same")).await.unwrap();
    settles(
        &orders,
        &[1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009],
    )
    .await;
    let revision: Revision = orders.revision();
    for _ in 0..5 {
        let before = registry.inspect(|view| view.connections()[0].acks);
        registry.script(Script::next_push(Fault::Duplicate));
        registry.push_again("same");
        soon(
            "both acknowledged",
            registry.wait_until(|view| view.connections()[0].acks >= before + 2),
        )
        .await;
    }
    assert_eq!(orders.revision(), revision);
    assert_eq!(callable(&orders).len(), 9);
}

#[tokio::test]
async fn a_push_with_one_bad_host_among_a_thousand_still_removes() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("big")).await.unwrap();
    let push = |ports: std::ops::Range<u16>, bad: &str| {
        let hosts: Vec<String> = ports
            .map(|port| format!(r#"{{"ip":"127.0.0.1","port":{port}}}"#))
            .chain((!bad.is_empty()).then(|| bad.to_owned()))
            .collect();
        let hosts = hosts.join(",");
        format!(r#"{{"name":"big","groupName":"DEFAULT_GROUP","hosts":[{hosts}]}}"#)
    };
    registry.push_raw("big", &push(1000..2000, ""));
    settles(&orders, &(1000..2000).collect::<Vec<_>>()).await;
    registry.push_raw(
        "big",
        &push(1001..2000, r#"{"ip":"127.0.0.1","port":"eighty"}"#),
    );
    settles(&orders, &(1001..2000).collect::<Vec<_>>()).await;
    assert_eq!(orders.counters().hosts_rejected, 1);

    // Ten thousand at once.
    registry.push_raw("big", &push(1000..11_000, ""));
    settles(&orders, &(1000..11_000).collect::<Vec<_>>()).await;

    // A list of which nothing can be read changes nothing, and the next one is applied.
    let mut changes = orders.changes();
    for _ in 0..10_000 {
        changes.next().await.unwrap();
    }
    registry.push_raw(
        "big",
        r#"{"name":"big","groupName":"DEFAULT_GROUP","hosts":[{"ip":"127.0.0.1","port":0}]}"#,
    );
    registry.push_raw("big", &push(1001..11_000, ""));
    let change = soon("the next list", changes.next()).await.unwrap();
    assert_eq!(change.instance.address().port(), 1000, "{change}");
    assert_eq!(
        (orders.counters().undecodable, callable(&orders).len()),
        (1, 9_999)
    );
}
