//! What lists of services cost the driver, and when readers see what was told.

use std::{
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use futures_core::Stream;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Core, News};
use crate::{
    directory::{Options, ServiceChanges, ServiceList, service_list},
    model::{Host, ServiceFilter},
    session::{Config, LinkId, Output, Server},
    wire::Payload,
};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);
const FINISH: &str = "FINISH_FUZZY_WATCH_INIT_NOTIFY";

/// A client with a list of so many services, and a reader.
struct World {
    core: Core,
    list: ServiceList,
    changes: ServiceChanges,
    published: u64,
    services: usize,
    /// Whether the server tells of them by itself.
    tells: bool,
    link: Option<LinkId>,
    now: Instant,
    /// What the client took for what came.
    spent: Duration,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the origin of virtual time, and what a test takes"
)]
fn clock() -> Instant {
    Instant::now()
}

fn name(n: usize) -> String {
    format!("order-service-{n:06}")
}

impl World {
    fn new(services: usize, tells: bool) -> Self {
        let now = clock();
        let server = Server {
            host: Host::Ip([127, 0, 0, 1].into()),
            port: 9848,
        };
        let config = Config::new(vec![server], "public".into());
        let filter = ServiceFilter::group("G").name("order-*");
        let (writer, list) = service_list(filter.clone(), Options::default());
        let mut this = Self {
            core: Core::new(config, StdRng::seed_from_u64(1), now),
            changes: list.changes(),
            list,
            published: 0,
            services,
            tells,
            link: None,
            now,
            spent: Duration::ZERO,
        };
        this.core.watch(filter, writer, now);
        this.drain();
        this
    }

    /// As the driver does. Only what the client does is timed.
    fn drain(&mut self) {
        loop {
            let began = clock();
            let Some(news) = self.core.poll(self.now, self.now) else {
                self.spent += began.elapsed();
                break;
            };
            self.spent += began.elapsed();
            let News::Output(output) = news else { continue };
            match output {
                Output::Dial { link, .. } => {
                    self.link = Some(link);
                    let local = [127, 0, 0, 1].into();
                    let session = self.core.session_mut();
                    session.handle_connected(link, local, None, self.now);
                }
                Output::OpenStream { .. } => {
                    let abilities = json!({ "abilityTable": { "fuzzyWatch": self.tells } });
                    self.comes("SetupAckRequest", &abilities);
                }
                Output::Call { call, payload, .. } => {
                    let kind = payload.kind().replace("Request", "Response");
                    let asked: Value = serde_json::from_slice(payload.json()).unwrap();
                    let mut body = json!({ "resultCode": 200, "connectionId": "1", "supportAbilityNegotiation": true });
                    if kind == "ServiceListResponse" {
                        let page = asked["pageNo"].as_u64().unwrap() as usize;
                        let size = asked["pageSize"].as_u64().unwrap() as usize;
                        let names = (0..self.services).map(name).skip((page - 1) * size);
                        body["count"] = json!(self.services);
                        body["serviceNames"] = json!(names.take(size).collect::<Vec<_>>());
                    }
                    let answer = Ok(Payload::new(&kind, body.to_string()));
                    let began = clock();
                    let session = self.core.session_mut();
                    session.handle_answer(call, answer, self.now);
                    self.spent += began.elapsed();
                }
                _ => {}
            }
        }
    }

    fn comes(&mut self, kind: &str, body: &Value) {
        let payload = Payload::new(kind, body.to_string());
        let link = self.link.unwrap();
        let began = clock();
        let session = self.core.session_mut();
        session.handle_stream(link, &payload, self.now);
        self.spent += began.elapsed();
    }

    fn batch(&mut self, names: &[String], change: &str, kind: &str) {
        let context =
            |name| json!({ "serviceKey": format!("public@@G@@{name}"), "changedType": change });
        let body = json!({
            "requestId": "7", "syncType": kind, "groupKeyPattern": "public>>G>>order-*",
            "contexts": names.iter().map(context).collect::<Vec<_>>(),
            "totalBatch": 1, "currentBatch": 1,
        });
        self.comes("NamingFuzzyWatchSyncRequest", &body);
        self.drain();
    }

