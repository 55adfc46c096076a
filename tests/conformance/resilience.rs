//! R1 to R3 and R9: the registry goes away and comes back.

use std::time::Duration;

use tower_nacos::{
    client::{Client, ConnectError},
    directory::Status,
    testing::{Fault, Script, StreamEnd},
};

use crate::{
    on_every_server,
    server::Server,
    steps::{added, callable, change, instance, provider, settles, soon},
};

on_every_server! {
    ; own:
    r2_after_a_restart_everything_is_registered_and_subscribed_again,
    r3_the_last_known_set_serves_while_disconnected,
}

async fn r2_after_a_restart_everything_is_registered_and_subscribed_again(mut server: Server) {
    let _a = provider(&server, "r2", instance(1001)).await;
    let _b = provider(&server, "r2", instance(1002)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r2")).await.unwrap();
    settles(&orders, &[1001, 1002]).await;
    let mut changes = orders.changes();
    for _ in 0..2 {
        soon("what is there", changes.next()).await.unwrap();
    }

    server.restart_empty().await;
    // A newcomer shows that pushes flow again.
    let _c = provider(&server, "r2", instance(1003)).await;
    added(&mut changes, 1003).await;
    settles(&orders, &[1001, 1002, 1003]).await;
}

async fn r3_the_last_known_set_serves_while_disconnected(mut server: Server) {
    let _a = provider(&server, "r3", instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r3")).await.unwrap();
    settles(&orders, &[1001]).await;
    server.kill().await;
    let mut state = client.watch_state();
    soon("the loss", state.wait_for(|state| !state.is_connected()))
        .await
        .unwrap();
    assert!(
        matches!(orders.status(), Status::Stale { .. }),
        "{:?}",
        orders.status()
    );
    assert_eq!(callable(&orders), [1001]);
}

#[tokio::test]
async fn r1_any_end_of_the_stream_is_a_lost_connection() {
    let server = Server::embedded().await;
    let registry = server.registry();
    registry.register("r1", &instance(1001));
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r1")).await.unwrap();
    settles(&orders, &[1001]).await;
    let ends = [
        StreamEnd::Clean,
        StreamEnd::Reset,
        StreamEnd::Status(1, "cancelled".to_owned()),
        StreamEnd::Status(14, "unavailable".to_owned()),
    ];
    for (port, end) in (2001..).zip(ends) {
        let conn = registry.subscribers("r1")[0];
        registry.end_stream(conn, end);
        soon(
            "a new subscription",
            registry.wait_until(|view| view.subscribers("r1").iter().any(|new| *new != conn)),
        )
        .await;
        registry.register("r1", &instance(port));
        settles(
            &orders,
            &(1001..=1001).chain(2001..=port).collect::<Vec<_>>(),
        )
        .await;
    }
}

#[tokio::test]
async fn r1_a_server_that_froze_is_noticed() {
    let server = Server::embedded().await;
    let registry = server.registry();
    registry.register("r1f", &instance(1001));
    let client = server
        .builder()
        .idle_check(Duration::from_millis(100))
        .call_timeout(Duration::from_millis(200))
        .connect();
    let client = soon("connect", client).await.unwrap();
    let orders = soon("subscribe", client.subscribe("r1f")).await.unwrap();
    settles(&orders, &[1001]).await;
    registry.freeze();
    let mut state = client.watch_state();
    soon("the loss", state.wait_for(|state| !state.is_connected()))
        .await
        .unwrap();
    assert_eq!(callable(&orders), [1001]);
    registry.thaw();
    soon("the return", state.wait_for(|state| state.is_connected()))
        .await
        .unwrap();
    registry.register("r1f", &instance(1002));
    settles(&orders, &[1001, 1002]).await;
}

#[tokio::test]
async fn r2_what_was_removed_during_the_outage_is_removed_and_the_rest_never_flaps() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let ports: Vec<u16> = (1001..=1010).collect();
    ports
        .iter()
        .for_each(|port| registry.register("r2o", &instance(*port)));
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r2o")).await.unwrap();
    settles(&orders, &ports).await;
    let revision = orders.revision();
    let mut changes = orders.changes();
    for _ in &ports {
        changes.next().await.unwrap();
    }
    registry.script(Script::every_push(Fault::Drop)); // only the first answer can tell
    registry.deregister("r2o", "127.0.0.1:1004");
    registry.kill_all();
    // It may be late, as after a restart: held first, and removed when it stays away.
    for (at, held) in [(1, true), (2, false)] {
        let change = soon("the removal", changes.next()).await.unwrap();
        assert_eq!(change.instance.address().port(), 1004, "{change}");
        assert_eq!(change.cause().is_none(), held, "{change}");
        assert_eq!(
            change.revision.get(),
            revision.get() + at,
            "one revision each, and only this"
        );
    }
    assert_eq!(callable(&orders).len(), 9);
}

#[tokio::test]
async fn r4_a_server_that_restarts_empty_empties_nobody() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let ports = [1001, 1002, 1003];
    ports
        .iter()
        .for_each(|port| registry.register("r4", &instance(*port)));
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r4")).await.unwrap();
    settles(&orders, &ports).await;
    let mut changes = orders.changes();

    registry.restart().await.unwrap();
    change(&mut changes, "the hold", |change| change.held).await;
    assert_eq!(
        (callable(&orders), orders.status()),
        (ports.to_vec(), Status::Held { instances: 3 })
    );
    // They come back one by one, as providers do; the held ones serve until then.
    for port in ports {
        registry.register("r4", &instance(port));
        let listed = change(&mut changes, "its return", |change| {
            assert!(change.cause().is_none(), "{change}");
            change.instance.address().port() == port && !change.held
        });
        listed.await;
        assert_eq!(callable(&orders), ports);
    }
    assert_eq!(orders.status(), Status::Fresh);
}

