//! The example `mirror`, between every two kinds of registry.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

#[path = "../examples/mirror/arguments.rs"]
#[allow(dead_code, reason = "the program's; its own tests are what runs here")]
mod arguments;
#[path = "../examples/mirror/mirror.rs"]
#[allow(dead_code, reason = "the program's; this uses a part")]
mod mirror;
#[path = "../examples/mirror/retries.rs"]
mod retries;
#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;
#[path = "../examples/mirror/service.rs"]
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::try_join_all};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tower_nacos::{
    Client, Weight,
    client::RequestError,
    directory::Subscription,
    model::{Instance, Metadata, ServiceFilter},
    testing::{Fault, Profile, Registry, Script},
};

use mirror::Mirror;
use server::{HANG, Server};
use service::MIRRORED_FROM;

/// Awaits something that a sound mirror brings in time.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

/// Waits until that is what the target lists of the service that is mirrored.
async fn lists(target: &Registry, what: &str, wanted: &[&str]) {
    let listed = target.wait_until(|view| view.addresses("shop@@orders") == wanted);
    soon(what, listed).await;
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

/// A mirror that runs.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RequestError>>,
    from: Client,
    to: Client,
}

/// Mirrors the group `shop`. Pages are read often enough for a test.
async fn mirror(from: &str, to: &str, origin: &str) -> Running {
    mirror_within(HANG, "shop", from, to, origin).await
}

/// One of that group, whose target has to answer within `patience`.
async fn mirror_within(
    patience: Duration,
    group: &'static str,
    from: &str,
    to: &str,
    origin: &str,
) -> Running {
    let connect = async |server: &str, patience: Duration| {
        let builder = Client::builder()
            .servers(server)
            .request_timeout(patience)
            .services_interval(Duration::from_secs(1));
        soon("connect", builder.connect()).await.unwrap()
    };
    let (from, to) = (connect(from, HANG).await, connect(to, patience).await);
    let (stop, stopped) = oneshot::channel();
    let mirror = Mirror::new(from.clone(), to.clone(), origin, Duration::from_millis(100));
    let task = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        mirror.run(&[ServiceFilter::group(group)], stop).await
    });
    Running {
        stop,
        task,
        from,
        to,
    }
}

impl Running {
    /// As the program ends it.
    async fn end(self) {
        drop(self.stop);
        soon("the end", self.task).await.unwrap().unwrap();
        soon("close", self.to.close(HANG)).await.unwrap();
        soon("close", self.from.close(HANG)).await.unwrap();
    }
}

/// What a caller of the target sees: an address, its weight, and a metadata pair or none.
type Seen<'a> = (&'a str, f64, Option<&'a str>);

