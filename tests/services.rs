//! Which services there are, kept in step with every kind of registry: one that tells of them, and
//! ones that have pages.

#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::timeout;
use tower_nacos::{
    client::{Client, WatchAll, Watched},
    directory::{ServiceChange, ServiceChanges},
    model::{Instance, ServiceFilter, ServiceName},
    testing::{Fault, Profile, Registry, Script},
};

use server::{HANG, Server};

/// Awaits something that a sound crate brings in time.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

fn orders() -> ServiceFilter {
    ServiceFilter::group("shop").name("order-*")
}

/// Reads changes into what a user would have, until it is as wanted.
async fn until(
    changes: &mut ServiceChanges,
    mine: &mut BTreeSet<String>,
    what: &str,
    wanted: impl Fn(&BTreeSet<String>) -> bool,
) {
    soon(what, async {
        while !wanted(mine) {
            let change = changes.next().await.expect("the client is there");
            let name = change.service().name().to_string();
            let news = match change {
                ServiceChange::Added(_) => mine.insert(name.clone()),
                ServiceChange::Removed(_) => mine.remove(&name),
                other => panic!("{other:?}"),
            };
            assert!(news, "told twice: {name}");
        }
    })
    .await;
}

fn are<'a>(names: &'a [&str]) -> impl Fn(&BTreeSet<String>) -> bool + 'a {
    move |mine| mine.iter().eq(names.iter())
}

async fn embedded(profile: Profile) -> Registry {
    let builder = Registry::builder().profile(profile).push_delay(None);
    soon("start", builder.start()).await.unwrap()
}

/// A client that reads pages often enough for a test.
async fn eager(server: &str) -> Client {
    let builder = Client::builder()
        .servers(server)
        .services_interval(Duration::from_secs(1));
    soon("connect", builder.connect()).await.unwrap()
}

/// Services come while they are watched; what is of another group, or has another name, does not.
async fn services_come_and_go(server: Server, goes: bool) {
    let watcher = eager(&server.addr()).await;
    let provider = server.client().await;
    let register = async |service: &str, port: u16| {
        let registered = provider.register(service, instance(port)).await;
        registered.unwrap_or_else(|error| panic!("{service}: {error}"));
    };
    register("shop@@order-a", 9001).await;
    register("shop@@users", 9002).await;
    register("order-z", 9003).await;
    let list = soon("services", watcher.services(orders())).await.unwrap();
    let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
    until(&mut changes, &mut mine, "the first", are(&["order-a"])).await;
    register("shop@@order-b", 9004).await;
    until(
        &mut changes,
        &mut mine,
        "another",
        are(&["order-a", "order-b"]),
    )
    .await;
    let again = soon("again", watcher.services(orders())).await.unwrap();
    let name: ServiceName = "shop@@order-b".parse().unwrap();
    assert!(again.snapshot().contains(&name));
    assert!(again.snapshot().is_known() && again.snapshot().is_fresh());
    if goes {
        soon("deregister", provider.deregister("shop@@order-a"))
            .await
            .unwrap();
        until(&mut changes, &mut mine, "gone", are(&["order-b"])).await;
    }
    let nothing = ServiceFilter::group("shop").name("nothing-*");
    let nothing = soon("nothing", watcher.services(nothing)).await.unwrap();
    assert!(nothing.snapshot().is_known() && nothing.snapshot().is_empty());
    // A whole group is another list.
    let group = soon("group", watcher.services("shop")).await.unwrap();
    let users: ServiceName = "shop@@users".parse().unwrap();
    assert!(group.snapshot().contains(&users), "{group:?}");
    soon("close", watcher.close(HANG)).await.unwrap();
    assert_eq!(soon("the end", changes.next()).await, None);
}

#[tokio::test]
async fn embedded_has_pages_of_its_services() {
    services_come_and_go(Server::Embedded(embedded(Profile::V2_5).await), false).await;
}

#[tokio::test]
async fn embedded_tells_of_its_services() {
    services_come_and_go(Server::Embedded(embedded(Profile::V3_1).await), true).await;
}

