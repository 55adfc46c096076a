//! A registry's servers are told by an address server, well or badly, and change.

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    Client, Instance, Subscription,
    client::{ClientBuilder, Config, ConnectionState, StartFrom},
    directory::Status,
    testing::{AddressServer, Registry},
};

const HANG: Duration = Duration::from_secs(60);

async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    let done = timeout(HANG, future.into_future()).await;
    done.expect("nothing for a minute")
}

async fn registry() -> Registry {
    let registry = Registry::builder().push_delay(None).start();
    let registry = within(registry).await.unwrap();
    let instances = ["10.0.0.1:80", "10.0.0.2:80"].map(|text| Instance::parse(text).unwrap());
    registry.register_as("p", "orders", &instances);
    registry
}

fn asking(addresses: &AddressServer) -> ClientBuilder {
    let often = Duration::from_millis(100);
    Client::builder()
        .address_server(addresses.url())
        .address_server_interval(often)
}

async fn connected_to(client: &Client, server: SocketAddr) {
    let mut states = client.watch_state();
    let there = |state: &ConnectionState| matches!(state, ConnectionState::Connected { server: at } if *at == server);
    within(states.wait_for(there)).await.unwrap();
}

fn listed(orders: &Subscription) -> usize {
    orders.snapshot().callable_len()
}

#[tokio::test]
async fn a_client_connects_to_whom_the_address_server_lists() {
    let registry = registry().await;
    let addresses = within(AddressServer::start([registry.addr()]))
        .await
        .unwrap();
    let client = within(asking(&addresses).connect()).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    assert_eq!(listed(&orders), 2);
    assert_eq!(addresses.last_question(), "/nacos/serverlist");
    within(addresses.asked_again(3)).await;
    assert_eq!(registry.connections().len(), 1);
}