async fn until(orders: &Subscription, what: &str, wanted: &[Seen<'_>]) {
    let mut changes = orders.changes();
    soon(what, async {
        loop {
            let snapshot = orders.snapshot();
            let seen = snapshot.callable().map(|entry| {
                let instance = entry.instance();
                let of = |key| instance.metadata().get(key);
                let address = instance.address().to_string();
                (
                    address,
                    instance.weight().get(),
                    of("zone").map(str::to_owned),
                )
            });
            let seen: Vec<_> = seen.collect();
            let seen = seen
                .iter()
                .map(|(address, weight, zone)| (&**address, *weight, zone.as_deref()));
            if seen.eq(wanted.iter().copied()) {
                return;
            }
            changes.next().await.expect("the client is there");
        }
    })
    .await;
}

fn zone(zone: &'static str) -> Metadata {
    [("zone", zone)].into_iter().collect()
}

/// Everything that a provider of the source does is seen in the target. Each test has a group of its own: a genuine
/// server is the target of one and the source of another at the same time.
async fn the_target_follows(group: &'static str, source: Server, target: Server) {
    let service = &*format!("{group}@@mirrored");
    let (provider, other) = (source.client().await, source.client().await);
    let caller = target.client().await;
    let register = async |provider: &Client, instance: Instance| {
        let registered = provider.register(service, instance);
        soon("register", registered).await.unwrap();
    };
    register(&provider, instance(1001)).await;
    let mirror = mirror_within(HANG, group, &source.addr(), &target.addr(), "here").await;
    let orders = caller.subscribe_lazy(service).unwrap();
    until(&orders, "what was there", &[("127.0.0.1:1001", 1.0, None)]).await;
    let snapshot = orders.snapshot();
    let copy = snapshot.entries()[0].instance();
    assert_eq!(copy.metadata().get(MIRRORED_FROM), Some("here"));
    let one = instance(1001);
    let heavier = one.with_weight(Weight::new(3.0)).with_metadata(zone("a"));
    register(&provider, heavier).await;
    until(&orders, "a change", &[("127.0.0.1:1001", 3.0, Some("a"))]).await;
    register(&other, instance(1002).with_metadata(zone("b"))).await;
    let both = [
        ("127.0.0.1:1001", 3.0, Some("a")),
        ("127.0.0.1:1002", 1.0, Some("b")),
    ];
    until(&orders, "one more", &both).await;
    soon("deregister", provider.deregister(service))
        .await
        .unwrap();
    until(&orders, "one less", &both[1..]).await;
    soon("deregister", other.deregister(service)).await.unwrap();
    until(&orders, "none", &[]).await;
    register(&provider, instance(1003)).await;
    until(&orders, "and again", &[("127.0.0.1:1003", 1.0, None)]).await;
    mirror.end().await;
    until(&orders, "the mirror's end", &[]).await;
}

async fn embedded(profile: Profile) -> Registry {
    let builder = Registry::builder().profile(profile).push_delay(None);
    soon("start", builder.start()).await.unwrap()
}

#[tokio::test]
async fn embedded_in_embedded() {
    for profile in [Profile::V2_5, Profile::V3_1] {
        let source = Server::Embedded(embedded(profile).await);
        the_target_follows("embedded-in-embedded", source, Server::embedded().await).await;
    }
}

#[tokio::test]
async fn rnacos_in_embedded() {
    if let Some(source) = Server::rnacos().await {
        the_target_follows("rnacos-in-embedded", source, Server::embedded().await).await;
    }
}

#[tokio::test]
async fn embedded_in_rnacos() {
    if let Some(target) = Server::rnacos().await {
        the_target_follows("embedded-in-rnacos", Server::embedded().await, target).await;
    }
}

#[tokio::test]
async fn rnacos_in_nacos_3_1_0() {
    if let (Some(source), Some(target)) =
        (Server::rnacos().await, Server::shared_nacos("3.1.0").await)
    {
        the_target_follows("rnacos-in-nacos-3-1-0", source, target).await;
    }
}

#[tokio::test]
async fn nacos_3_1_0_in_nacos_2_2_4() {
    if let (Some(source), Some(target)) = (
        Server::shared_nacos("3.1.0").await,
        Server::shared_nacos("2.2.4").await,
    ) {
        the_target_follows("nacos-3-1-0-in-nacos-2-2-4", source, target).await;
    }
}

/// Health and a weight of 0 are what callers make of them: nobody may call it, so it is not there.
#[tokio::test]
async fn who_may_not_be_called_is_not_mirrored() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    source.register("shop@@orders", &instance(1001));
    source.register("shop@@orders", &instance(1002));
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let both = ["127.0.0.1:1001", "127.0.0.1:1002"];
    lists(&target, "both", &both).await;
    source.set_healthy("shop@@orders", both[0], false);
    lists(&target, "one is unhealthy", &both[1..]).await;
    source.set_healthy("shop@@orders", both[0], true);
    lists(&target, "it is well", &both).await;
    source.set_weight("shop@@orders", both[1], 0.0);
    lists(&target, "one is drained", &both[..1]).await;
    // Nobody is well: all are called all the same, in the target, too.
    source.set_healthy("shop@@orders", both[0], false);
    let caller = Client::connect(target.addr()).await.unwrap();
    let orders = caller.subscribe("shop@@orders").await.unwrap();
    let mut changes = orders.changes();
    soon("unhealthy", async {
        while orders
            .snapshot()
            .callable()
            .all(|e| e.instance().is_healthy())
        {
            changes.next().await.unwrap();
        }
    })
    .await;
    assert_eq!(orders.snapshot().callable_len(), 1);
    mirror.end().await;
}