#[tokio::test]
async fn rnacos_has_pages_of_its_services() {
    if let Some(server) = Server::rnacos().await {
        services_come_and_go(server, false).await;
    }
}

#[tokio::test]
async fn nacos_2_2_4_has_pages_of_its_services() {
    if let Some(server) = Server::shared_nacos("2.2.4").await {
        services_come_and_go(server, false).await;
    }
}

#[tokio::test]
async fn nacos_3_1_0_tells_of_its_services() {
    if let Some(server) = Server::shared_nacos("3.1.0").await {
        services_come_and_go(server, true).await;
    }
}

/// A client for many requests at once on a machine that is busy.
async fn patient(server: &Server) -> Client {
    let builder = server.builder().request_timeout(HANG);
    soon("connect", builder.connect()).await.unwrap()
}

async fn register_all(provider: &Client, services: impl IntoIterator<Item = String>) {
    let registering = services
        .into_iter()
        .map(|service| provider.register(service, instance(9000)));
    soon("register", try_join_all(registering)).await.unwrap();
}

/// A real server is killed and started without what it knew; its providers come back by themselves.
async fn a_restart_takes_nothing_away(mut server: Server) {
    let provider = patient(&server).await;
    let name = |n: u16| format!("order-{n:02}");
    register_all(&provider, (0..30).map(|n| format!("shop@@{}", name(n)))).await;
    let watcher = eager(&server.addr()).await;
    let list = soon("services", watcher.services(orders())).await.unwrap();
    let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
    until(&mut changes, &mut mine, "all", |mine| mine.len() == 30).await;
    let mut state = watcher.watch_state();
    let lost = async {
        let lost = state.wait_for(|state| !state.is_connected());
        soon("the loss", lost).await.map(|_| ())
    };
    let (lost, ()) = tokio::join!(lost, server.restart_empty());
    lost.unwrap();
    let connected = state.wait_for(|state| state.is_connected());
    soon("connected", connected).await.unwrap();
    register_all(&provider, ["shop@@order-99".to_owned()]).await;
    until(&mut changes, &mut mine, "a new one", |mine| {
        mine.contains("order-99")
    })
    .await;
    assert_eq!(mine.len(), 31, "and nothing else");
    soon("all are back", async {
        while !list.snapshot().is_fresh() || !list.snapshot().held().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(list.snapshot().len(), 31);
}

#[tokio::test]
async fn a_restart_of_rnacos_takes_nothing_away() {
    if let Some(server) = Server::rnacos().await {
        a_restart_takes_nothing_away(server).await;
    }
}

#[tokio::test]
async fn a_restart_of_nacos_3_1_0_takes_nothing_away() {
    if let Some(server) = Server::nacos("3.1.0").await {
        a_restart_takes_nothing_away(server).await;
    }
}

#[tokio::test]
async fn a_restart_of_nacos_2_2_4_takes_nothing_away() {
    if let Some(server) = Server::nacos("2.2.4").await {
        a_restart_takes_nothing_away(server).await;
    }
}

/// More than a server tells of (500 on 3.1.0), and more than a page has.
async fn two_thousand_services_are_listed(server: Server) {
    let provider = patient(&server).await;
    let name = |n: u16| format!("many-{n:04}");
    register_all(&provider, (0..2_000).map(|n| format!("many@@{}", name(n)))).await;
    let watcher = eager(&server.addr()).await;
    let list = soon("services", watcher.services("many")).await.unwrap();
    let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
    let all: BTreeSet<_> = (0..2_000).map(name).collect();
    until(&mut changes, &mut mine, "all", |mine| *mine == all).await;
    // A pattern that takes few of them.
    let few = ServiceFilter::group("many").name("many-01*");
    let few = soon("few", watcher.services(few)).await.unwrap();
    assert_eq!(few.snapshot().len(), 100);
    let (mut changes, mut mine) = (few.changes(), BTreeSet::new());
    register_all(&provider, ["many@@many-01-and-more".to_owned()]).await;
    until(&mut changes, &mut mine, "one more", |mine| {
        mine.len() == 101
    })
    .await;
    soon("close", provider.close(HANG)).await.unwrap();
}

#[tokio::test]
async fn two_thousand_services_of_rnacos_are_listed() {
    if let Some(server) = Server::rnacos().await {
        two_thousand_services_are_listed(server).await;
    }
}

#[tokio::test]
async fn two_thousand_services_of_nacos_3_1_0_are_listed() {
    if let Some(server) = Server::shared_nacos("3.1.0").await {
        two_thousand_services_are_listed(server).await;
    }
}

#[tokio::test]
async fn two_thousand_services_of_nacos_2_2_4_are_listed() {
    if let Some(server) = Server::shared_nacos("2.2.4").await {
        two_thousand_services_are_listed(server).await;
    }
}

/// Genuine 3.1.0 tells of several groups, and of what flaps.
#[tokio::test]
async fn nacos_3_1_0_tells_of_what_flaps() {
    let Some(server) = Server::shared_nacos("3.1.0").await else {
        return;
    };
    let provider = patient(&server).await;
    let watcher = eager(&server.addr()).await;
    let filter = ServiceFilter::group("flap-*").name("flap-*");
    let list = soon("services", watcher.services(filter)).await.unwrap();
    let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
    let service = |n: u16| format!("flap-{}@@flap-{n:03}", n % 2);
    for _ in 0..3 {
        register_all(&provider, (0..200).map(service)).await;
        until(&mut changes, &mut mine, "all", |mine| mine.len() == 200).await;
        let leaving = (50..200).map(|n| provider.deregister(service(n)));
        soon("deregister", try_join_all(leaving)).await.unwrap();
        until(&mut changes, &mut mine, "few", |mine| mine.len() == 50).await;
    }
    let listed: Vec<_> = list
        .snapshot()
        .iter()
        .map(|s| s.name().to_string())
        .collect();
    assert!(mine.iter().eq(listed.iter().collect::<BTreeSet<_>>()));
    soon("close", provider.close(HANG)).await.unwrap();
}

/// Two passes have to miss it, and the registry itself forgets an empty service late.
#[tokio::test]
async fn a_service_that_is_not_on_the_pages_any_longer_goes() {
    let mut settings = tower_nacos::testing::Settings::default();
    settings.empty_service = Duration::from_millis(100);
    let registry = Registry::builder()
        .settings(settings)
        .start()
        .await
        .unwrap();
    registry.register("shop@@order-a", &instance(1));
    registry.register("shop@@order-b", &instance(2));
    let client = eager(&registry.addr()).await;
    let list = soon("services", client.services(orders())).await.unwrap();
    let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
    until(
        &mut changes,
        &mut mine,
        "both",
        are(&["order-a", "order-b"]),
    )
    .await;
    registry.deregister("shop@@order-a", "127.0.0.1:1");
    until(&mut changes, &mut mine, "one", are(&["order-b"])).await;
}

#[tokio::test]
async fn a_restarted_registry_takes_no_service_away() {
    for profile in [Profile::V2_5, Profile::V3_1] {
        let registry = embedded(profile).await;
        for n in 0..20 {
            registry.register(format!("shop@@order-{n:02}"), &instance(1000 + n));
        }
        let client = eager(&registry.addr()).await;
        let list = soon("services", client.services(orders())).await.unwrap();
        assert_eq!(list.snapshot().len(), 20);
        let mut changes = list.changes();
        for _ in 0..20 {
            changes.next().await.unwrap();
        }
        soon("restart", registry.restart()).await.unwrap();
        soon("it tells again", async {
            while list.snapshot().held().len() < 20 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        registry.register("shop@@order-99", &instance(9));
        let change = soon("a new one", changes.next()).await.unwrap();
        let new: ServiceName = "shop@@order-99".parse().unwrap();
        assert_eq!(change, ServiceChange::Added(new), "and nothing before it");
        assert_eq!(list.snapshot().len(), 21);
    }
}

#[tokio::test]
async fn who_drops_the_last_handle_ends_the_reading() {
    let registry = embedded(Profile::V2_5).await;
    let client = eager(&registry.addr()).await;
    let list = soon("services", client.services("shop")).await.unwrap();
    let changes = list.clone().changes();
    drop(list);
    drop(changes);
    let reads = || registry.inspect(|view| view.count("ServiceListRequest"));
    // Nothing asks any more once the driver has heard of it: a later request comes after that.
    soon("names", client.service_names("shop")).await.unwrap();
    let before = reads();
    soon("another request", client.instances("a"))
        .await
        .unwrap();
    assert_eq!(reads(), before);
}

#[tokio::test]
async fn who_drops_the_last_handle_ends_the_watch() {
    let registry = embedded(Profile::V3_1).await;
    let client = eager(&registry.addr()).await;
    let list = soon("services", client.services(orders())).await.unwrap();
    let again = soon("again", client.services(orders())).await.unwrap();
    let pattern = "public>>shop>>order-*";
    registry.inspect(|view| assert_eq!(view.watchers(pattern).len(), 1));
    drop(list);
    registry.register("shop@@order-a", &instance(1));
    let change = soon("told", again.changes().next()).await;
    assert!(
        matches!(change, Some(ServiceChange::Added(_))),
        "{change:?}"
    );
    drop(again);
    soon(
        "the end",
        registry.wait_until(|view| view.watchers(pattern).is_empty()),
    )
    .await;
}

#[tokio::test]
async fn beyond_what_a_server_tells_pages_are_read() {
    let mut settings = tower_nacos::testing::Settings::default();
    settings.profile = Profile::V3_1;
    settings.push_delay = None;
    (settings.fuzzy_patterns, settings.fuzzy_matches) = (1, 50);
    let builder = Registry::builder().settings(settings);
    let registry = soon("start", builder.start()).await.unwrap();
    for n in 0..60 {
        registry.register(format!("shop@@order-{n:02}"), &instance(1000 + n));
    }
    let client = eager(&registry.addr()).await;
    let many = soon("too many", client.services(orders())).await.unwrap();
    assert_eq!(many.snapshot().len(), 60);
    registry.inspect(|view| assert!(view.watchers("public>>shop>>order-*").is_empty()));
    let narrow = ServiceFilter::group("shop").name("order-1*");
    let narrow = soon("one pattern too many", client.services(narrow))
        .await
        .unwrap();
    assert_eq!(narrow.snapshot().len(), 10);
    let everything = client.services(ServiceFilter::namespace());
    let error = soon("everything", everything)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("max.pattern.count"), "{error}");
}

/// 2,000 services, some of which a restart forgets and which come back while it is read: nothing is
/// told twice (`until` sees to that), nothing is lost, and the end is the registry's.
#[tokio::test]
async fn two_thousand_services_survive_twenty_restarts() {
    const KEPT: u16 = 1_900;
    const ALL: u16 = 2_000;
    for profile in [Profile::V2_5, Profile::V3_1] {
        let mut settings = tower_nacos::testing::Settings::default();
        settings.profile = profile;
        settings.push_delay = None;
        settings.fuzzy_matches = 10_000;
        settings.empty_service = Duration::from_millis(1);
        let builder = Registry::builder().settings(settings);
        let registry = soon("start", builder.start()).await.unwrap();
        let name = |n: u16| format!("order-{n:04}");
        let add = |n: u16| {
            let instance = instance(n + 1).with_ephemeral(n >= KEPT);
            registry.register(format!("shop@@{}", name(n)), &instance);
        };
        (0..ALL).for_each(add);
        let mut options = tower_nacos::directory::Options::default();
        options.believed_share = 0.0;
        let builder = Client::builder()
            .servers(registry.addr())
            .directory(options)
            .services_interval(Duration::from_secs(1));
        let client = soon("connect", builder.connect()).await.unwrap();
        let list = soon("services", client.services(orders())).await.unwrap();
        let (mut changes, mut mine) = (list.changes(), BTreeSet::new());
        until(&mut changes, &mut mine, "all", |mine| {
            mine.len() == usize::from(ALL)
        })
        .await;
        for round in 0..20 {
            soon("restart", registry.restart()).await.unwrap();
            let new = ALL + round;
            add(new);
            until(&mut changes, &mut mine, "a new one", |mine| {
                mine.contains(&name(new))
            })
            .await;
            assert_eq!(
                mine.len(),
                usize::from(new) + 1,
                "a restart takes nothing away"
            );
            (KEPT..new).for_each(add);
            soon("all are back", async {
                while !list.snapshot().held().is_empty() || !list.snapshot().is_fresh() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        }
        for n in KEPT..ALL {
            registry.deregister(
                format!("shop@@{}", name(n)),
                &format!("127.0.0.1:{}", n + 1),
            );
        }
        let there: BTreeSet<_> = (0..KEPT).chain(ALL..ALL + 20).map(name).collect();
        until(&mut changes, &mut mine, "the rest", |mine| *mine == there).await;
        let listed: BTreeSet<_> = list
            .snapshot()
            .iter()
            .map(|s| s.name().to_string())
            .collect();
        assert_eq!(listed, there);
    }
}

/// The next change, in words.
async fn next(all: &mut WatchAll) -> String {
    let (service, change) = soon("a change", all.next())
        .await
        .expect("the client is there");
    let what = match change {
        Watched::Instance(change) => {
            let address = change.instance.address();
            match change.cause() {
                Some(_) => format!("left {address}"),
                None => format!("{:?} {address}", change.kind),
            }
        }
        other => format!("{other:?}"),
    };
    format!("{} {what}", service.name())
}

#[tokio::test]
async fn every_service_and_its_instances_are_one_stream() {
    let registry = embedded(Profile::V3_1).await;
    registry.register("shop@@order-a", &instance(1));
    let client = eager(&registry.addr()).await;
    let mut all = soon("watch all", client.watch_all(orders())).await.unwrap();
    assert_eq!(next(&mut all).await, "order-a Added");
    assert_eq!(next(&mut all).await, "order-a Added 127.0.0.1:1");
    registry.register("shop@@order-b", &instance(2));
    assert_eq!(next(&mut all).await, "order-b Added");
    assert_eq!(next(&mut all).await, "order-b Added 127.0.0.1:2");
    registry.register("shop@@order-b", &instance(3));
    assert_eq!(next(&mut all).await, "order-b Added 127.0.0.1:3");
    registry.deregister("shop@@order-b", "127.0.0.1:2");
    assert_eq!(next(&mut all).await, "order-b left 127.0.0.1:2");
    registry.deregister("shop@@order-a", "127.0.0.1:1");
    loop {
        match &*next(&mut all).await {
            "order-a left 127.0.0.1:1" => {} // before, if that push is the first
            "order-a Removed" => break,
            other => panic!("{other}"),
        }
    }
    let unsubscribed = registry.wait_until(|view| view.subscribers("shop@@order-a").is_empty());
    soon("unsubscribed", unsubscribed).await;
    registry.register("shop@@order-a", &instance(4));
    assert_eq!(next(&mut all).await, "order-a Added");
    assert_eq!(next(&mut all).await, "order-a Added 127.0.0.1:4");
    drop(all);
    let unsubscribed = registry.wait_until(|view| view.subscribers("shop@@order-b").is_empty());
    soon("unsubscribed", unsubscribed).await;
}

#[tokio::test]
async fn no_more_services_are_watched_than_may_be() {
    let registry = embedded(Profile::V3_1).await;
    for n in 1..=3 {
        registry.register(format!("shop@@order-{n}"), &instance(n));
    }
    let client = eager(&registry.addr()).await;
    let error = soon("too many", client.watch_all_up_to("shop", 2))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("shop@@* takes 3 services, and 2 are watched at most")
    );
    let mut all = soon("watch all", client.watch_all_up_to("shop", 3))
        .await
        .unwrap();
    let mut first = Vec::new();
    for _ in 0..6 {
        first.push(next(&mut all).await);
    }
    assert!(
        first.contains(&"order-3 Added 127.0.0.1:3".to_owned()),
        "{first:?}"
    );
    registry.register("shop@@order-4", &instance(4));
    assert_eq!(next(&mut all).await, "order-4 NotWatched { limit: 3 }");
    assert!(registry.subscribers("shop@@order-4").is_empty());
    registry.deregister("shop@@order-1", "127.0.0.1:1");
    let mut after = Vec::new();
    while after.last().map(String::as_str) != Some("order-4 Added 127.0.0.1:4") {
        after.push(next(&mut all).await);
    }
    assert!(after.contains(&"order-1 Removed".to_owned()), "{after:?}");
    soon("close", client.close(HANG)).await.unwrap();
    assert!(soon("the end", all.next()).await.is_none());
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let registry = embedded(Profile::V2_5).await;
    let client = eager(&registry.addr()).await;
    for bad in ["a*b", "", "a b"] {
        let filter = ServiceFilter::group("G").name(bad);
        let error = client.services(filter).await.unwrap_err().to_string();
        assert!(error.contains("service pattern"), "{error}");
    }
    let everything = client.services(ServiceFilter::namespace());
    let error = soon("everything", everything)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("name the group"), "{error}");
    registry.script(Script::next("ServiceListRequest", Fault::Refuse(400)));
    let error = soon("refused", client.services("G")).await.unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    soon("asked again", client.services("G")).await.unwrap();
    soon("close", client.close(HANG)).await.unwrap();
    assert!(client.services("G").await.unwrap_err().is_closed());
}

/// Two who share a list hear of the same refusal, and whoever asks after that makes it be asked anew.
#[tokio::test]
async fn everybody_who_shares_a_list_hears_of_its_refusal() {
    let registry = embedded(Profile::V2_5).await;
    let client = eager(&registry.addr()).await;
    let kept = client.services_lazy("G").unwrap();
    registry.script(Script::next("ServiceListRequest", Fault::Refuse(400)).times(2));
    let both = futures_util::future::join(client.services("G"), client.services("G"));
    let (first, second) = soon("both", both).await;
    for refused in [first, second] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("400"), "{error}");
    }
    registry.clear_scripts();
    assert!(!kept.snapshot().is_known());
    soon("asked again", client.services("G")).await.unwrap();
    assert!(kept.snapshot().is_known(), "one list for all");
}

/// Names are data: what looks like a path, a pattern or a separator is listed as it is, and a pattern
/// that takes everything takes that, too.
#[tokio::test]
async fn names_that_look_like_something_else_are_listed_as_they_are() {
    let names = [
        "../../etc/passwd",
        "..",
        "/a",
        "a/b\\c",
        "order-1",
        "x:y",
        "%2e%2e",
        "名",
    ];
    let all: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    for profile in [Profile::V2_5, Profile::V3_1] {
        let registry = embedded(profile).await;
        for (n, name) in (1..).zip(names) {
            registry.register(format!("shop@@{name}"), &instance(n));
        }
        let client = eager(&registry.addr()).await;
        let told = profile == Profile::V3_1;
        let mut filters = vec![ServiceFilter::group("shop")];
        if told {
            filters.push(ServiceFilter::namespace());
        }
        for filter in filters {
            let list = soon("services", client.services(filter)).await.unwrap();
            let listed = list.snapshot();
            let listed: BTreeSet<String> = listed.iter().map(|s| s.name().to_string()).collect();
            assert_eq!(listed, all, "told: {told}");
        }
        let path = ServiceFilter::group("shop").name("../*");
        let list = soon("a pattern", client.services(path)).await.unwrap();
        assert_eq!(list.snapshot().len(), 1);
        let once = soon("once", client.service_names("shop")).await.unwrap();
        assert_eq!(once.into_iter().collect::<BTreeSet<_>>(), all);
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_named_when_time_is_up() {
    let registry = embedded(Profile::V2_5).await;
    let builder = Client::builder()
        .servers(registry.addr())
        .request_timeout(Duration::from_millis(300))
        .call_timeout(Duration::from_millis(100));
    let client = soon("connect", builder.connect()).await.unwrap();
    registry.script(Script::every("ServiceListRequest", Fault::Drop));
    let error = soon("silence", client.services("G")).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("not listed"), "{error}");
}