    /// Everything, ten at a time, as a server sends it, over 600 ms.
    fn sync(&mut self) {
        let all: Vec<String> = (0..self.services).map(name).collect();
        let batches = all.chunks(10);
        let apart = 600 * MS / batches.len() as u32;
        for names in batches {
            self.pass(apart);
            self.batch(names, "ADD_SERVICE", "FUZZY_WATCH_INIT_NOTIFY");
        }
        self.batch(&[], "", FINISH);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let began = clock();
            self.core.handle_timeout(self.now);
            self.spent += began.elapsed();
            self.drain();
            assert!(self.core.poll_timeout().is_some_and(|at| at > self.now));
        }
        self.now = end;
    }

    /// What the reader was told since the last time: how much, and how often the names were published.
    fn told(&mut self) -> (usize, u64) {
        let revision = self.list.snapshot().revision();
        let published = revision - std::mem::replace(&mut self.published, revision);
        let mut cx = Context::from_waker(Waker::noop());
        let mut told = 0;
        while pin!(&mut self.changes).poll_next(&mut cx).is_ready() {
            told += 1;
        }
        (told, published)
    }

    fn lose(&mut self) {
        let link = self.link.unwrap();
        let session = self.core.session_mut();
        session.handle_stream_ended(link, "restarted".to_owned(), self.now);
        self.pass(2 * SEC);
    }
}

#[test]
fn what_a_server_tells_ten_at_a_time_is_published_now_and_then() {
    let mut world = World::new(5_000, true);
    world.told();
    world.sync();
    let (told, published) = world.told();
    assert_eq!(told, 5_000);
    assert!((2..=14).contains(&published), "{published} times in 600 ms");
    // One after a while is seen at once, and those that follow closely a moment later.
    world.pass(SEC);
    let change = |world: &mut World, n| {
        let body = json!({
            "requestId": "8", "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
            "serviceKey": format!("public@@G@@{}", name(n)), "changedType": "ADD_SERVICE",
        });
        world.comes("NamingFuzzyWatchChangeNotifyRequest", &body);
        world.drain();
    };
    change(&mut world, 6_000);
    assert_eq!(world.told(), (1, 1));
    for n in 6_001..6_011 {
        change(&mut world, n);
    }
    assert_eq!(world.told(), (0, 0));
    world.pass(101 * MS); // 50, and 10 µs a name
    assert_eq!(world.told(), (10, 1));
    assert_eq!(world.list.snapshot().len(), 5_011);
}

const PHASES: [&str; 4] = ["told", "told while held", "told again", "a pass of pages"];

/// What the client does in each: for all of it told, for the same while all of it is held, for it told
/// again, and for one pass of pages; and how often the names were published at most.
fn takes(services: usize) -> [(Duration, u64); 4] {
    let mut takes = [(Duration::MAX, 0); 4];
    for _ in 0..3 {
        let mut told = World::new(services, true);
        let mut spent = Vec::new();
        let mut time = |world: &mut World, what: fn(&mut World)| {
            world.told();
            world.spent = Duration::ZERO;
            what(world);
            spent.push((world.spent, world.told().1));
        };
        time(&mut told, World::sync);
        told.lose();
        let all: Vec<String> = (0..services).map(name).collect();
        told.batch(&all, "DELETE_SERVICE", "FUZZY_WATCH_INIT_NOTIFY");
        told.batch(&[], "", FINISH);
        assert_eq!(told.list.snapshot().held().len(), services);
        time(&mut told, World::sync);
        told.pass(SEC);
        assert_eq!(told.list.snapshot().held().len(), 0);
        time(&mut told, World::sync);
        let mut pages = World::new(services, false);
        assert_eq!(pages.list.snapshot().len(), services);
        time(&mut pages, |world| world.pass(12 * SEC));
        assert_eq!(pages.list.snapshot().len(), services);
        for ((time, published), (spent, times)) in takes.iter_mut().zip(spent) {
            *time = spent.min(*time);
            *published = times.max(*published);
        }
    }
    takes
}

/// What is the same on any machine of what [`a_list_of_services_costs_the_driver_little`] prints.
#[test]
fn in_no_phase_is_a_list_published_with_each_name() {
    for (what, (_, published)) in PHASES.iter().zip(takes(1_000)) {
        println!("{what}: published {published} times");
        assert!(published <= 14, "{what}: {published} times, of 100 batches");
    }
}

/// What a pass may cost the driver, on a machine that does nothing else.
const LIMIT: Duration = Duration::from_millis(20);

#[test]
#[ignore = "a figure, by the command in CONTRIBUTING.md"]
fn a_list_of_services_costs_the_driver_little() {
    let services = std::env::var("LISTED_SERVICES").map_or(5_000, |n| n.parse().unwrap());
    for (what, (took, _)) in PHASES.iter().zip(takes(services)) {
        println!("{what}: {services} services {took:?}");
        let limit = LIMIT.mul_f64(services as f64 / 5_000.0);
        assert!(cfg!(debug_assertions) || took < limit, "{what}: {took:?}");
    }
}
