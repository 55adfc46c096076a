use super::support::{balance, call, get, instance, json, kinds, now, of, service};
use crate::{
    directory::{Options, channel},
    model::{Instance, ServiceKey},
    status::StatusPage,
};

#[tokio::test]
async fn a_page_says_who_is_picked_who_is_not_and_what_happened() {
    let (mut writer, orders) = service("orders");
    let all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(instance);
    writer.publish(all.clone(), now());
    let balance = balance(&orders);
    let status = StatusPage::empty().with(&orders).with(&balance);
    call(&balance, 300).await;

    let page = json(&status, "/").await;
    let orders = of(&page["services"]["items"], "name", "orders");
    assert_eq!(
        (&orders["listed"], &orders["callable"]),
        (&3.into(), &3.into())
    );
    assert_eq!(orders["consumers"][0]["calls"], 300);
    assert_eq!(orders["revision"], orders["applied_revision"]);
    assert_eq!(
        kinds(&page),
        [""; 0],
        "what was there before did not just happen"
    );

    writer.publish([all[0].clone(), all[1].clone().with_weight(0.0)], now());
    let page = json(&status, "/?service=orders").await;
    assert_eq!(kinds(&page), ["evicted", "evicted", "pushed"]);
    let gone = of(&page["timeline"], "instance", "10.0.0.3:80");
    assert_eq!(gone["text"], "the registry lists it no longer");
    let instances = &page["service"]["instances"]["items"];
    let first = of(instances, "address", "10.0.0.1:80");
    assert_eq!(first["state"], "callable");
    let picked = &first["consumers"][0];
    assert_eq!(
        (&picked["picked"], &picked["share_wanted"]),
        (&true.into(), &1.0.into())
    );
    assert_eq!(picked["share_had"], 1.0);
    assert!(picked["calls"].as_u64().unwrap() > 50);
    let drained = of(instances, "address", "10.0.0.2:80");
    assert_eq!(drained["state"], "weight-zero");
    let why = drained["consumers"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("not picked: its weight is 0"), "{why}");

    // The same for people.
    let page = get(&status, "/?service=orders").await.text;
    for text in [
        why,
        "evicted",
        "the registry lists it no longer",
        "100.0 %",
        "10.0.0.1:80",
    ] {
        assert!(page.contains(text), "{text}");
    }
    writer.publish(all, now());
    let page = json(&status, "/").await;
    assert_eq!(kinds(&page)[0], "pushed");
    let text = page["timeline"][0]["text"].as_str().unwrap();
    assert!(
        text.contains("2 added, 0 removed") && text.contains("3 callable"),
        "{text}"
    );
}

#[tokio::test]
async fn the_timeline_keeps_the_last_200_and_one_push_does_not_fill_it() {
    let (mut writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    let many = (0..1_000).map(|n| instance(&format!("10.0.{}.{}:80", n / 250, n % 250)));
    writer.publish(many, now());
    let one = instance("10.1.0.1:80");
    writer.publish([one.clone()], now());
    let page = json(&status, "/").await;
    let texts: Vec<_> = page["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts.len(),
        1,
        "what came and went between two looks was not seen: {texts:?}"
    );
    for n in 0..300 {
        let other = instance(&format!("10.2.0.1:{}", n + 1));
        writer.publish([one.clone(), other], now());
        let _ = json(&status, "/").await;
    }
    let page = json(&status, "/").await;
    let events = page["timeline"].as_array().unwrap();
    assert_eq!(events.len(), 200);
    let numbers: Vec<_> = events
        .iter()
        .map(|e| e["number"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] == pair[1] + 1),
        "{numbers:?}"
    );

    let many: Vec<_> = (0..1_000)
        .map(|n| instance(&format!("10.0.{}.{}:80", n / 250, n % 250)))
        .collect();
    writer.publish(many, now());
    let _ = json(&status, "/").await;
    writer.publish([one], now());
    let page = json(&status, "/").await;
    let newest = &page["timeline"][0];
    assert_eq!(newest["text"], "and 980 more instances, evicted or held");
    assert_eq!(page["timeline"][21]["kind"], "pushed");
}

#[tokio::test]
async fn a_thousand_services_of_a_thousand_instances_come_in_parts() {
    let mut kept = Vec::new();
    let mut status = StatusPage::empty();
    let shared: Vec<Instance> = (0..1_000)
        .map(|n| instance(&format!("10.0.{}.{}:80", n / 250, n % 250)))
        .collect();
    for n in 0..1_000 {
        let key = ServiceKey::new("public", format!("service-{n:04}").parse().unwrap()).unwrap();
        let (mut writer, service) = channel(key, Options::default());
        writer.publish(shared.iter().cloned(), now());
        status = status.with(&service);
        kept.push((writer, service));
    }
    let page = json(&status, "/").await;
    let services = &page["services"];
    assert_eq!(
        (&services["total"], &services["pages"]),
        (&1_000.into(), &20.into())
    );
    assert_eq!(services["items"].as_array().unwrap().len(), 50);
    let last = json(&status, "/?page=9999&filter=SERVICE-01&limit=30").await;
    let services = &last["services"];
    assert_eq!(
        (&services["matching"], &services["page"], &services["pages"]),
        (&100.into(), &4.into(), &4.into())
    );
    assert_eq!(services["items"].as_array().unwrap().len(), 10);
    assert_eq!(services["items"][9]["name"], "service-0199");
    let one = json(
        &status,
        "/?service=service-0500&filter=10.0.3.&page=2&limit=200",
    )
    .await;
    let instances = &one["service"]["instances"];
    assert_eq!(
        (&instances["total"], &instances["matching"]),
        (&1_000.into(), &250.into())
    );
    assert_eq!(instances["items"].as_array().unwrap().len(), 50);
    for uri in ["/", "/?limit=1000", "/?service=service-0500&limit=1000"] {
        let page = get(&status, uri).await.text;
        assert!(page.len() < 400_000, "{uri}: {}", page.len());
    }
}

#[tokio::test]
async fn who_shares_a_service_is_told_apart() {
    let (mut writer, orders) = service("orders");
    writer.publish(
        [
            instance("10.0.0.1:80"),
            instance("10.0.0.2:80").with_cluster("b"),
        ],
        now(),
    );
    let (one, two) = (balance(&orders), balance(&orders.only_cluster("b")));
    let status = StatusPage::empty()
        .with(&one)
        .with(&two)
        .with(&one)
        .with(&orders);
    let page = json(&status, "/?service=orders").await;
    let first = of(
        &page["service"]["instances"]["items"],
        "address",
        "10.0.0.1:80",
    );
    let seen = &first["consumers"];
    assert_eq!(seen.as_array().unwrap().len(), 2);
    assert_eq!(of(seen, "consumer", "balance")["picked"], true);
    let other = of(seen, "consumer", "balance 2");
    assert_eq!(other["picked"], false);
    assert!(
        other["why"]
            .as_str()
            .unwrap()
            .contains("outside of this subscription's selection")
    );
    drop(one);
    let page = json(&status, "/").await;
    let consumers = &page["services"]["items"][0]["consumers"];
    assert_eq!(
        consumers.as_array().unwrap().len(),
        1,
        "it is kept by nobody"
    );
}
