//! D1 to D15: what a subscriber sees.

use tower_nacos::{
    client::Client,
    directory::{ChangeKind, RemovalCause, Standing, Status},
    model::{Instance, Listing, Weight},
};

use crate::{
    on_every_server,
    server::Server,
    steps::{added, address, callable, change, instance, provider, removed, settles, soon},
};

on_every_server! {
    d1_the_first_answer_is_the_initial_set,
    d2_an_instance_that_comes_changes_and_goes_is_seen_to,
    d3_the_last_instance_leaves_an_empty_set,
    d11_a_selection_is_made_on_this_side,
    d12_groups_and_namespaces_are_apart,
    d13_a_late_subscriber_gets_the_current_set,
    d14_dropping_one_handle_blinds_no_other,
    d15_an_unknown_service_is_empty_and_may_appear,
    a_second_registration_in_one_service_is_refused_with_the_reason,
    an_address_that_is_left_to_be_found_is_this_machines,
    a_name_of_512_letters_of_two_bytes_is_a_name,
    a_list_can_be_read_without_subscribing,
    closing_deregisters,
    dropping_the_client_deregisters;
    operated:
    d4_disabled_by_an_operator_is_a_removal,
    d5_a_new_weight_changes_in_place,
    d6_weight_0_is_listed_and_not_callable,
}

async fn d1_the_first_answer_is_the_initial_set(server: Server) {
    let _a = provider(&server, "d1", instance(1001)).await;
    let _b = provider(&server, "d1", instance(1002)).await;
    // A server may serve reads from its last push: wait until both are listed.
    let first = server.client().await;
    settles(
        &soon("subscribe", first.subscribe("d1")).await.unwrap(),
        &[1001, 1002],
    )
    .await;

    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d1")).await.unwrap();
    assert_eq!(callable(&orders), [1001, 1002]);
    assert_eq!(orders.status(), Status::Fresh);
}

async fn d2_an_instance_that_comes_changes_and_goes_is_seen_to(server: Server) {
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d2")).await.unwrap();
    let mut changes = orders.changes();
    let first = instance(1001).with_metadata([("zone", "a")].into_iter().collect());
    let a = provider(&server, "d2", first.clone()).await;
    let came = added(&mut changes, 1001).await;
    assert_eq!(came.instance.metadata().get("zone"), Some("a"));

    soon("deregister", a.deregister("d2")).await.unwrap();
    let gone = removed(&mut changes, 1001).await;
    assert_eq!(gone.cause(), Some(RemovalCause::GoneFromList));
    assert!(gone.revision > came.revision);

    let second = first.with_metadata([("zone", "b")].into_iter().collect());
    soon("register", a.register("d2", second)).await.unwrap();
    let back = added(&mut changes, 1001).await;
    assert_eq!(back.instance.metadata().get("zone"), Some("b"));
    assert!(back.generation > came.generation);
}