#[tokio::test]
async fn r9_a_push_whose_acknowledgement_was_lost_is_harmless() {
    // The server repeats an unacknowledged push with a new id; to us it is the same list again.
    let server = Server::embedded().await;
    let registry = server.registry();
    registry.register("r9", &instance(1001));
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("r9")).await.unwrap();
    settles(&orders, &[1001]).await;
    let revision = orders.revision();
    for _ in 0..3 {
        let before = registry.inspect(|view| view.connections()[0].acks);
        registry.push_again("r9");
        soon(
            "the acknowledgement",
            registry.wait_until(|view| view.connections()[0].acks > before),
        )
        .await;
    }
    assert_eq!(orders.revision(), revision);
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_that_says_where_and_why() {
    let connect = |addr: String| {
        Client::builder()
            .servers(addr)
            .connect_timeout(Duration::from_secs(2))
            .connect()
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = soon("refused", connect(format!("127.0.0.1:1/{}", closed.port())))
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    // The HTTP port given as the gRPC port.
    let server = Server::embedded().await;
    let main = server.registry().socket_addr().port();
    let error = soon("HTTP/1", connect(format!("127.0.0.1:{main}/{main}")))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("closed the connection without a word"),
        "{error}"
    );

    let error = Client::connect("nacos:port").await.unwrap_err();
    assert!(matches!(error, ConnectError::InvalidServer(_)), "{error}");
    let error = Client::connect("").await.unwrap_err();
    assert!(matches!(error, ConnectError::InvalidServer(_)), "{error}");
}

#[tokio::test]
async fn withheld_answers_end_in_an_error_and_never_hang() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let client = server
        .builder()
        .call_timeout(Duration::from_millis(50))
        .request_timeout(Duration::from_millis(500))
        .tries(1_000)
        .connect();
    let client = soon("connect", client).await.unwrap();
    for kind in [
        "SubscribeServiceRequest",
        "ServiceQueryRequest",
        "InstanceRequest",
    ] {
        registry.script(Script::every(kind, Fault::Drop));
    }
    registry.script(Script::every_push(Fault::Drop)); // it would be an answer, too
    assert!(
        soon("subscribe", client.subscribe("mute"))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert!(
        soon("read", client.instances("mute"))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert!(
        soon("register", client.register("mute", instance(1)))
            .await
            .unwrap_err()
            .is_timeout()
    );
    let error = soon("close", client.close(Duration::from_millis(200)))
        .await
        .unwrap_err();
    assert_eq!(error.still_registered().len(), 1, "{error}");
}

#[tokio::test]
async fn requests_while_disconnected_wait_and_are_carried_out() {
    let server = Server::embedded().await;
    let registry = server.registry();
    registry.stop().await;
    let client = server.builder().connect_lazy().unwrap();
    let orders = client.subscribe_lazy("lazy").unwrap();
    assert_eq!(orders.status(), Status::Unknown);
    let (registered, ()) = tokio::join!(
        soon("register", client.register("lazy", instance(1001))),
        async { registry.resume().await.unwrap() },
    );
    registered.unwrap();
    settles(&orders, &[1001]).await;
}

#[test]
fn a_runtime_that_is_gone_is_an_error_and_the_last_set_serves() {
    let home = tokio::runtime::Runtime::new().unwrap();
    let (_server, client, orders) = home.block_on(async {
        let server = Server::embedded().await;
        server.registry().register("gone", &instance(1001));
        let client = server.client().await;
        let orders = soon("subscribe", client.subscribe("gone")).await.unwrap();
        settles(&orders, &[1001]).await;
        (server, client, orders)
    });
    home.shutdown_background();
    let other = tokio::runtime::Runtime::new().unwrap();
    other.block_on(async {
        let error = soon("register", client.register("gone", instance(2)))
            .await
            .unwrap_err();
        assert!(
            error.is_closed() && error.to_string().contains("runtime"),
            "{error}"
        );
        assert!(soon("subscribe", client.subscribe("new")).await.is_err());
        assert!(
            soon("close", client.close(Duration::from_secs(1)))
                .await
                .is_err()
        );
        assert_eq!(callable(&orders), [1001]);
    });
    drop((client, orders)); // outside of any runtime
}
