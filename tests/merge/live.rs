//! Two registries as one while calls go on all the time: one is killed, loses everything, comes back;
//! a service moves from one to the other. No call fails.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tower_nacos::{
    Client, Instance, Subscription, client::ConnectionState, directory::Status, grpc, http,
    testing::Registry,
};

use crate::{
    provider::{Provider, said},
    server::node::{Node, Program},
    steps::{settles, soon},
};

/// A registry that can be killed and started again, at the same address, with nothing left.
enum Site {
    Embedded(Option<Registry>, u16),
    Rnacos(Node),
}

impl Site {
    async fn embedded() -> Self {
        let registry = Registry::builder().push_delay(None).start().await.unwrap();
        let port = registry.socket_addr().port();
        Self::Embedded(Some(registry), port)
    }

    async fn rnacos() -> Option<Self> {
        Some(Self::Rnacos(Node::alone(&Program::rnacos()?).await))
    }

    fn addr(&self) -> String {
        match self {
            Self::Embedded(_, port) => format!("127.0.0.1:{port}"),
            Self::Rnacos(node) => node.addr(),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Embedded(registry, _) => drop(registry.take()),
            Self::Rnacos(node) => node.kill(),
        }
    }

    async fn start_empty(&mut self) {
        match self {
            Self::Embedded(registry, port) => {
                let start = || Registry::builder().push_delay(None).port(*port).start();
                *registry = Some(
                    soon("a free port", async {
                        loop {
                            match start().await {
                                Ok(registry) => return registry,
                                Err(_) => tokio::task::yield_now().await, // the former is going
                            }
                        }
                    })
                    .await,
                );
            }
            Self::Rnacos(node) => {
                node.forget();
                node.start().await;
            }
        }
    }

    async fn client(&self, name: &str) -> Client {
        let builder = Client::builder().servers(self.addr()).client_name(name);
        soon("connect", builder.connect()).await.unwrap()
    }
}

/// Callers that never pause; each answer counts.
struct Callers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Callers {
    /// A failed call ends the test that waits for [`done`](Self::done).
    fn start(orders: &Subscription, nacos: &Client) -> Self {
        let merged = orders.clone();
        let client = http::Client::builder(nacos)
            .subscribe_by(move |_| Ok(merged.clone()))
            .build();
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (client, stop, answered) = (client.clone(), stop.clone(), answered.clone());
            tasks.spawn(async move {
                while !stop.load(SeqCst) {
                    said(client.get("nacos://orders/v1").await).await;
                    answered.fetch_add(1, SeqCst);
                    tokio::task::yield_now().await;
                }
            });
        }
        Self {
            stop,
            answered,
            tasks,
        }
    }

    /// So many more calls are answered from here on.
    async fn go_on(&mut self) {
        let until = self.answered.load(SeqCst) + 200;
        soon("calls", async {
            while self.answered.load(SeqCst) < until {
                if let Some(ended) = self.tasks.try_join_next() {
                    ended.expect("no call fails");
                }
                tokio::time::sleep(Duration::from_millis(1)).await; // between looks at a count
            }
        })
        .await;
    }

    async fn done(mut self) -> usize {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no call fails");
        }
        self.answered.load(SeqCst)
    }
}

/// A process that provides: what serves, and the clients that it registers by.
struct Member {
    serves: Provider,
    clients: Vec<Client>,
}

impl Member {
    async fn of(sites: &[&Site]) -> Self {
        let serves = Provider::start().await;
        let mut member = Self {
            serves,
            clients: Vec::new(),
        };
        for site in sites {
            member.join(site).await;
        }
        member
    }

    fn instance(&self) -> Instance {
        self.serves.instance()
    }

    async fn join(&mut self, site: &Site) {
        let client = site.client("provider").await;
        let registered = client.register("orders", self.instance());
        soon("register", registered).await.unwrap();
        self.clients.push(client);
    }

    async fn leave_first(&mut self) {
        let client = self.clients.remove(0);
        soon("deregister", client.deregister("orders"))
            .await
            .unwrap();
        client.close(Duration::from_secs(1)).await.unwrap();
    }
}

fn ports(members: &[&Member]) -> Vec<u16> {
    let mut ports: Vec<_> = members.iter().map(|m| m.serves.port()).collect();
    ports.sort_unstable();
    ports
}

async fn until_status(orders: &Subscription, what: &str, is: impl Fn(Status) -> bool) {
    let mut statuses = orders.status_changes();
    soon(what, async {
        while let Some(status) = statuses.next().await {
            if is(status) {
                return;
            }
        }
        panic!("ended before: {what}");
    })
    .await;
}

async fn connected(client: &Client) {
    let mut state = client.watch_state();
    let there = state.wait_for(|state| matches!(state, ConnectionState::Connected { .. }));
    soon("connected", there).await.unwrap();
}

