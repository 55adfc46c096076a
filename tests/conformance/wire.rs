//! W4 to W10: how the client talks, as a scripted server sees it.

use std::{collections::BTreeMap, time::Duration};

use tower_nacos::{
    client::{Client, ConnectionState},
    testing::{Fault, Profile, Registry, Script, StreamEnd},
};

use crate::{
    server::{HANG, Server},
    steps::{callable, instance, provider, settles, soon},
};

async fn registry() -> Registry {
    Registry::builder().push_delay(None).start().await.unwrap()
}

#[tokio::test]
async fn w4_the_setup_carries_the_labels_that_servers_need() {
    let registry = registry().await;
    let client = Client::builder()
        .servers(registry.addr())
        .namespace("dev")
        .app_name("shop");
    let _client = soon("connect", client.connect()).await.unwrap();
    let setup = registry.inspect(|view| view.connections().remove(0));
    assert_eq!(setup.tenant, "dev");
    assert!(
        setup.client_version.starts_with("Nacos-Rust-Client:v"),
        "{}",
        setup.client_version
    );
    let labels: BTreeMap<String, String> = [
        ("AppName", "shop"),
        ("module", "naming"),
        ("source", "sdk"),
        ("tls.enable", "false"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    assert_eq!(setup.labels, labels);
    // Sent even when empty: its presence is what asks for the acknowledgement.
    let body = registry.inspect(|view| {
        let setup = view.last_received("ConnectionSetupRequest").unwrap();
        String::from_utf8_lossy(&setup.frame.body).into_owned()
    });
    assert!(body.contains(r#""abilityTable":{"#), "{body}");
}

#[tokio::test]
async fn w5_servers_of_every_age_are_connected_to() {
    for profile in [
        Profile::V2_0,
        Profile::V2_2,
        Profile::V2_3,
        Profile::V2_5,
        Profile::V3_0,
        Profile::V3_1,
    ] {
        let registry = Registry::builder()
            .profile(profile)
            .push_delay(None)
            .start()
            .await
            .unwrap();
        registry.register("w5", &instance(1001));
        let client = soon("connect", Client::connect(registry.addr()))
            .await
            .unwrap();
        let orders = soon("subscribe", client.subscribe("w5")).await.unwrap();
        settles(&orders, &[1001]).await;
        registry.register("w5", &instance(1002));
        settles(&orders, &[1001, 1002]).await;
    }
}

#[tokio::test]
async fn w5_a_server_that_never_acknowledges_the_setup_is_left_for_the_next() {
    let (mute, sound) = (registry().await, registry().await);
    mute.script(Script::every("SetupAckRequest", Fault::Drop));
    let servers = format!("{},{}", mute.addr(), sound.addr());
    let client = Client::builder()
        .servers(servers)
        .connect_timeout(Duration::from_secs(60));
    let client = client.connect().await.unwrap();
    let ConnectionState::Connected { server } = client.state() else {
        panic!()
    };
    assert_eq!(server, sound.grpc_addr());
}

#[tokio::test]
async fn w6_every_push_is_acknowledged_even_a_broken_one() {
    let registry = registry().await;
    registry.register("w6", &instance(1001));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("w6")).await.unwrap();
    settles(&orders, &[1001]).await;
    for fault in [
        Fault::Truncate,
        Fault::BareNan,
        Fault::InvalidUtf8,
        Fault::NoServiceInfo,
    ] {
        let before = registry.inspect(|view| view.connections()[0].pushes);
        registry.script(Script::next_push(fault));
        registry.push_again("w6");
        soon(
            "the acknowledgement",
            registry.wait_until(|view| {
                let connection = &view.connections()[0];
                connection.pushes > before && connection.unacknowledged == 0
            }),
        )
        .await;
        let connection = registry.inspect(|view| view.connections().remove(0));
        assert_eq!(
            (connection.pushes, connection.refusals),
            (connection.acks, 0)
        );
        assert_eq!(callable(&orders), [1001]);
    }
    registry.register("w6", &instance(1002));
    settles(&orders, &[1001, 1002]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w7_a_detection_is_answered_while_users_code_blocks() {
    let registry = registry().await;
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("w7")).await.unwrap();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let mut changes = orders.changes();
    let listener = tokio::spawn(async move {
        changes.next().await;
        let _ = blocked.recv_timeout(HANG); // holds a worker thread
    });
    registry.register("w7", &instance(1001));
    settles(&orders, &[1001]).await;
    let conn = registry.connections()[0];
    registry.detect(conn);
    soon(
        "the answer",
        registry.wait_until(|view| view.count("ClientDetectionResponse") == 1),
    )
    .await;
    release.send(()).unwrap();
    soon("the listener", listener).await.unwrap();
    assert_eq!(registry.connections(), [conn]);
}

/// Resets the only connection of a client that knows both servers, and returns the gRPC address it
/// is connected to afterwards.
async fn reset(recommended: impl Fn(&Registry) -> Option<String>) -> (Registry, Registry, String) {
    let (first, second) = (registry().await, registry().await);
    first.register("w8", &instance(1001));
    second.register("w8", &instance(1001));
    // Connect to the first while the second is away, so that it is clear where we start.
    second.stop().await;
    let client = Client::builder().servers(format!("{},{}", first.addr(), second.addr()));
    let client = client.connect_timeout(HANG).connect().await.unwrap();
    second.resume().await.unwrap();
    let orders = soon("subscribe", client.subscribe("w8")).await.unwrap();
    settles(&orders, &[1001]).await;
    soon("register", client.register("w8-own", instance(7)))
        .await
        .unwrap();
    let old = first.connections()[0];
    let generation = orders.snapshot().entries()[0].generation();

    first.reset_connection(old, recommended(&second).as_deref());
    // The old connection is closed by us, after the new one has everything.
    soon(
        "the old connection closes",
        first.wait_until(|view| {
            view.connections()
                .iter()
                .all(|connection| connection.id != old)
        }),
    )
    .await;
    let ConnectionState::Connected { server } = client.state() else {
        panic!("not connected")
    };
    let home = if server == first.grpc_addr() {
        &first
    } else {
        &second
    };
    home.inspect(|view| {
        assert_eq!(view.subscribers("w8").len(), 1);
        assert_eq!(view.addresses("w8-own"), ["127.0.0.1:7"]);
    });
    assert_eq!(
        orders.snapshot().entries()[0].generation(),
        generation,
        "it flapped"
    );
    (first, second, server.to_string())
}

#[tokio::test]
async fn w8_a_reset_to_a_server_of_ours_goes_there() {
    let (_first, second, now) = reset(|second| Some(second.addr())).await;
    assert_eq!(now, second.grpc_addr().to_string());
}

#[tokio::test]
async fn w8_a_reset_to_a_stranger_goes_to_a_server_of_ours() {
    reset(|_| Some("192.0.2.1:8848".to_owned())).await;
}

#[tokio::test]
async fn w8_a_reset_without_advice_goes_to_a_server_of_ours() {
    reset(|_| None).await;
}

#[tokio::test]
async fn w9_each_error_code_has_its_reaction() {
    let registry = registry().await;
    registry.register("w9", &instance(1001));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();

    // 300: not in service; another server, or this one later.
    registry.script(Script::next(
        "ServerCheckRequest",
        Fault::RefuseAsError(300),
    ));
    let patient = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    assert!(patient.state().is_connected());
    drop(patient);

    // 302 and 400 are final and say so.
    for code in [302, 400] {
        registry.script(Script::next(
            "SubscribeServiceRequest",
            Fault::RefuseAsError(code),
        ));
        let error = soon("refused", client.subscribe("w9-refused"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        let others = registry.subscribers("w9-refused");
        assert!(others.is_empty());
    }

    // 403 is told to who asks for an answer.
    registry.script(Script::next("ServiceQueryRequest", Fault::Refuse(403)));
    let error = soon("denied", client.instances("w9")).await.unwrap_err();
    assert!(error.is_denied(), "{error}");

    // 500 and 503 pass: the subscription is tried again.
    for code in [500, 503] {
        registry.script(Script::next(
            "SubscribeServiceRequest",
            Fault::RefuseAsError(code),
        ));
        let orders = soon("tried again", client.subscribe("w9")).await.unwrap();
        assert_eq!(callable(&orders), [1001]);
    }

    // 301 and -401 once registered: the connection is lost; a new one carries everything.
    for code in [301, -401] {
        let orders = soon("subscribe", client.subscribe("w9")).await.unwrap();
        let before = registry.inspect(|view| view.connections().last().unwrap().id);
        registry.script(Script::next(
            "ServiceQueryRequest",
            Fault::RefuseAsError(code),
        ));
        let _ = client.instances("w9-lost").await;
        soon(
            "a new connection",
            registry.wait_until(|view| view.subscribers("w9").iter().any(|conn| *conn > before)),
        )
        .await;
        assert_eq!(callable(&orders), [1001]);
    }
}

#[tokio::test]
async fn w10_a_lost_transport_is_never_dialled_again_behind_the_stream() {
    let server = Server::embedded().await;
    let registry = server.registry();
    let _provider = provider(&server, "w10", instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("w10")).await.unwrap();
    settles(&orders, &[1001]).await;
    let conn = registry.subscribers("w10")[0];
    // The stream alone ends: unary calls on the same transport would answer 301 for ever.
    registry.end_stream(conn, StreamEnd::Clean);
    soon(
        "a new connection",
        registry.wait_until(|view| {
            let subscribers = view.subscribers("w10");
            subscribers.len() == 1 && subscribers[0] != conn
        }),
    )
    .await;
    soon(
        "the old transport closes",
        registry.wait_until(|view| {
            view.connections()
                .iter()
                .all(|connection| connection.id != conn)
        }),
    )
    .await;
    assert_eq!(callable(&orders), [1001]);
}