#[tokio::test]
async fn a_source_that_comes_back_empty_takes_nothing_away() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    for port in 1001..1004 {
        source.register("shop@@orders", &instance(port));
    }
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let caller = Client::connect(target.addr()).await.unwrap();
    let orders = caller.subscribe_lazy("shop@@orders").unwrap();
    soon("all", orders.wait_for(3, HANG)).await.unwrap();
    let mut changes = orders.changes();
    for _ in 0..3 {
        changes.next().await.unwrap();
    }
    soon("restart", source.restart()).await.unwrap();
    // What comes after the restart is there, so the mirror has seen the source without the others.
    source.register("shop@@users", &instance(1009));
    let listed = target.wait_until(|view| !view.addresses("shop@@users").is_empty());
    soon("the restarted source", listed).await;
    assert_eq!(
        target.inspect(|view| view.addresses("shop@@orders").len()),
        3
    );
    let change = changes.next().now_or_never();
    assert!(change.is_none(), "{change:?}");
    mirror.end().await;
}

#[tokio::test]
async fn a_target_that_comes_back_empty_is_told_again() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    for service in 0..20 {
        for port in 1001..1004 {
            source.register(format!("shop@@order-{service}"), &instance(port));
        }
    }
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let all = |view: &tower_nacos::testing::View<'_>| {
        (0..20).all(|service| view.addresses(format!("shop@@order-{service}")).len() == 3)
    };
    soon("all", target.wait_until(all)).await;
    soon("stop", target.stop()).await;
    // What happens meanwhile is not lost.
    source.deregister("shop@@order-0", "127.0.0.1:1001");
    source.register("shop@@order-0", &instance(1008));
    source.register("shop@@users", &instance(1009));
    soon("resume", target.resume()).await.unwrap();
    let told = |view: &tower_nacos::testing::View<'_>| {
        let first = ["127.0.0.1:1002", "127.0.0.1:1003", "127.0.0.1:1008"];
        all(view)
            && view.addresses("shop@@order-0") == first
            && view.addresses("shop@@users").len() == 1
    };
    soon("all again", target.wait_until(told)).await;
    mirror.end().await;
}

/// Waits until each mirror has done what came before now, and what the other made of that.
async fn one_lap(a: &Registry, b: &Registry, lap: u16) {
    for (n, (from, to)) in [(a, b), (b, a), (a, b), (b, a)].into_iter().enumerate() {
        let service = format!("shop@@lap-{lap}-{n}");
        from.register(&*service, &instance(2001));
        let listed = to.wait_until(|view| !view.addresses(&*service).is_empty());
        soon("a lap", listed).await;
    }
}

#[tokio::test]
async fn mirrors_in_opposite_directions_do_not_feed_each_other() {
    let (a, b) = (embedded(Profile::V3_1).await, embedded(Profile::V3_1).await);
    let forth = mirror(&a.addr(), &b.addr(), "a").await;
    let back = mirror(&b.addr(), &a.addr(), "b").await;
    a.register("shop@@orders", &instance(1001));
    b.register("shop@@orders", &instance(1002));
    let both = ["127.0.0.1:1001", "127.0.0.1:1002"];
    for registry in [&a, &b] {
        let listed = registry.wait_until(|view| view.addresses("shop@@orders") == both);
        soon("both in both", listed).await;
    }
    a.deregister("shop@@orders", both[0]);
    one_lap(&a, &b, 1).await;
    for registry in [&a, &b] {
        assert_eq!(
            registry.inspect(|view| view.addresses("shop@@orders")),
            both[1..]
        );
    }
    b.deregister("shop@@orders", both[1]);
    one_lap(&a, &b, 2).await;
    for registry in [&a, &b] {
        let left = registry.inspect(|view| view.addresses("shop@@orders"));
        assert!(left.is_empty(), "{left:?}");
    }
    tokio::join!(forth.end(), back.end());
}

