//! `nacos://group@service@registry/path`, and services by rule.

use tower_nacos::{Client, ServiceKey, Subscription, http, testing::Registry};

use crate::{
    provider::{Provider, said},
    steps::soon,
};

/// Two registries, each with `orders` in the default group and in `billing`.
struct World {
    registries: [Registry; 2],
    here: Client,
    eu: Client,
    /// Here, here in billing, there, there in billing.
    providers: [Provider; 4],
}

impl World {
    async fn new() -> Self {
        let start = || async {
            let registry = Registry::builder().push_delay(None).start().await.unwrap();
            let client = Client::connect(registry.addr()).await.unwrap();
            (registry, client)
        };
        let ((first, here), (second, eu)) = (start().await, start().await);
        let providers = [
            Provider::start().await,
            Provider::start().await,
            Provider::start().await,
            Provider::start().await,
        ];
        first.register("orders", &providers[0].instance());
        first.register("billing@@orders", &providers[1].instance());
        second.register("orders", &providers[2].instance());
        second.register("billing@@orders", &providers[3].instance());
        Self {
            registries: [first, second],
            here,
            eu,
            providers,
        }
    }

    fn port(&self, provider: usize) -> String {
        self.providers[provider].port().to_string()
    }
}

#[tokio::test]
async fn an_address_names_group_service_and_registry() {
    let world = World::new().await;
    let http = http::Client::builder(&world.here)
        .registry("eu", &world.eu)
        .build();
    for (address, provider) in [
        ("nacos://orders/v1", 0),
        ("nacos://billing@orders/v1", 1),
        ("nacos://@orders@eu/v1", 2),
        ("nacos://billing@orders@eu/v1", 3),
        ("nacos://billing@orders@eu/v1?x=a@b@c", 3),
    ] {
        let answer = said(soon(address, http.get(address).send()).await).await;
        assert!(
            answer.starts_with(&world.port(provider)),
            "{address}: {answer}"
        );
    }
    assert_eq!(http.services().len(), 4);
    let handle = http.service_in("eu", "billing@@orders").unwrap();
    let answer = said(handle.get("/v1").await).await;
    assert!(answer.starts_with(&world.port(3)));
    assert_eq!(http.services().len(), 4);
    let resolved = soon("a call", http.get("nacos://@orders@eu/").send()).await;
    assert!(said(resolved).await.starts_with(&world.port(2)));
}

#[tokio::test]
async fn a_registry_that_is_not_known_is_told_beside_those_that_are() {
    let world = World::new().await;
    let http = http::Client::builder(&world.here)
        .registry("eu", &world.eu)
        .registry("us", &world.here)
        .build();
    let error = http
        .get("nacos://billing@orders@asia/v1")
        .await
        .unwrap_err();
    assert!(error.is_uri() && error.is_unprocessed());
    let text = error.to_string();
    assert!(
        text.contains("the registry \"asia\" after its second '@'"),
        "{text}"
    );
    assert!(text.contains("given eu, us"), "{text}");
    assert!(
        !text.contains("billing"),
        "what stands before may be a secret: {text}"
    );
    let error = http.service_in("EU", "orders").unwrap_err();
    assert!(
        error.to_string().contains("\"EU\""),
        "names are as written: {error}"
    );
    let none = http::Client::new(&world.here);
    let error = none.get("nacos://@orders@eu/").await.unwrap_err();
    assert!(error.to_string().contains("given none by name"), "{error}");
    assert!(http.services().is_empty() && none.services().is_empty());
    // A name again stands for the newer client.
    let http = http::Client::builder(&world.here)
        .registry("eu", &world.here)
        .registry("eu", &world.eu)
        .build();
    let answer = said(http.get("nacos://@orders@eu/").await).await;
    assert!(answer.starts_with(&world.port(2)));
}

