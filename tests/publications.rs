//! What a provider is told of its registrations is so: updated in place, gone when the registry said
//! so, and else an error that names what may still be listed.

#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    Client, Instance, Weight,
    client::RequestError,
    directory::{ChangeKind, Subscription},
    testing::{Fault, Registry, Script},
};

use server::Server;

const HANG: Duration = Duration::from_secs(30);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 30 s")
}

fn instance() -> Instance {
    Instance::parse("127.0.0.1:1001").unwrap()
}

/// A registry, a provider with one registration, and who looks at it.
async fn scene(service: &str) -> (Registry, Client, Subscription) {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    within(provider.register(service, instance()))
        .await
        .unwrap();
    let consumer = Client::connect(registry.addr()).await.unwrap();
    let orders = consumer.subscribe(service).await.unwrap();
    within(orders.wait_for(1, HANG)).await.unwrap();
    (registry, provider, orders)
}

#[tokio::test]
async fn weight_and_metadata_change_in_place() {
    let (registry, provider, orders) = scene("orders").await;
    let before = orders.snapshot().entries()[0].generation();
    let mut changes = orders.changes();
    within(changes.next()).await.unwrap();
    let heavier = instance()
        .with_weight(Weight::new(5.0))
        .with_metadata([("zone", "a")].into_iter().collect());
    within(provider.register("orders", heavier.clone()))
        .await
        .unwrap();
    let change = within(changes.next()).await.unwrap();
    assert_eq!(change.kind, ChangeKind::Updated, "{change}");
    assert_eq!(change.instance.weight(), Weight::new(5.0));
    assert_eq!(change.generation, before, "nobody was evicted for it");
    // The same again is the same call: nothing is sent for it.
    let sent = registry.inspect(|view| view.count("InstanceRequest"));
    within(provider.register("orders", heavier)).await.unwrap();
    assert_eq!(registry.inspect(|view| view.count("InstanceRequest")), sent);
    // Another address is not this registration.
    let other = Instance::parse("127.0.0.1:1002").unwrap();
    let error = within(provider.register("orders", other))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::AlreadyRegistered(_)));
}

#[tokio::test]
async fn an_update_that_is_refused_leaves_the_registration_as_it_was() {
    let (registry, provider, orders) = scene("orders").await;
    registry.script(Script::next("InstanceRequest", Fault::Refuse(400)));
    let heavier = instance().with_weight(Weight::new(5.0));
    let error = within(provider.register("orders", heavier))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::Refused { code: 400, .. }));
    // Registered anew, it is what it was.
    registry.kill_all();
    // The first, the one that was refused, and the one after the loss.
    registry
        .wait_until(|view| view.count("InstanceRequest") == 3)
        .await;
    // Reads are as old as the last push, which comes half a second later.
    let listed = within(async {
        loop {
            let listing = provider.instances("orders").await.unwrap();
            if let Some(listed) = listing.instances().first() {
                return listed.clone();
            }
        }
    });
    assert_eq!(listed.await.weight(), Weight::new(1.0));
    drop(orders);
}

#[tokio::test]
async fn a_deregistration_that_nobody_heard_is_an_error_that_names_what_may_be_listed() {
    let (registry, provider, _orders) = scene("orders").await;
    registry.script(Script::every("InstanceRequest", Fault::Drop));
    let deregister = provider.deregister("orders");
    let mut deregister = std::pin::pin!(deregister);
    // It is sent, and the connection goes before it is answered.
    let lost = async {
        registry
            .wait_until(|view| view.count("InstanceRequest") == 2)
            .await;
        registry.kill_all();
    };
    let (result, ()) = within(async { tokio::join!(&mut deregister, lost) }).await;
    let error = result.unwrap_err();
    assert!(
        matches!(&error, RequestError::Unconfirmed { instances } if instances == &[instance().address().clone()])
    );
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1001") && text.contains("30 s"),
        "{text}"
    );
}