/// A provider on its way from one registry to the other is in both for a while.
#[tokio::test]
async fn who_is_in_the_target_by_itself_is_not_mirrored() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    source.register("shop@@orders", &instance(1001));
    source.register("shop@@orders", &instance(1002));
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let caller = Client::connect(target.addr()).await.unwrap();
    let orders = caller.subscribe_lazy("shop@@orders").unwrap();
    soon("both", orders.wait_for(2, HANG)).await.unwrap();
    target.register(
        "shop@@orders",
        &instance(1001).with_metadata(zone("itself")),
    );
    // It is listed twice until the mirror has seen that; then its own is what is left.
    let moved = [
        ("127.0.0.1:1001", 1.0, Some("itself")),
        ("127.0.0.1:1002", 1.0, None),
    ];
    until(&orders, "moved", &moved).await;
    let once = target.wait_until(|view| view.addresses("shop@@orders").len() == 2);
    soon("once", once).await;
    // And back: it leaves the target, and is in the source still.
    target.deregister("shop@@orders", "127.0.0.1:1001");
    let back = [("127.0.0.1:1001", 1.0, None), ("127.0.0.1:1002", 1.0, None)];
    until(&orders, "mirrored again", &back).await;
    mirror.end().await;
}

#[tokio::test]
async fn what_the_target_refuses_is_told_again() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    for fault in [Fault::Refuse(400), Fault::Refuse(403)] {
        target.script(Script::next("InstanceRequest", fault));
    }
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    source.register("shop@@orders", &instance(1001));
    let listed = target.wait_until(|view| view.addresses("shop@@orders").len() == 1);
    soon("listed at last", listed).await;
    target.script(Script::next("BatchInstanceRequest", Fault::Refuse(400)));
    source.register("shop@@orders", &instance(1002));
    let listed = target.wait_until(|view| view.addresses("shop@@orders").len() == 2);
    soon("both at last", listed).await;
    mirror.end().await;
    assert!(target.inspect(|view| view.addresses("shop@@orders").is_empty()));
}

/// A registration refuses an address that nobody can call; those beside it are not held up by that.
#[tokio::test]
async fn who_cannot_be_registered_holds_nobody_up() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    let unfit = ["169.254.3.4:1", "0.0.0.0:1", "224.0.0.1:1", "[fe80::1]:1"];
    for address in unfit {
        let it = Instance::parse(address).unwrap();
        source.register("shop@@orders", &it);
        source.register("shop@@nobody", &it);
    }
    source.register("shop@@orders", &instance(1001));
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let both = ["127.0.0.1:1001", "127.0.0.1:1002"];
    lists(&target, "one", &both[..1]).await;
    source.register("shop@@orders", &instance(1002));
    lists(&target, "both", &both).await;
    source.deregister("shop@@orders", both[0]);
    lists(&target, "one left", &both[1..]).await;
    for address in unfit {
        source.deregister("shop@@orders", address);
    }
    source.deregister("shop@@orders", both[1]);
    lists(&target, "none", &[]).await;
    source.register("shop@@orders", &Instance::parse(unfit[0]).unwrap());
    source.register("shop@@orders", &instance(1001));
    lists(&target, "again", &both[..1]).await;
    assert!(target.inspect(|view| view.addresses("shop@@nobody").is_empty()));
    mirror.end().await;
}

/// A target that will not have one more is told who left all the same.
#[tokio::test]
async fn who_left_is_withdrawn_whatever_else_is_refused() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let all = ["127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003"];
    source.register("shop@@orders", &instance(1001));
    source.register("shop@@orders", &instance(1002));
    lists(&target, "two", &all[..2]).await;
    // Of one it is another request.
    target.script(Script::every("BatchInstanceRequest", Fault::Refuse(400)));
    source.register("shop@@orders", &instance(1003));
    source.register("shop@@orders", &instance(1004));
    let asked = target.inspect(|view| view.count("BatchInstanceRequest"));
    let refused = target.wait_until(|view| view.count("BatchInstanceRequest") > asked);
    soon("refused", refused).await;
    source.deregister("shop@@orders", all[0]);
    lists(&target, "one left", &all[1..2]).await;
    source.deregister("shop@@orders", all[1]);
    lists(&target, "and the other", &[]).await;
    target.clear_scripts();
    lists(
        &target,
        "what was refused",
        &["127.0.0.1:1003", "127.0.0.1:1004"],
    )
    .await;
    mirror.end().await;
}