async fn d3_the_last_instance_leaves_an_empty_set(server: Server) {
    let a = provider(&server, "d3", instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d3")).await.unwrap();
    settles(&orders, &[1001]).await;
    soon("deregister", a.deregister("d3")).await.unwrap();
    settles(&orders, &[]).await;
    assert!(orders.snapshot().is_known());
}

async fn d4_disabled_by_an_operator_is_a_removal(server: Server) {
    let _a = provider(&server, "d4", instance(1001)).await;
    let _b = provider(&server, "d4", instance(1002)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d4")).await.unwrap();
    settles(&orders, &[1001, 1002]).await;
    let mut changes = orders.changes();
    server
        .operate("d4", &address(1001), "enabled=false&weight=1")
        .await;
    removed(&mut changes, 1001).await;
    assert_eq!(callable(&orders), [1002]);
    server
        .operate("d4", &address(1001), "enabled=true&weight=1")
        .await;
    added(&mut changes, 1001).await;
}

async fn d5_a_new_weight_changes_in_place(server: Server) {
    let _a = provider(&server, "d5", instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d5")).await.unwrap();
    settles(&orders, &[1001]).await;
    let mut changes = orders.changes();
    let came = added(&mut changes, 1001).await;
    server
        .operate("d5", &address(1001), "weight=7&enabled=true")
        .await;
    let heavier = change(&mut changes, "a new weight", |c| {
        c.kind == ChangeKind::Updated && c.instance.weight() == Weight::new(7.0)
    })
    .await;
    assert_eq!(heavier.generation, came.generation);
}

async fn d6_weight_0_is_listed_and_not_callable(server: Server) {
    let _a = provider(&server, "d6", instance(1001)).await;
    let _b = provider(&server, "d6", instance(1002)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d6")).await.unwrap();
    settles(&orders, &[1001, 1002]).await;
    let mut changes = orders.changes();
    let came = added(&mut changes, 1001).await;
    server
        .operate("d6", &address(1001), "weight=0&enabled=true")
        .await;
    assert_eq!(
        removed(&mut changes, 1001).await.cause(),
        Some(RemovalCause::WeightZero)
    );
    let snapshot = orders.snapshot();
    let entry = snapshot.find(&address(1001)).expect("it is still listed");
    assert_eq!(entry.standing(), Standing::WeightZero);
    assert!(
        orders
            .explain(&address(1001))
            .to_string()
            .contains("its weight is 0")
    );
    server
        .operate("d6", &address(1001), "weight=3&enabled=true")
        .await;
    assert_eq!(
        added(&mut changes, 1001).await.generation,
        came.generation,
        "it never left"
    );
}

async fn d11_a_selection_is_made_on_this_side(server: Server) {
    let in_hz = instance(1001).with_cluster("HZ");
    let in_sh = instance(1002).with_cluster("SH");
    let hz = provider(&server, "d11", in_hz).await;
    let _sh = provider(&server, "d11", in_sh.clone()).await;
    let client = server.client().await;
    let all = soon("subscribe", client.subscribe("d11")).await.unwrap();
    let only_hz = all.only_cluster("HZ");
    settles(&all, &[1001, 1002]).await;
    settles(&only_hz, &[1001]).await;
    assert!(
        only_hz
            .explain(&address(1002))
            .to_string()
            .contains("outside of this subscription")
    );
    soon("deregister", hz.deregister("d11")).await.unwrap();
    settles(&only_hz, &[]).await; // a selection never falls back
    assert_eq!(callable(&all), [1002]);
}

async fn d12_groups_and_namespaces_are_apart(server: Server) {
    let _default = provider(&server, "d12", instance(1001)).await;
    let _grouped = provider(&server, "other@@d12", instance(1002)).await;
    let dev = soon("connect", server.builder().namespace("dev").connect())
        .await
        .unwrap();
    soon("register", dev.register("d12", instance(1003)))
        .await
        .unwrap();
    let client = server.client().await;
    let default = soon("subscribe", client.subscribe("d12")).await.unwrap();
    let grouped = soon("subscribe", client.subscribe("other@@d12"))
        .await
        .unwrap();
    let elsewhere = soon("subscribe", dev.subscribe("d12")).await.unwrap();
    settles(&default, &[1001]).await;
    settles(&grouped, &[1002]).await;
    settles(&elsewhere, &[1003]).await;
    soon("deregister", dev.deregister("d12")).await.unwrap();
    settles(&elsewhere, &[]).await;
    assert_eq!(
        (callable(&default), callable(&grouped)),
        (vec![1001], vec![1002])
    );
}

async fn d13_a_late_subscriber_gets_the_current_set(server: Server) {
    let _a = provider(&server, "d13", instance(1001)).await;
    let client = server.client().await;
    let early = soon("subscribe", client.subscribe("d13")).await.unwrap();
    settles(&early, &[1001]).await;
    let late = soon("subscribe", client.subscribe("d13")).await.unwrap();
    assert_eq!(callable(&late), [1001]);
    added(&mut late.changes(), 1001).await;
}

async fn d14_dropping_one_handle_blinds_no_other(server: Server) {
    let client = server.client().await;
    let one = soon("subscribe", client.subscribe("d14")).await.unwrap();
    let two = soon("subscribe", client.subscribe("d14")).await.unwrap();
    drop(one);
    let a = provider(&server, "d14", instance(1001)).await;
    settles(&two, &[1001]).await;
    drop(two);
    let again = soon("subscribe", client.subscribe("d14")).await.unwrap();
    settles(&again, &[1001]).await;
    soon("deregister", a.deregister("d14")).await.unwrap();
    settles(&again, &[]).await;
}

async fn d15_an_unknown_service_is_empty_and_may_appear(server: Server) {
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe("d15")).await.unwrap();
    assert!(callable(&orders).is_empty());
    let _a = provider(&server, "d15", instance(1001)).await;
    settles(&orders, &[1001]).await;
}

async fn a_second_registration_in_one_service_is_refused_with_the_reason(server: Server) {
    let client = provider(&server, "second", instance(1001)).await;
    let error = soon("register", client.register("second", instance(1002)))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("already registers 127.0.0.1:1001"),
        "{error}"
    );
    soon("register", client.register("another", instance(1002)))
        .await
        .unwrap();
    let error = soon("deregister", client.deregister("third"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("registers nothing"), "{error}");
}

async fn an_address_that_is_left_to_be_found_is_this_machines(server: Server) {
    let provider = provider(&server, "own", Instance::on_port(1001)).await;
    let own = soon("subscribe", provider.subscribe("own")).await.unwrap();
    settles(&own, &[1001]).await;
    let snapshot = own.snapshot();
    let ip = snapshot.entries()[0].instance().address().host().ip();
    assert!(ip.is_some_and(|ip| !ip.is_unspecified()), "{ip:?}");
    let heavier = Instance::on_port(1001).with_weight(5.0);
    soon("register", provider.register("own", heavier))
        .await
        .unwrap();
    soon("deregister", provider.deregister("own"))
        .await
        .unwrap();
    settles(&own, &[]).await;
}

/// As long as a name may be, which servers count in characters: 1,024 bytes here.
async fn a_name_of_512_letters_of_two_bytes_is_a_name(server: Server) {
    let name = "\u{436}".repeat(512);
    let _provider = provider(&server, &name, instance(1001)).await;
    let client = server.client().await;
    let orders = soon("subscribe", client.subscribe(&*name)).await.unwrap();
    settles(&orders, &[1001]).await;
    let error = soon("subscribe", client.subscribe(&*format!("{name}a")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("1 to 512"), "{error}");
}

async fn a_list_can_be_read_without_subscribing(server: Server) {
    let provider = provider(&server, "read", instance(1001)).await;
    let watch = soon("subscribe", provider.subscribe("read")).await.unwrap();
    settles(&watch, &[1001]).await;
    let client = server.client().await;
    let listing: Listing = soon("read", client.instances("read")).await.unwrap();
    assert_eq!(*listing.instances()[0].address(), address(1001));
}

async fn closing_deregisters(server: Server) {
    let a = provider(&server, "close", instance(1001)).await;
    let client: Client = server.client().await;
    let orders = soon("subscribe", client.subscribe("close")).await.unwrap();
    settles(&orders, &[1001]).await;
    soon("close", a.close(std::time::Duration::from_secs(5)))
        .await
        .unwrap();
    settles(&orders, &[]).await;
    let error = soon("register", a.register("close", instance(1001)))
        .await
        .unwrap_err();
    assert!(error.is_closed(), "{error}");
    soon("close twice", a.close(std::time::Duration::from_secs(5)))
        .await
        .unwrap();
}

async fn dropping_the_client_deregisters(server: Server) {
    let a = provider(&server, "drop", instance(1001)).await;
    // It subscribes as well: subscriptions outlive the client, registrations do not.
    let orders = soon("subscribe", a.subscribe("drop")).await.unwrap();
    settles(&orders, &[1001]).await;
    drop(a);
    settles(&orders, &[]).await;
}
