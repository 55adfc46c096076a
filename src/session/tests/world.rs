//! A server of a few hundred lines, and the loop that jumps from one event to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    model::{Host, Instance, Origin, ServiceKey, Weight},
    session::{
        CallFailure, CallId, Command, Config, DialError, LinkId, OperationError, Outcome, Output,
        Server, Session, SessionState, Ticket,
    },
    wire::Payload,
};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SEC: Duration = Duration::from_secs(1);

/// How the servers behave; tests change it as they go. All servers behave alike.
pub(super) struct Script {
    pub(super) latency: Duration,
    pub(super) negotiates: bool,
    pub(super) acknowledges: bool,
    /// From the setup until the connection is registered.
    pub(super) registers_after: Duration,
    /// Whether registered connections are known to unary calls: not so behind an L7 proxy.
    pub(super) splits: bool,
    /// Types that get no answer.
    pub(super) mute: BTreeSet<&'static str>,
    /// Types that get an error, and how many times more.
    pub(super) refuse: BTreeMap<&'static str, (i32, u32)>,
    /// Types whose answer is this text.
    pub(super) garble: BTreeMap<&'static str, &'static str>,
    pub(super) dials: BTreeMap<SocketAddr, DialError>,
    /// Addresses whose dial never ends.
    pub(super) black_holes: BTreeSet<SocketAddr>,
    pub(super) names: BTreeMap<&'static str, Result<Vec<IpAddr>, &'static str>>,
    pub(super) lists: BTreeMap<String, Vec<&'static str>>,
    /// Whether servers say that they tell of services by patterns.
    pub(super) fuzzy_watch: bool,
    /// The keys of the services that they tell of, if they do so by themselves.
    pub(super) tells: Option<BTreeSet<String>>,
    /// How many services they count, if not as many as there are.
    pub(super) count: Option<u64>,
    /// Whether they add a batch to the one before, as rnacos does.
    pub(super) adds_up: bool,
    /// Where connections leave from.
    pub(super) local: IpAddr,
    /// Whether each connection brings a token of its own.
    pub(super) tokens: bool,
    /// Whether the login that belongs to a dial fails.
    pub(super) login_fails: bool,
}

/// What a server knows of one connection.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) addr: Option<SocketAddr>,
    pub(super) streaming: bool,
    pub(super) registered: bool,
    pub(super) hung_up: bool,
    pub(super) subscribed: BTreeSet<String>,
    /// Whether it is told of services as they come and go.
    pub(super) watching: bool,
    pub(super) published: BTreeMap<String, String>,
    /// The same, batches included.
    pub(super) batches: BTreeMap<String, BTreeSet<String>>,
}

/// A message that the session sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: Duration,
    pub(super) link: LinkId,
    pub(super) kind: String,
    pub(super) json: Value,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) client_ip: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) at: Duration,
    pub(super) service: String,
    pub(super) hosts: Vec<String>,
    pub(super) origin: Origin,
}

enum Event {
    Resolved(LinkId, usize, Result<Vec<SocketAddr>, String>),
    Connected(LinkId),
    DialFailed(LinkId, DialError),
    Registered(LinkId),
    Answer(LinkId, CallId, Payload),
    Fail(CallId, CallFailure),
    Stream(LinkId, Payload),
}

pub(super) struct World {
    pub(super) session: Session,
    pub(super) now: Instant,
    start: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    pub(super) script: Script,
    pub(super) peers: BTreeMap<LinkId, Peer>,
    pub(super) sent: Vec<Sent>,
    pub(super) dials: Vec<(Duration, SocketAddr)>,
    pub(super) hangups: Vec<(Duration, LinkId)>,
    pub(super) listed: Vec<Listed>,
    pub(super) done: BTreeMap<u64, (Duration, Result<Outcome, OperationError>)>,
    pub(super) states: Vec<(Duration, SessionState)>,
    pub(super) notes: Vec<(Duration, Output)>,
    /// Calls under way, and the most there were.
    under_way: BTreeSet<CallId>,
    pub(super) most_calls: usize,
}

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 9848))
}

pub(super) fn key(service: &str) -> ServiceKey {
    ServiceKey::new("public", service.parse().unwrap()).unwrap()
}

pub(super) fn config(servers: u8) -> Config {
    let server = |last| Server {
        host: Host::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
        port: 9848,
    };
    Config::new((1..=servers).map(server).collect(), "public".into())
}