/// Each change is told at once, also to a target that refuses; what is told again is so once.
#[tokio::test]
async fn a_target_that_refuses_is_not_asked_more_the_more_changes() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let asked = || target.inspect(|view| view.count("InstanceRequest"));
    target.script(Script::every("InstanceRequest", Fault::Refuse(400)));
    for n in 0..20 {
        let before = asked();
        let it = instance(1001).with_weight(Weight::new(f64::from(n + 1)));
        source.register("shop@@orders", &it);
        let told = target.wait_until(|view| view.count("InstanceRequest") > before);
        soon("told", told).await;
    }
    // Twenty retries at a time would come as fast as twenty answers; one comes each 100 ms.
    let (before, start) = (asked(), Instant::now());
    let rounds = target.wait_until(|view| view.count("InstanceRequest") >= before + 20);
    soon("rounds", rounds).await;
    let most = start.elapsed().as_millis() / 100 + 2;
    assert!(most >= 20, "20 times in {most} retries' time");
    target.clear_scripts();
    let listed = target.wait_until(|view| view.addresses("shop@@orders").len() == 1);
    soon("listed", listed).await;
    mirror.end().await;
}

/// The mirror's own client goes on with what timed out: what is wanted by then has to be told, though
/// it be what was told before that.
#[tokio::test]
async fn what_timed_out_is_told_again() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    let impatient = Duration::from_millis(200);
    let mirror = mirror_within(impatient, "shop", &source.addr(), &target.addr(), "here").await;
    let ours = ["127.0.0.1:1001"];
    // It is done, and nobody is told.
    target.script(Script::every("InstanceRequest", Fault::Drop));
    source.register("shop@@orders", &instance(1001));
    lists(&target, "a registration without an answer", &ours).await;
    source.deregister("shop@@orders", ours[0]);
    target.clear_scripts();
    lists(&target, "it left while that timed out", &[]).await;
    source.register("shop@@orders", &instance(1001));
    lists(&target, "it is back", &ours).await;
    target.script(Script::every("InstanceRequest", Fault::Drop));
    source.deregister("shop@@orders", ours[0]);
    lists(&target, "a withdrawal without an answer", &[]).await;
    source.register("shop@@orders", &instance(1001));
    target.clear_scripts();
    lists(&target, "it came back while that timed out", &ours).await;
    mirror.end().await;
}

/// Many services that change all the time: in the end the two are equal, whatever was seen between.
#[tokio::test]
async fn what_flaps_is_equal_in_the_end() {
    let (source, target) = (embedded(Profile::V3_1).await, embedded(Profile::V2_5).await);
    let slow = Fault::Delay(Duration::from_millis(100)); // so that more changes while it is told
    for request in ["InstanceRequest", "BatchInstanceRequest"] {
        target.script(Script::every(request, slow.clone()));
    }
    let mirror = mirror(&source.addr(), &target.addr(), "here").await;
    let providers: Vec<Client> = try_join_all((0..3).map(|_| Client::connect(source.addr())))
        .await
        .unwrap();
    let mut random = 7_u64;
    let mut wanted: BTreeMap<(u64, usize), f64> = BTreeMap::new();
    for _ in 0..1_500 {
        // Knuth's MMIX generator: the same run each time.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (service, provider, weight) = (
            random >> 33 & 63,
            (random >> 40) as usize % 3,
            random >> 50 & 3,
        );
        let name = format!("shop@@order-{service}");
        if weight == 0 && wanted.remove(&(service, provider)).is_some() {
            soon("deregister", providers[provider].deregister(name))
                .await
                .unwrap();
        } else {
            let weight = 1.0 + weight as f64;
            let port = 1_001 + provider as u16;
            let it = instance(port).with_weight(Weight::new(weight));
            soon("register", providers[provider].register(name, it))
                .await
                .unwrap();
            wanted.insert((service, provider), weight);
        }
    }
    let caller = Client::connect(target.addr()).await.unwrap();
    for service in 0..64 {
        let of = wanted.range((service, 0)..(service + 1, 0));
        let of: Vec<_> = of
            .map(|((_, provider), weight)| (format!("127.0.0.1:{}", 1_001 + provider), *weight))
            .collect();
        let of: Vec<Seen<'_>> = of
            .iter()
            .map(|(address, weight)| (&**address, *weight, None))
            .collect();
        let orders = caller
            .subscribe_lazy(format!("shop@@order-{service}"))
            .unwrap();
        until(&orders, &format!("{service}: {of:?}"), &of).await;
    }
    drop(providers);
    mirror.end().await;
    let left: BTreeSet<_> = (0..64)
        .filter(|service| {
            target.inspect(|view| !view.addresses(format!("shop@@order-{service}")).is_empty())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