#[tokio::test]
async fn a_key_of_another_namespace_goes_to_the_registry_that_has_it() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let of = |namespace: &'static str| {
        let builder = Client::builder().servers(registry.addr());
        builder.namespace(namespace).connect()
    };
    let (dev, prod) = (of("dev").await.unwrap(), of("prod").await.unwrap());
    let provider = Provider::start().await;
    prod.register("orders", provider.instance()).await.unwrap();
    let http = http::Client::builder(&dev).registry("prod", &prod).build();
    let ask = async |namespace: &str| {
        let key = ServiceKey::new(namespace, "orders".parse().unwrap()).unwrap();
        http.get("/v1").extension(key).await
    };
    let answer = said(soon("a call", ask("prod")).await).await;
    assert!(answer.starts_with(&provider.port().to_string()));
    let error = ask("test").await.unwrap_err();
    assert!(
        error.to_string().contains("HttpBuilder::registry"),
        "{error}"
    );
}

#[tokio::test]
async fn a_rule_says_what_a_service_is() {
    let world = World::new().await;
    let (near, far) = (world.here.clone(), world.eu.clone());
    let http = http::Client::builder(&world.here)
        .registry("eu", &world.eu)
        .subscribe_by(move |service| {
            let here = near.subscribe_lazy(service.service().clone())?;
            let there = far.subscribe_lazy(service.service().clone())?;
            Ok(Subscription::merge([(here, 0), (there, 0)]))
        })
        .build();
    let mut heard = std::collections::BTreeSet::new();
    soon("both", async {
        while heard.len() < 2 {
            let answer = said(http.get("nacos://billing@orders/").await).await;
            let (port, meant) = answer.split_once(' ').unwrap();
            // Whoever answers is told the name that its own registry knows.
            assert!(meant.contains("billing@@orders"), "{meant}");
            heard.insert(port.to_owned());
        }
    })
    .await;
    assert!(heard.contains(&world.port(1)) && heard.contains(&world.port(3)));
    let there = said(http.get("nacos://billing@orders@eu/").await).await;
    assert!(
        there.starts_with(&world.port(3)),
        "one that is named is that one"
    );
}

#[tokio::test]
async fn services_of_other_groups_are_told_their_own_names() {
    let world = World::new().await;
    let orders = world.here.subscribe("orders").await.unwrap();
    let billing = world.here.subscribe("billing@@orders").await.unwrap();
    let both = Subscription::merge([(&orders, 0), (&billing, 0)]);
    let http = http::Client::builder(&world.here)
        .subscribe_by(move |_| Ok(both.clone()))
        .build();
    let mut heard = std::collections::BTreeMap::new();
    soon("both", async {
        while heard.len() < 2 {
            let answer = said(http.get("nacos://any/").await).await;
            let (port, meant) = answer.split_once(' ').unwrap();
            heard.insert(port.to_owned(), meant.to_owned());
        }
    })
    .await;
    assert!(
        heard[&world.port(0)].contains("DEFAULT_GROUP@@orders"),
        "{heard:?}"
    );
    assert!(
        heard[&world.port(1)].contains("billing@@orders"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn who_goes_on_under_another_name_is_told_that_one() {
    let world = World::new().await;
    let [registry, _] = &world.registries;
    let provider = Provider::start().await;
    registry.register("old", &provider.instance());
    registry.register("new", &provider.instance());
    let old = world.here.subscribe("old").await.unwrap();
    let new = world.here.subscribe("new").await.unwrap();
    let both = Subscription::merge([(&old, 0), (&new, 1)]);
    let generation = || {
        let snapshot = both.snapshot();
        let entry = snapshot.find(provider.instance().address()).unwrap();
        entry.generation()
    };
    let merged = both.clone();
    let http = http::Client::builder(&world.here)
        .subscribe_by(move |_| Ok(merged.clone()))
        .build();
    let first = generation();
    assert!(said(http.get("nacos://any/").await).await.contains("@@old"));
    registry.deregister("old", &provider.instance().address().to_string());
    soon("the new name", async {
        while !said(http.get("nacos://any/").await).await.contains("@@new") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(generation(), first);
}