impl World {
    /// One server, which has `orders` with two instances.
    pub(super) fn new() -> Self {
        Self::with(config(1), 7)
    }

    pub(super) fn with(config: Config, seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the origin of virtual time; never read again"
        )]
        let now = Instant::now();
        let script = Script {
            latency: MS,
            negotiates: true,
            acknowledges: true,
            registers_after: MS,
            splits: false,
            mute: BTreeSet::new(),
            refuse: BTreeMap::new(),
            garble: BTreeMap::new(),
            dials: BTreeMap::new(),
            black_holes: BTreeSet::new(),
            names: BTreeMap::new(),
            lists: BTreeMap::from([("orders".to_owned(), vec!["10.9.0.1:80", "10.9.0.2:80"])]),
            fuzzy_watch: false,
            adds_up: false,
            tells: None,
            count: None,
            local: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 9)),
            tokens: false,
            login_fails: false,
        };
        Self {
            session: Session::new(config, StdRng::seed_from_u64(seed), now),
            now,
            start: now,
            events: BTreeMap::new(),
            serial: 0,
            script,
            peers: BTreeMap::new(),
            sent: Vec::new(),
            dials: Vec::new(),
            hangups: Vec::new(),
            listed: Vec::new(),
            done: BTreeMap::new(),
            states: Vec::new(),
            notes: Vec::new(),
            under_way: BTreeSet::new(),
            most_calls: 0,
        }
    }

    /// A world in which the session is connected.
    pub(super) fn connected() -> Self {
        let mut world = Self::new();
        world.run(100 * MS);
        assert!(world.is_connected(), "{:?}", world.states);
        world
    }

    pub(super) fn at(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(
            self.states.last(),
            Some((_, SessionState::Connected { .. }))
        )
    }

    /// The link that is connected and not hung up; the newest of two.
    pub(super) fn link(&self) -> LinkId {
        *self
            .peers
            .iter()
            .rfind(|(_, peer)| peer.registered && !peer.hung_up)
            .expect("no link is registered")
            .0
    }

    pub(super) fn open_links(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.streaming && !peer.hung_up)
            .count()
    }

    pub(super) fn sent_of(&self, kind: &str) -> Vec<&Sent> {
        self.sent.iter().filter(|sent| sent.kind == kind).collect()
    }

    pub(super) fn last_error(&self) -> String {
        self.session.connect_error().to_string()
    }

    pub(super) fn command(&mut self, command: Command) {
        self.session.handle_command(command, self.now);
        self.drain();
    }

    pub(super) fn subscribe(&mut self, service: &str) {
        self.command(Command::Subscribe(key(service)));
    }

    pub(super) fn unsubscribe(&mut self, service: &str) {
        self.command(Command::Unsubscribe(key(service)));
    }

    pub(super) fn register(&mut self, ticket: u64, service: &str, address: &str) {
        self.command(Command::Register {
            ticket: Ticket(ticket),
            key: key(service),
            instance: Box::new(Instance::parse(address).unwrap()),
        });
    }

    pub(super) fn register_weighing(
        &mut self,
        ticket: u64,
        service: &str,
        address: &str,
        weight: f64,
    ) {
        let instance = Instance::parse(address).unwrap();
        self.command(Command::Register {
            ticket: Ticket(ticket),
            key: key(service),
            instance: Box::new(instance.with_weight(Weight::new(weight))),
        });
    }

    pub(super) fn deregister(&mut self, ticket: u64, service: &str) {
        self.command(Command::Deregister {
            ticket: Ticket(ticket),
            key: key(service),
        });
    }

    /// The server pushes a list on the newest link.
    pub(super) fn push(&mut self, service: &str, hosts: &[&'static str]) {
        let link = self.link();
        self.push_on(link, service, hosts);
    }

    pub(super) fn push_on(&mut self, link: LinkId, service: &str, hosts: &[&'static str]) {
        let info = self.info(service, hosts);
        let body = json!({ "requestId": "17", "serviceInfo": info });
        self.stream(link, "NotifySubscriberRequest", &body.to_string());
    }

    /// A message of the server's on the stream, now.
    pub(super) fn stream(&mut self, link: LinkId, kind: &str, body: &str) {
        let payload = Payload::new(kind, body.to_owned());
        self.session.handle_stream(link, &payload, self.now);
        self.drain();
    }

    pub(super) fn end_stream(&mut self, reason: &str) {
        let link = self.link();
        let reason = reason.to_owned();
        self.session.handle_stream_ended(link, reason, self.now);
        self.drain();
    }

    /// Lets time pass, from event to event.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        for _ in 0..1_000_000 {
            let event = self.events.first_key_value().map(|(key, _)| *key);
            let timeout = self.session.poll_timeout();
            let first = event.map(|(at, _)| at).into_iter().chain(timeout).min();
            match first {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return;
                }
            }
            match event {
                Some(key) if key.0 <= self.now => {
                    let event = self.events.remove(&key).unwrap();
                    self.happen(event);
                }
                _ => {
                    self.session.handle_timeout(self.now);
                    let next = self.session.poll_timeout();
                    assert!(next.is_none_or(|next| next > self.now), "it spins");
                }
            }
            self.drain();
        }
        panic!("a million events in {time:?}: it spins");
    }

    /// Runs until `done`, at most for a minute.
    pub(super) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..60_000 {
            if done(self) {
                return;
            }
            self.run(MS);
        }
        panic!("not within a minute: {what}");
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + after, self.serial), event);
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        let hung_up = |world: &Self, link| world.peers.get(link).is_some_and(|peer| peer.hung_up);
        match event {
            Event::Resolved(link, server, result) => {
                self.session.handle_resolved(link, server, result, now);
            }
            Event::Connected(link) => {
                let local = self.script.local;
                let token = self.script.tokens.then(|| {
                    let token = ("accessToken".to_owned(), format!("{link:?}"));
                    [token].into()
                });
                self.session.handle_connected(link, local, token, now);
                if self.script.login_fails {
                    let error = DialError::LoginDoubted("no login".to_owned());
                    self.session.handle_login_failed(link, error, now);
                }
            }
            Event::DialFailed(link, error) => self.session.handle_dial_failed(link, error, now),
            Event::Registered(link) if hung_up(self, &link) => {}
            Event::Registered(link) => {
                self.peers.entry(link).or_default().registered = true;
                if self.script.negotiates && self.script.acknowledges {
                    let abilities = json!({ "fuzzyWatch": self.script.fuzzy_watch });
                    let body = json!({ "abilityTable": abilities }).to_string();
                    let payload = Payload::new("SetupAckRequest", body);
                    self.later(self.script.latency, Event::Stream(link, payload));
                }
            }
            Event::Answer(link, _, _) | Event::Stream(link, _) if hung_up(self, &link) => {}
            Event::Answer(_, call, payload) => {
                self.under_way.remove(&call);
                self.session.handle_answer(call, Ok(payload), now);
            }
            Event::Fail(call, failure) => {
                self.under_way.remove(&call);
                self.session.handle_answer(call, Err(failure), now);
            }
            Event::Stream(link, payload) => self.session.handle_stream(link, &payload, now),
        }
    }

    /// Does what the session says.
    pub(super) fn drain(&mut self) {
        let latency = self.script.latency;
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Resolve {
                    link,
                    server,
                    name,
                    port,
                } => {
                    if let Some(result) = self.script.names.get(&*name) {
                        let with_port = |ips: Vec<IpAddr>| {
                            ips.into_iter()
                                .map(|ip| SocketAddr::new(ip, port))
                                .collect()
                        };
                        let result = result.clone().map(with_port).map_err(str::to_owned);
                        self.later(latency, Event::Resolved(link, server, result));
                    }
                }
                Output::Dial { link, addr, .. } => {
                    self.dials.push((self.at(), addr));
                    self.peers.entry(link).or_default().addr = Some(addr);
                    let open = self.peers.values().filter(|peer| !peer.hung_up).count();
                    assert!(open <= 2, "{open} links at once");
                    if self.script.black_holes.contains(&addr) {
                        continue;
                    }
                    let event = match self.script.dials.get(&addr) {
                        Some(error) => Event::DialFailed(link, error.clone()),
                        None => Event::Connected(link),
                    };
                    self.later(latency, event);
                }
                Output::OpenStream { link, payload } => {
                    self.note_sent(link, &payload);
                    self.peers.entry(link).or_default().streaming = true;
                    let after = self.script.registers_after;
                    self.later(after, Event::Registered(link));
                }
                Output::StreamSend { link, payload } => {
                    assert!(self.peers[&link].streaming && !self.peers[&link].hung_up);
                    self.note_sent(link, &payload);
                }
                Output::Call {
                    link,
                    call,
                    payload,
                    ..
                } => {
                    assert!(
                        !self.peers[&link].hung_up,
                        "a call on a link that was hung up"
                    );
                    self.note_sent(link, &payload);
                    self.answer(link, call);
                }
                Output::Hangup { link } => {
                    self.hangups.push((self.at(), link));
                    let peer = self.peers.entry(link).or_default();
                    peer.hung_up = true;
                    peer.subscribed.clear();
                    peer.published.clear();
                    peer.batches.clear();
                    self.under_way.clear();
                }
                Output::Listing {
                    key,
                    listing,
                    origin,
                    ..
                } => {
                    let hosts = listing.instances().iter();
                    self.listed.push(Listed {
                        at: self.at(),
                        service: key.name().to_string(),
                        hosts: hosts.map(|host| host.address().to_string()).collect(),
                        origin,
                    });
                }
                Output::Done { ticket, outcome } => {
                    let before = self.done.insert(ticket.0, (self.at(), outcome));
                    assert_eq!(before, None, "a ticket was done twice");
                }
                Output::State(state) => self.states.push((self.at(), state)),
                output => self.notes.push((self.at(), output)),
            }
        }
    }

    fn note_sent(&mut self, link: LinkId, payload: &Payload) {
        let metadata = payload.metadata.clone().unwrap();
        self.sent.push(Sent {
            at: self.at(),
            link,
            kind: payload.kind().to_owned(),
            json: serde_json::from_slice(payload.json()).unwrap(),
            headers: metadata.headers.into_iter().collect(),
            client_ip: metadata.client_ip,
        });
    }

    /// The server's answer to the message sent last.
    fn answer(&mut self, link: LinkId, call: CallId) {
        self.under_way.insert(call);
        self.most_calls = self.most_calls.max(self.under_way.len());
        let Sent { kind, json, .. } = self.sent.last().unwrap().clone();
        if self.script.mute.contains(&*kind) {
            return;
        }
        let latency = self.script.latency;
        let splits = self.script.splits;
        let error = |code: i32| {
            let json = json!({ "resultCode": 500, "errorCode": code, "message": "as scripted" });
            Payload::new("ErrorResponse", json.to_string())
        };
        if let Some((code, times)) = self.script.refuse.get_mut(&*kind)
            && *times > 0
        {
            *times -= 1;
            let payload = error(*code);
            return self.later(latency, Event::Answer(link, call, payload));
        }
        let response = match &*kind {
            "ServiceQueryRequest" => "QueryServiceResponse".to_owned(),
            kind => format!("{}Response", kind.strip_suffix("Request").unwrap()),
        };
        if let Some(text) = self.script.garble.get(&*kind) {
            let payload = Payload::new(&response, *text);
            return self.later(latency, Event::Answer(link, call, payload));
        }
        if kind == "ServerCheckRequest" {
            let json = json!({
                "resultCode": 200,
                "connectionId": format!("c{}", self.peers.len()),
                "supportAbilityNegotiation": self.script.negotiates,
            });
            let payload = Payload::new(&response, json.to_string());
            return self.later(latency, Event::Answer(link, call, payload));
        }
        let service = json["serviceName"].as_str().unwrap_or_default().to_owned();
        let hosts = self.script.lists.get(&service).cloned().unwrap_or_default();
        let mut info = self.info(&service, &hosts);
        info["groupName"] = json["groupName"].clone();
        let peer = self.peers.get_mut(&link).unwrap();
        if !peer.registered || splits {
            return self.later(latency, Event::Answer(link, call, error(301)));
        }
        let mut body = json!({ "resultCode": 200, "message": "success" });
        match &*kind {
            "SubscribeServiceRequest" => {
                if json["subscribe"] == true {
                    peer.subscribed.insert(service);
                } else {
                    peer.subscribed.remove(&service);
                }
                body["serviceInfo"] = info;
            }
            "ServiceQueryRequest" => body["serviceInfo"] = info,
            "ServiceListRequest" => {
                let (page, size) = (json["pageNo"].as_u64(), json["pageSize"].as_u64());
                let (page, size) = (page.unwrap() as usize, size.unwrap() as usize);
                let all = self.script.lists.keys();
                let names: Vec<_> = all.skip((page - 1) * size).take(size).collect();
                body["count"] = json!(self.script.count.unwrap_or(self.script.lists.len() as u64));
                body["serviceNames"] = json!(names);
            }
            "InstanceRequest" => {
                let instance = &json["instance"];
                let address = format!("{}:{}", instance["ip"].as_str().unwrap(), instance["port"]);
                let batch = peer.batches.entry(service.clone()).or_default();
                if !self.script.adds_up {
                    batch.clear();
                }
                if json["type"] == "registerInstance" {
                    batch.insert(address.clone());
                    peer.published.insert(service, address);
                } else {
                    batch.remove(&address);
                    peer.published.remove(&service);
                }
            }
            "BatchInstanceRequest" => {
                let instances = json["instances"].as_array().unwrap().iter();
                let named =
                    instances.map(|one| format!("{}:{}", one["ip"].as_str().unwrap(), one["port"]));
                let batch = peer.batches.entry(service).or_default();
                match (json["type"].as_str().unwrap(), self.script.adds_up) {
                    ("batchRegisterInstance", true) => batch.extend(named),
                    ("batchRegisterInstance", false) => *batch = named.collect(),
                    ("deregisterInstance", true) => {
                        for address in named {
                            assert!(batch.remove(&address), "{address} is not there");
                        }
                    }
                    _ => return self.later(latency, Event::Answer(link, call, error(400))),
                }
            }
            "NamingFuzzyWatchRequest" => {
                peer.watching = json["watchType"] == "WATCH";
                if peer.watching {
                    self.tell_difference(link, &json);
                }
            }
            "HealthCheckRequest" => {}
            other => panic!("the scripted server does not know {other}"),
        }
        let payload = Payload::new(&response, body.to_string());
        self.later(latency, Event::Answer(link, call, payload));
    }

    /// What a server tells of a pattern that is watched from now on.
    fn tell_difference(&mut self, link: LinkId, request: &Value) {
        let Some(there) = &self.script.tells else {
            return; // the test tells
        };
        let received = request["receivedGroupKeys"].as_array().unwrap().iter();
        let received: BTreeSet<String> = received
            .map(|key| key.as_str().unwrap().to_owned())
            .collect();
        let context =
            |key: &String, change: &str| json!({ "serviceKey": key, "changedType": change });
        let new = there
            .difference(&received)
            .map(|key| context(key, "ADD_SERVICE"));
        let old = received
            .difference(there)
            .map(|key| context(key, "DELETE_SERVICE"));
        let contexts: Vec<Value> = new.chain(old).collect();
        let ends = [
            ("FUZZY_WATCH_INIT_NOTIFY", contexts),
            ("FINISH_FUZZY_WATCH_INIT_NOTIFY", Vec::new()),
        ];
        for (kind, contexts) in ends {
            let body = json!({
                "requestId": "5", "syncType": kind, "contexts": contexts,
                "groupKeyPattern": request["groupKeyPattern"],
            });
            let payload = Payload::new("NamingFuzzyWatchSyncRequest", body.to_string());
            self.later(self.script.latency, Event::Stream(link, payload));
        }
    }

    /// A service comes or goes, and whoever watches is told.
    pub(super) fn turn(&mut self, key: &str) {
        let there = self.script.tells.get_or_insert_default();
        let change = if there.remove(key) {
            "DELETE_SERVICE"
        } else {
            there.insert(key.to_owned());
            "ADD_SERVICE"
        };
        let body = json!({ "requestId": "6", "serviceKey": key, "changedType": change });
        let watching = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.watching && !peer.hung_up);
        for link in watching.map(|(link, _)| *link).collect::<Vec<_>>() {
            let payload = Payload::new("NamingFuzzyWatchChangeNotifyRequest", body.to_string());
            self.later(self.script.latency, Event::Stream(link, payload));
        }
    }

    /// Lets calls fail as the driver would say it.
    pub(super) fn fail_calls_under_way(&mut self, failure: &CallFailure) {
        for call in std::mem::take(&mut self.under_way) {
            self.later(Duration::ZERO, Event::Fail(call, failure.clone()));
        }
    }

    fn info(&self, service: &str, hosts: &[&str]) -> Value {
        let host = |host: &&str| {
            let (ip, port) = host.rsplit_once(':').unwrap();
            json!({ "ip": ip, "port": port.parse::<u16>().unwrap(), "weight": 1.0 })
        };
        json!({
            "name": service,
            "groupName": "DEFAULT_GROUP",
            "hosts": hosts.iter().map(host).collect::<Vec<_>>(),
            "lastRefTime": self.at().as_millis() as u64,
        })
    }
}