#[tokio::test]
async fn a_close_that_nobody_heard_names_what_may_be_listed() {
    let (registry, provider, _orders) = scene("orders").await;
    registry.script(Script::every("InstanceRequest", Fault::Drop));
    let lost = async {
        registry
            .wait_until(|view| view.count("InstanceRequest") == 2)
            .await;
        registry.kill_all();
    };
    let (result, ()) = within(async { tokio::join!(provider.close(HANG), lost) }).await;
    let error = result.unwrap_err();
    let left: Vec<_> = error.still_registered().iter().map(|k| k.name()).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(&**left[0], "orders");
    assert!(error.to_string().contains("30 s"), "{error}");
}

#[tokio::test]
async fn a_persistent_instance_is_not_registered_as_another_kind() {
    let (registry, provider, _orders) = scene("orders").await;
    let sent = registry.inspect(|view| view.count("InstanceRequest"));
    let error = within(provider.register("web", instance().with_ephemeral(false)))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::NotEphemeral(_)), "{error}");
    assert_eq!(registry.inspect(|view| view.count("InstanceRequest")), sent);
}

#[tokio::test]
async fn what_keeps_the_first_list_away_is_named_where_it_is_missing() {
    let registry = Registry::start().await.unwrap();
    let client = Client::connect(registry.addr()).await.unwrap();
    for fault in [Fault::Refuse(500), Fault::Refuse(503), Fault::Refuse(302)] {
        registry.clear_scripts();
        let Fault::Refuse(code) = fault else { continue };
        let service = format!("orders-{code}");
        registry.script(Script::every("SubscribeServiceRequest", fault));
        let orders = client.subscribe_lazy(&*service).unwrap();
        let named = async {
            while !orders
                .hint()
                .is_some_and(|hint| hint.contains(&code.to_string()))
            {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(HANG, named).await.is_ok(), "{code}");
    }
}

fn addresses(registry: &Registry, service: &str) -> Vec<String> {
    registry.inspect(|view| view.addresses(service))
}

#[tokio::test]
async fn a_batch_is_one_registration() {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    let at = |port| Instance::parse(&format!("127.0.0.1:{port}")).unwrap();
    let batch = [at(1001), at(1002), at(1003)];
    within(provider.register_batch("orders", batch.clone()))
        .await
        .unwrap();
    assert_eq!(addresses(&registry, "orders").len(), 3);
    let sent = registry.inspect(|view| view.count("BatchInstanceRequest"));
    within(provider.register_batch("orders", batch))
        .await
        .unwrap();
    let again = registry.inspect(|view| view.count("BatchInstanceRequest"));
    assert_eq!(again, sent, "the same again is the same call");
    // One of it is not all of it, and would end the others.
    let error = within(provider.register("orders", at(1001)))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::AlreadyRegistered(_)));
    // Another batch takes its place, and is what the next connection gets.
    within(provider.register_batch("orders", [at(1002), at(1004)]))
        .await
        .unwrap();
    registry.kill_all();
    registry
        .wait_until(|view| view.addresses("orders") == ["127.0.0.1:1002", "127.0.0.1:1004"])
        .await;
    within(provider.deregister("orders")).await.unwrap();
    assert!(addresses(&registry, "orders").is_empty());
    let error = within(provider.register_batch("orders", [])).await;
    assert!(matches!(error, Err(RequestError::EmptyBatch)));
}

#[tokio::test]
async fn a_persistent_instance_outlives_its_client_until_it_is_taken_back() {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    within(provider.register_persistent("db", instance()))
        .await
        .unwrap();
    within(provider.close(HANG)).await.unwrap();
    assert_eq!(addresses(&registry, "db"), ["127.0.0.1:1001"]);
    let other = Client::connect(registry.addr()).await.unwrap();
    let error = within(other.register("db", instance())).await.unwrap_err();
    assert!(
        matches!(error, RequestError::Refused { code: 400, .. }),
        "{error}"
    );
    within(other.deregister_persistent("db", instance()))
        .await
        .unwrap();
    assert!(addresses(&registry, "db").is_empty());
}