/// Whatever it says first, it is asked until it lists servers; meanwhile whoever looks sees why.
#[tokio::test]
async fn it_is_asked_until_it_answers() {
    let registry = registry().await;
    let addresses = within(AddressServer::start([""])).await.unwrap();
    for (status, body, said) in [
        (200, "", "lists no server"),
        (
            200,
            "<html>down for maintenance</html>",
            "no list of servers",
        ),
        (503, "10.0.0.9:8848", "status 503"),
        (302, "", "status 302"),
        (200, "\u{0}\u{1}", "no list of servers"),
    ] {
        addresses.answer(status, body);
        let soon = Duration::from_millis(400);
        let error = within(asking(&addresses).connect_timeout(soon).connect())
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("address server http://") && error.contains(said),
            "{error}"
        );
    }
    let client = asking(&addresses).connect_lazy().unwrap();
    let orders = client.subscribe_lazy("orders").unwrap();
    within(addresses.asked_again(3)).await;
    let why = |client: &Client| client.state().to_string();
    within(async {
        while !why(&client).contains("no list of servers") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(orders.status(), Status::Unknown);
    addresses.set_servers([registry.addr()]);
    within(orders.ready()).await.unwrap();
    assert_eq!(listed(&orders), 2);
}

#[tokio::test]
async fn a_bad_answer_changes_nothing() {
    let registry = registry().await;
    let addresses = within(AddressServer::start([registry.addr()]))
        .await
        .unwrap();
    let client = within(asking(&addresses).connect()).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    let mut states = client.watch_state();
    states.mark_unchanged();
    let connections = registry.connections();
    let long = "10.0.0.1:8848\n".repeat(10_000);
    for (status, body) in [
        (200, ""),
        (500, "10.0.0.9:8848"),
        (200, "<html><body>10.0.0.9:8848</body></html>"),
        (200, "10.0.0.9:8848\nno such"),
        (200, "10.0.0.9:0"),
        (200, &*long),
    ] {
        addresses.answer(status, body);
        within(addresses.asked_again(2)).await; // so that one is over
    }
    assert!(!states.has_changed().unwrap());
    assert_eq!(registry.connections(), connections);
    // The servers that were known are those that are tried.
    within(registry.stop()).await;
    within(states.wait_for(|state| !state.is_connected()))
        .await
        .unwrap();
    within(registry.resume()).await.unwrap();
    connected_to(&client, registry.grpc_addr()).await;
    assert_eq!(listed(&orders), 2);
}

/// It stays while its server is listed, and is left for another without a gap when it is not.
#[tokio::test]
async fn a_changed_list_moves_the_connection_only_if_its_server_is_gone() {
    let (first, second) = (registry().await, registry().await);
    let addresses = within(AddressServer::start([first.addr()])).await.unwrap();
    let client = within(asking(&addresses).connect()).await.unwrap();
    let orders = within(client.subscribe("orders")).await.unwrap();
    let connections = first.connections();
    addresses.set_servers([second.addr(), first.addr()]);
    within(addresses.asked_again(3)).await;
    assert_eq!(first.connections(), connections);
    assert!(second.connections().is_empty());

    let mut states = client.watch_state();
    states.mark_unchanged();
    let watch = async {
        let mut seen = Vec::new();
        loop {
            states.changed().await.unwrap();
            let state = states.borrow_and_update().clone();
            seen.push(state.is_connected());
            if matches!(state, ConnectionState::Connected { server } if server == second.grpc_addr())
            {
                return seen;
            }
        }
    };
    addresses.set_servers([second.addr()]);
    let seen = within(watch).await;
    assert!(
        seen.iter().all(|connected| *connected),
        "never without one: {seen:?}"
    );
    within(first.wait_until(|view| view.registered().is_empty())).await;
    within(second.wait_until(|view| !view.subscribers("orders").is_empty())).await;
    assert_eq!(listed(&orders), 2);
}

/// The registry's servers, all of which have moved, while the client has no connection.
#[tokio::test]
async fn servers_that_have_moved_are_found() {
    let (first, second) = (registry().await, registry().await);
    let addresses = within(AddressServer::start([first.addr()])).await.unwrap();
    let client = within(asking(&addresses).connect()).await.unwrap();
    within(first.stop()).await;
    addresses.set_servers([second.addr()]);
    connected_to(&client, second.grpc_addr()).await;
}

/// Servers that are given are begun with, whether the address server is there or not.
#[tokio::test]
async fn given_servers_are_begun_with() {
    let (first, second) = (registry().await, registry().await);
    let addresses = within(AddressServer::start([second.addr()])).await.unwrap();
    addresses.fall_silent();
    let client = asking(&addresses).servers(first.addr());
    let client = within(client.connect()).await.unwrap();
    connected_to(&client, first.grpc_addr()).await;
    addresses.set_servers([second.addr()]);
    connected_to(&client, second.grpc_addr()).await;
}

#[tokio::test]
async fn a_url_names_an_address_server_in_place_of_servers() {
    let registry = registry().await;
    let addresses = within(AddressServer::start([registry.addr()]))
        .await
        .unwrap();
    let at = addresses.socket_addr();
    let url = format!("nacos+http://{at}/nacos/serverlist?namespace=dev&client_name=me");
    let client = within(Client::from_url(&url)).await.unwrap();
    assert_eq!(client.namespace(), "dev");
    connected_to(&client, registry.grpc_addr()).await;
    assert_eq!(addresses.last_question(), "/nacos/serverlist?namespace=dev");

    let error = |url: &str| {
        let built = Config::from_url(url).and_then(Config::builder);
        built.map(|_| ()).unwrap_err().to_string()
    };
    assert!(error("nacos+http://jo:s3cret@a,b/x").contains("several"));
    assert!(error("nacos+http://a/x?nosuch=1").contains("nosuch"));
    assert!(error("nacos+https://a/x").contains("does not begin with nacos://"));
    assert!(error("nacos+http://jo:s3cret@:9/x").contains("address_server"));
    for url in [
        "nacos+http://jo:s3cret@a,b/x",
        "nacos+http://jo:s3cret@:9/x",
    ] {
        assert!(!error(url).contains("s3cret"));
    }
}

/// A process that starts from its cache alone asks nobody.
#[tokio::test]
async fn from_the_cache_alone_it_is_not_asked() {
    let addresses = within(AddressServer::start(["127.0.0.1:1"])).await.unwrap();
    let folder = std::env::temp_dir().join("tower-nacos-no-such-folder");
    let client = asking(&addresses)
        .cache_dir(folder)
        .start_from(StartFrom::CacheOnly);
    let client = within(client.connect()).await.unwrap();
    assert!(within(client.subscribe("orders")).await.is_err());
    within(client.close(HANG)).await.unwrap();
    assert_eq!(addresses.asked(), 0);
}