/// One is killed, loses what it had, and comes back: those that only it lists are called throughout, also
/// while it does not know them yet.
async fn one_goes_and_comes(mut first: Site, second: Site) {
    // Two, so that the guard does not believe that they left.
    let mut only_first = [Member::of(&[&first]).await, Member::of(&[&first]).await];
    let only_second = Member::of(&[&second]).await;
    let both = Member::of(&[&first, &second]).await;
    let (eu, us) = (first.client("eu").await, second.client("us").await);
    let near = soon("subscribe", eu.subscribe("orders")).await.unwrap();
    let far = soon("subscribe", us.subscribe("orders")).await.unwrap();
    let orders = Subscription::merge([(&near, 0), (&far, 0)]);
    let all = ports(&[&only_first[0], &only_first[1], &only_second, &both]);
    settles(&orders, &all).await;
    let mut changes = orders.changes();
    let mut callers = Callers::start(&orders, &eu);
    callers.go_on().await;

    first.kill();
    until_status(&orders, "stale", |s| matches!(s, Status::Stale { .. })).await;
    callers.go_on().await;
    settles(&orders, &all).await;
    let told = orders
        .explain(only_first[0].instance().address())
        .to_string();
    assert!(told.contains("from eu (tier 0)"), "{told}");

    // They come back later than the registry does.
    only_first
        .iter_mut()
        .for_each(|member| member.clients.clear());
    first.start_empty().await;
    connected(&eu).await;
    until_status(&orders, "held", |s| matches!(s, Status::Held { .. })).await;
    let before = only_first[0].serves.calls();
    callers.go_on().await;
    assert!(
        only_first[0].serves.calls() > before,
        "it is called while held"
    );
    for member in &mut only_first {
        member.join(&first).await;
    }
    connected(&both.clients[0]).await;
    until_status(&orders, "fresh", |s| s == Status::Fresh).await;
    settles(&orders, &all).await;
    callers.go_on().await;
    callers.done().await;
    let mut left = Vec::new();
    while let Some(Some(change)) = changes.next().now_or_never() {
        left.extend(change.cause());
    }
    assert_eq!(left, [], "who lived throughout was never gone");
}

/// A service moves, member by member, and the registry that it leaves is ended.
async fn a_service_moves(mut old: Site, new: Site) {
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::of(&[&old]).await);
    }
    let (from, to) = (old.client("old").await, new.client("new").await);
    let former = soon("subscribe", from.subscribe("orders")).await.unwrap();
    let latter = soon("subscribe", to.subscribe("orders")).await.unwrap();
    let orders = Subscription::merge([(&former, 0), (&latter, 0)]);
    let all = ports(&members.iter().collect::<Vec<_>>());
    settles(&orders, &all).await;
    let generations = || {
        let snapshot = orders.snapshot();
        let of = |e: &tower_nacos::directory::Entry| e.generation();
        snapshot.entries().iter().map(of).collect::<Vec<_>>()
    };
    let before = generations();
    let mut callers = Callers::start(&orders, &from);
    callers.go_on().await;
    let mut stay = Vec::new();
    for member in &mut members {
        member.join(&new).await;
        stay.push(member.serves.port());
        let mut there = stay.clone();
        there.sort_unstable();
        settles(&latter, &there).await;
        member.leave_first().await;
        let remain: Vec<_> = all.iter().copied().filter(|p| !stay.contains(p)).collect();
        settles(&former, &remain).await;
        settles(&orders, &all).await;
        callers.go_on().await;
    }
    assert_eq!(generations(), before, "one endpoint each, throughout");
    old.kill();
    until_status(&orders, "stale", |s| matches!(s, Status::Stale { .. })).await;
    callers.go_on().await;
    from.close(Duration::from_secs(1)).await.unwrap();
    until_status(&orders, "fresh", |s| s == Status::Fresh).await;
    callers.go_on().await;
    // What happens from here on is the new registry's word alone.
    let joined = Member::of(&[&new]).await;
    let mut more = all.clone();
    more.push(joined.serves.port());
    more.sort_unstable();
    settles(&orders, &more).await;
    callers.go_on().await;
    callers.done().await;
}

/// Both ways of the same on rnacos, if it is there.
async fn with_rnacos<F: Future>(run: impl FnOnce(Site, Site) -> F) {
    let (Some(first), Some(second)) = (Site::rnacos().await, Site::rnacos().await) else {
        return;
    };
    run(first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_embedded_registries_goes_and_comes() {
    one_goes_and_comes(Site::embedded().await, Site::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_rnacos_goes_and_comes() {
    with_rnacos(one_goes_and_comes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_from_one_embedded_registry_to_the_other() {
    a_service_moves(Site::embedded().await, Site::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_from_one_rnacos_to_the_other() {
    with_rnacos(a_service_moves).await;
}

#[tokio::test]
async fn nothing_stays_subscribed_when_the_last_handle_goes() {
    let registries = [
        Registry::builder().push_delay(None).start().await.unwrap(),
        Registry::builder().push_delay(None).start().await.unwrap(),
    ];
    let provider = Provider::start().await;
    registries[1].register("orders", &provider.instance());
    let clients = [
        Client::connect(registries[0].addr()).await.unwrap(),
        Client::connect(registries[1].addr()).await.unwrap(),
    ];
    let subscribers = async |count: usize| {
        for registry in &registries {
            let there = registry.wait_until(|view| view.subscribers("orders").len() == count);
            soon(&format!("{count} subscribers"), there).await;
        }
    };
    let lazy = |client: &Client| client.subscribe_lazy("orders").unwrap();
    let orders = Subscription::merge([(lazy(&clients[0]), 0), (lazy(&clients[1]), 1)]);
    soon("an instance", orders.ready()).await.unwrap();
    subscribers(1).await;
    let balance = tower_nacos::Balance::builder(&orders).picker();
    let channel = grpc::Channel::new(&orders);
    drop(orders);
    let lease = soon("a pick", balance.pick()).await.unwrap();
    assert_eq!(lease.instance().source().unwrap().tier(), 1);
    subscribers(1).await;
    drop((balance, lease));
    subscribers(1).await;
    drop(channel);
    subscribers(0).await;
}