/// A persistent instance is the registry's: its health is what that says, whoever is connected, and
/// it is there after a restart.
#[tokio::test]
async fn a_test_says_how_well_a_persistent_instance_is() {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    let at = |port| Instance::parse(&format!("127.0.0.1:{port}")).unwrap();
    for port in [1001, 1002] {
        within(provider.register_persistent("db", at(port)))
            .await
            .unwrap();
    }
    within(provider.close(HANG)).await.unwrap();
    let consumer = Client::connect(registry.addr()).await.unwrap();
    let db = consumer.subscribe_lazy("db").unwrap();
    within(db.wait_for(2, HANG)).await.unwrap();
    assert!(!db.snapshot().entries()[0].instance().is_ephemeral());
    let mut changes = db.changes();
    for _ in 0..2 {
        within(changes.next()).await.unwrap();
    }
    for (healthy, callable) in [(false, 1), (true, 2), (false, 1)] {
        assert!(registry.set_healthy("db", "127.0.0.1:1001", healthy));
        within(changes.next()).await.unwrap();
        assert_eq!(db.snapshot().callable_len(), callable);
        assert_eq!(db.snapshot().entries().len(), 2);
    }
    registry.restart().await.unwrap();
    assert_eq!(addresses(&registry, "db").len(), 2);
    let again = Client::connect(registry.addr()).await.unwrap();
    let db = within(again.subscribe("db")).await.unwrap();
    assert_eq!(
        (db.snapshot().callable_len(), db.snapshot().entries().len()),
        (1, 2)
    );
}

/// It is `127.0.0.1` here, since that is where the connection to the registry leaves from.
#[tokio::test]
async fn an_address_that_is_left_to_be_found_is_this_machines() {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    within(provider.register("orders", Instance::on_port(1001)))
        .await
        .unwrap();
    let loopback = || Instance::in_network("127.0.0.0/8".parse().unwrap(), 1003);
    let batch = [Instance::on_port(1002), loopback()];
    within(provider.register_batch("several", batch))
        .await
        .unwrap();
    within(provider.register_persistent("kept", Instance::on_interface("lo", 1004)))
        .await
        .unwrap();
    let listed = |service| {
        let ours = |view: &tower_nacos::testing::View<'_>| view.addresses(service);
        registry.inspect(ours)
    };
    assert_eq!(listed("orders"), ["127.0.0.1:1001"]);
    assert_eq!(listed("several"), ["127.0.0.1:1002", "127.0.0.1:1003"]);
    assert_eq!(listed("kept"), ["127.0.0.1:1004"]);
    // In place, by whichever name.
    for heavier in [Instance::on_port(1001), instance()] {
        let heavier = heavier.with_weight(Weight::new(5.0));
        within(provider.register("orders", heavier)).await.unwrap();
    }
    assert_eq!(listed("orders"), ["127.0.0.1:1001"]);
    within(provider.deregister_persistent("kept", Instance::on_interface("lo", 1004)))
        .await
        .unwrap();
    assert!(listed("kept").is_empty());
}

#[tokio::test]
async fn an_address_that_is_nowhere_is_an_error_that_says_what_there_is() {
    let registry = Registry::start().await.unwrap();
    let provider = Client::connect(registry.addr()).await.unwrap();
    for (instance, named) in [
        (Instance::on_interface("nosuch0", 1001), "nosuch0"),
        (
            Instance::in_network("198.51.100.0/24".parse().unwrap(), 1001),
            "198.51.100.0/24",
        ),
    ] {
        let error = within(provider.register("orders", instance))
            .await
            .unwrap_err();
        assert!(
            matches!(error, RequestError::NoOwnAddress { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(named) && text.contains("it has"), "{text}");
    }
    let error = within(provider.register("orders", Instance::on_port(0)))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::NoPort(_)), "{error:?}");
    assert_eq!(registry.inspect(|view| view.count("InstanceRequest")), 0);
}

#[tokio::test]
async fn an_address_is_found_when_the_registry_is() {
    let registry = Registry::start().await.unwrap();
    registry.stop().await;
    let provider = Client::builder()
        .servers(registry.addr())
        .call_timeout(Duration::from_millis(1))
        .connect_lazy()
        .unwrap();
    let error = within(provider.register("orders", Instance::on_port(1001)))
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    registry.restart().await.unwrap();
    registry
        .wait_until(|view| view.addresses("orders") == ["127.0.0.1:1001"])
        .await;
}

