//! What a client shows of itself: connection state, status of each subscription, counters.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    Client, Instance,
    client::{ClientCounters, ConnectionState},
    directory::Status,
    testing::{Fault, Registry, Script},
};

const HANG: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

async fn counted(client: &Client, enough: impl Fn(&ClientCounters) -> bool) -> ClientCounters {
    within(async {
        loop {
            let counters = client.counters();
            if enough(&counters) {
                return counters;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn instances(n: u8) -> Vec<Instance> {
    let address = |n| Instance::parse(&format!("10.0.0.{n}:80")).unwrap();
    (1..=n).map(address).collect()
}

#[tokio::test]
async fn each_status_is_streamed_in_its_order() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register_as("p", "orders", &instances(3));
    registry.freeze();
    let client = Client::connect_lazy(registry.addr()).unwrap();
    let orders = client.subscribe_lazy("orders").unwrap();
    let mut status = orders.status_changes();
    assert_eq!(within(status.next()).await, Some(Status::Unknown));
    registry.thaw();
    assert_eq!(within(status.next()).await, Some(Status::Fresh));

    // A list of rubbish, and then the read that mends it.
    registry.script(Script::every(
        "ServiceQueryRequest",
        Fault::Delay(Duration::from_millis(200)),
    ));
    registry.push_body(
        "orders",
        "{\"serviceInfo\":{\"name\":\"orders\",\"groupName\":\"DEFAULT_GROUP\",\"hosts\":7}}",
    );
    assert_eq!(within(status.next()).await, Some(Status::Undecodable));
    assert_eq!(within(status.next()).await, Some(Status::Fresh));
    registry.clear_scripts();

    // A restart without data.
    within(registry.stop()).await;
    assert!(matches!(
        within(status.next()).await,
        Some(Status::Stale { .. })
    ));
    within(registry.resume()).await.unwrap();
    assert_eq!(
        within(status.next()).await,
        Some(Status::Held { instances: 3 })
    );
    registry.register_as("p", "orders", &instances(3));
    loop {
        match within(status.next()).await {
            Some(Status::Fresh) => break,
            Some(Status::Held { instances }) => assert!(instances < 3),
            other => panic!("{other:?}"),
        }
    }
    within(client.close(HANG)).await.unwrap();
    assert_eq!(within(status.next()).await, Some(Status::Closed));
    assert_eq!(within(status.next()).await, None);
}

#[tokio::test]
async fn two_who_watch_one_status_both_hear() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let client = within(Client::connect(registry.addr())).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    let (mut one, mut two) = (orders.status_changes(), orders.status_changes());
    assert_eq!(within(one.next()).await, Some(Status::Fresh));
    assert_eq!(within(two.next()).await, Some(Status::Fresh));
    let both = async { tokio::join!(one.next(), two.next()) };
    let (both, ()) = within(async { tokio::join!(both, async { registry.kill_all() }) }).await;
    assert!(matches!(
        both,
        (Some(Status::Stale { .. }), Some(Status::Stale { .. }))
    ));
}

#[tokio::test]
async fn counters_tell_what_happened_and_keep_what_has_ended() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register_as("p", "orders", &instances(2));
    let client = within(Client::connect(registry.addr())).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    let first = counted(&client, |c| c.connections == 1 && c.lists >= 1).await;
    assert_eq!(
        (
            first.reconnects,
            first.connections_lost,
            first.hosts_rejected
        ),
        (0, 0, 0)
    );

    registry.push_raw(
        "orders",
        r#"{"name":"orders","groupName":"DEFAULT_GROUP","hosts":[{"ip":"10.0.0.1","port":80},{"ip":"10.0.0.2","port":0}]}"#,
    );
    let counters = counted(&client, |c| c.hosts_rejected == 1).await;
    assert!(counters.pushes > 0 && counters.lists > first.lists);

    registry.push_again("users"); // nobody subscribed: nothing comes
    let users = within(client.subscribe("users")).await.unwrap();
    drop(users);
    drop(orders);
    within(registry.wait_until(|view| view.subscribers("orders").is_empty())).await;
    let after = client.counters();
    assert!(
        after.lists >= counters.lists && after.hosts_rejected == 1,
        "{after:?}"
    );

    registry.kill_all();
    let lost = counted(&client, |c| c.reconnects == 1).await;
    assert_eq!((lost.connections, lost.connections_lost), (2, 1));

    within(registry.stop()).await;
    let mut state = client.watch_state();
    let failing = |state: &ConnectionState| matches!(state, ConnectionState::Connecting { last_error: Some(e), .. } if e.contains("refused"));
    within(state.wait_for(failing)).await.unwrap();
    counted(&client, |c| c.failed_attempts > 0).await;
}

#[tokio::test]
async fn who_subscribes_again_after_an_unreadable_first_answer_is_not_told_of_that_one() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register_as("p", "orders", &instances(3));
    let client = within(Client::connect(registry.addr())).await.unwrap();
    let unreadable = Script::next("SubscribeServiceRequest", Fault::Truncate);
    registry.script(unreadable.times(2));
    registry.script(Script::every("NotifySubscriberRequest", Fault::Drop));
    let kept = client.subscribe_lazy("orders").unwrap();
    within(kept.ready()).await.unwrap_err();
    let error = within(client.subscribe("orders")).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be used"),
        "asked anew, and told of that: {error}"
    );
    registry.clear_scripts();
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert_eq!(orders.snapshot().callable_len(), 3);
}
