//! A caller that calls a part of the instances has connections to no others, and none of its calls fails as
//! that part changes.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Pickable, Subset, WeightedRoundRobin},
    http::BuildHttp,
    transport::{Protocol, TransportBuilder},
};

use crate::transport::support::*;

fn subset_of(orders: &Subscription, subset: Subset, transport: TransportBuilder) -> Rotating {
    Balance::builder(orders)
        .policy(WeightedRoundRobin::new())
        .subset(subset)
        .build_http(transport.build())
}

async fn servers(n: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..n {
        servers.push(Server::start().await);
    }
    servers
}

fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

/// Whom it picks.
fn called(balance: &Rotating, servers: &[Server]) -> BTreeSet<SocketAddr> {
    let called = addresses(servers).into_iter();
    let called = called.filter(|address| balance.explain(&(*address).into()).is_pickable());
    called.collect()
}

/// Everybody who was ever connected to.
fn dialled(servers: &[Server]) -> BTreeSet<SocketAddr> {
    let dialled = |server: &&Server| server.log.connections.load(Ordering::SeqCst) > 0;
    servers.iter().filter(dialled).map(|s| s.address).collect()
}

/// That may be made twice: who dies with one of them on its connection is none of the balancer's fault.
async fn calls(balance: &Rotating, calls: usize) {
    for _ in 0..calls {
        text(balance, get("/v1")).await.unwrap();
    }
}

/// Callers that never pause, until told; how many calls failed, and why one did.
fn load(balance: &Rotating, callers: usize, until: &Arc<AtomicBool>) -> Arc<AtomicUsize> {
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..callers {
        let (balance, until) = (balance.clone(), Arc::clone(until));
        let answered = Arc::clone(&answered);
        spawn(async move {
            while !until.load(Ordering::SeqCst) {
                text(&balance, post(1, "")).await.expect("no call fails");
                answered.fetch_add(1, Ordering::SeqCst);
            }
            answered.fetch_add(FINISHED, Ordering::SeqCst);
        });
    }
    answered
}

const FINISHED: usize = 1 << 32;

async fn until_answered(answered: &AtomicUsize, more: usize) {
    let enough = answered.load(Ordering::SeqCst) + more;
    soon("answers", async {
        while answered.load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_outside_is_not_dialled_and_one_that_leaves_is_replaced_at_once() {
    let servers = servers(12).await;
    let (mut writer, orders) = registry();
    list(&mut writer, &addresses(&servers));
    let transport = builder(Protocol::Http1);
    let balance = subset_of(&orders, Subset::of(4).min(4).place(0, 6), transport);
    calls(&balance, 60).await;
    let before = called(&balance, &servers);
    assert!((3..=5).contains(&before.len()), "{before:?}");
    assert_eq!(dialled(&servers), before);
    let outside = addresses(&servers)
        .into_iter()
        .find(|a| !before.contains(a));
    let explained = balance.explain(&outside.unwrap().into());
    let expected = (before.len(), 12);
    assert!(
        matches!(explained.verdict, Pickable::OutsideSubset { called, of, .. } if (called, of) == expected),
        "{explained}"
    );
    assert!(explained.to_string().starts_with(&format!(
        "not picked: outside of this caller's subset, {} of 12",
        before.len()
    )));

    // One of them leaves while calls go on.
    let enough = Arc::new(AtomicBool::new(false));
    let answered = load(&balance, 4, &enough);
    until_answered(&answered, 50).await;
    let gone = *before.first().unwrap();
    let left: Vec<SocketAddr> = addresses(&servers)
        .into_iter()
        .filter(|a| *a != gone)
        .collect();
    list(&mut writer, &left);
    let after = called(&balance, &servers);
    assert!(!after.contains(&gone) && after.len() >= 4, "{after:?}");
    until_answered(&answered, 50).await;
    enough.store(true, Ordering::SeqCst);
    soon("the callers end", async {
        while answered.load(Ordering::SeqCst) < 4 * FINISHED {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Connections are those of the subset, and of nobody else.
    calls(&balance, 60).await;
    for server in &servers {
        if !after.contains(&server.address) {
            server.until_open(0).await;
        }
    }
    let strangers: Vec<_> = dialled(&servers)
        .difference(&(&before | &after))
        .copied()
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[tokio::test]
async fn others_stand_in_for_those_that_cannot_be_reached_and_go_when_they_are_back() {
    let mut servers = servers(10).await;
    let orders = Subscription::fixed(addresses(&servers).into_iter().map(Instance::from));
    let transport = builder(Protocol::Http1);
    let balance = subset_of(&orders, Subset::of(3).min(3).caller("web-1"), transport);
    calls(&balance, 30).await;
    let before = called(&balance, &servers);
    assert_eq!((before.len(), dialled(&servers)), (3, before.clone()));

    // Two of three die. Each call is answered, and two others are called.
    let two: Vec<SocketAddr> = before.iter().copied().take(2).collect();
    servers.retain(|server| !two.contains(&server.address));
    calls(&balance, 30).await;
    let meanwhile = called(&balance, &servers);
    assert_eq!(meanwhile.len(), 3, "{meanwhile:?}");
    assert_eq!(meanwhile.intersection(&before).count(), 1);

    // They are back: a probe finds that out, and those that stood in are left.
    for address in &two {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        servers.push(Server::on(listener, u32::MAX));
    }
    soon("they are called again", async {
        while called(&balance, &servers) != before {
            calls(&balance, 1).await;
        }
    })
    .await;
    for server in servers.iter().filter(|s| !before.contains(&s.address)) {
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn services_that_are_made_ahead_are_those_of_the_subset() {
    let servers = servers(8).await;
    let orders = Subscription::fixed(addresses(&servers).into_iter().map(Instance::from));
    let transport = builder(Protocol::Http2).warm(true);
    let balance = subset_of(&orders, Subset::of(2).caller("web-1"), transport);
    let inside = called(&balance, &servers);
    assert_eq!(inside.len(), 2);
    for server in servers.iter().filter(|s| inside.contains(&s.address)) {
        server.until_connected(1).await;
    }
    calls(&balance, 10).await;
    assert_eq!(dialled(&servers), inside);
}