/// The registry looks after persistent instances by itself.
#[tokio::test]
async fn a_persistent_instance_whose_port_closes_is_unhealthy_until_it_opens() {
    let registry = Registry::builder()
        .push_delay(None)
        .tcp_checks(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::connect(registry.addr()).await.unwrap();
    within(client.register_persistent("orders", address.into()))
        .await
        .unwrap();
    let orders = client.subscribe("orders").await.unwrap();
    within(orders.wait_for(1, HANG)).await.unwrap();
    let mut changes = orders.changes();
    let is_healthy = |orders: &Subscription| {
        let snapshot = orders.snapshot();
        snapshot.entries()[0].instance().is_healthy()
    };
    assert!(is_healthy(&orders));
    drop(listener);
    within(async {
        while is_healthy(&orders) {
            changes.next().await.unwrap();
        }
    })
    .await;
    let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
    within(async {
        while !is_healthy(&orders) {
            changes.next().await.unwrap();
        }
    })
    .await;
    within(client.deregister_persistent("orders", address.into()))
        .await
        .unwrap();
}

/// A batch takes the place of the one before, whole, and a deregistration ends all of it.
async fn what_a_batch_had_is_gone_with_it(server: Server) {
    let provider = within(server.client()).await;
    let consumer = within(server.client()).await;
    let orders = consumer.subscribe_lazy("batches").unwrap();
    let at = |port| Instance::parse(&format!("127.0.0.1:{port}")).unwrap();
    let lists = async |ports: &[u16]| {
        let mut changes = orders.changes();
        let listed = async {
            loop {
                let snapshot = orders.snapshot();
                let seen: Vec<_> = snapshot
                    .callable()
                    .map(|e| e.instance().address().port())
                    .collect();
                if seen == ports {
                    return;
                }
                let change = timeout(HANG, changes.next()).await;
                let Ok(Some(_)) = change else {
                    panic!("{seen:?} in place of {ports:?}")
                };
            }
        };
        listed.await;
    };
    let publish = async |ports: &[u16]| {
        let batch = ports.iter().map(|port| at(*port));
        within(provider.register_batch("batches", batch))
            .await
            .unwrap();
    };
    publish(&[1001, 1002, 1003]).await;
    lists(&[1001, 1002, 1003]).await;
    let before = orders.snapshot().entries()[1].generation();
    publish(&[1002, 1004]).await;
    lists(&[1002, 1004]).await;
    let stayed = orders.snapshot().entries()[0].generation();
    assert_eq!(stayed, before, "who stays is never gone");
    publish(&[1004]).await;
    lists(&[1004]).await;
    publish(&[1005, 1006]).await;
    lists(&[1005, 1006]).await;
    within(provider.deregister("batches")).await.unwrap();
    lists(&[]).await;
    publish(&[1007, 1008]).await;
    lists(&[1007, 1008]).await;
    within(provider.close(HANG)).await.unwrap();
    lists(&[]).await;
}

#[tokio::test]
async fn what_a_batch_had_is_gone_with_it_from_the_embedded_registry() {
    what_a_batch_had_is_gone_with_it(Server::embedded().await).await;
}

#[tokio::test]
async fn what_a_batch_had_is_gone_with_it_from_rnacos() {
    if let Some(server) = Server::rnacos().await {
        what_a_batch_had_is_gone_with_it(server).await;
    }
}

#[tokio::test]
async fn what_a_batch_had_is_gone_with_it_from_nacos_3_1_0() {
    if let Some(server) = Server::shared_nacos("3.1.0").await {
        what_a_batch_had_is_gone_with_it(server).await;
    }
}

#[tokio::test]
async fn what_a_batch_had_is_gone_with_it_from_nacos_2_2_4() {
    if let Some(server) = Server::shared_nacos("2.2.4").await {
        what_a_batch_had_is_gone_with_it(server).await;
    }
}
