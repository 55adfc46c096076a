//! The loop that jumps from one event to the next, and the network in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tower_nacos::{
    model::{Address, Host, Instance, ServiceKey},
    simulation::{Action, Call, Note, Settings, SimClient, SimLink},
    testing::{ConnId, Profile, StreamEnd, machine::Machine},
};

use crate::{
    client::{Came, Client, FOUND, Watched, ensure},
    disk::Disk,
    lists::pool_name,
    network::{Down, Event, MS, SEC, Up, Wire},
    plan::Plan,
    tokens::Tokens,
    truth::{self, Provider, Server},
};

pub(crate) type Checked = Result<(), String>;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: StdRng,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) events: BTreeMap<(Instant, u64), Event>,
    pub(crate) serial: u64,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) keys: Vec<ServiceKey>,
    /// The machine's calls: whose they are, and what the client calls them.
    pub(crate) calls: BTreeMap<u64, (usize, SimLink, Call)>,
    pub(crate) last_call: u64,
    pub(crate) last_ticket: u64,
    /// Whether messages may get lost or lie, which only a safety read can make good.
    pub(crate) lies: bool,
    /// No faults any more.
    pub(crate) calm_since: Option<Instant>,
    pub(crate) race: f64,
    pub(crate) tokens: Tokens,
    pub(crate) names: bool,
    pub(crate) no_names_until: Instant,
    /// The last time that messages were held up: from when to when.
    pub(crate) held_up: (Instant, Instant),
    /// When something last happened that may take a while to settle.
    pub(crate) disturbed: Instant,
    /// The connection that a push came on, until it is acknowledged.
    pub(crate) unacknowledged: Option<SimLink>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) steps: u64,
}

pub(crate) const SERVICES: usize = 4;
/// One more, of persistent instances, which nobody subscribes.
pub(crate) const PERSISTENT: usize = SERVICES;
/// And so many more, which come and go and which nobody subscribes: they are listed.
pub(crate) const LISTED: usize = 14;
/// How old what comes may be, slow networks and delayed pushes included.
const STALE: Duration = Duration::from_secs(15);
/// How old a list of services may be: two passes of pages, and what comes is not true any more.
const LISTED_LATE: Duration = Duration::from_secs(40);
/// How long it takes at most to be told of a provider when nothing is in the way: the push's delay,
/// the scan for what is due, and the way there.
const TOLD: Duration = Duration::from_millis(800);

impl World {
    /// The world of a seed, in which `plan` is going to happen.
    pub(crate) fn new(seed: u64, plan: &Plan, trace: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        #[expect(
            clippy::disallowed_methods,
            reason = "an instant can only be read; time is only added to it"
        )]
        let start = Instant::now();
        let lies = rng.random_bool(0.5);
        let race = if rng.random_bool(0.5) { 0.3 } else { 0.0 };
        let profiles = [Profile::V2_2, Profile::V2_5, Profile::V3_0];
        let tokens = Tokens::new(seed, start);
        let servers = (0..rng.random_range(1..=3))
            .map(|n| {
                let profile = profiles[rng.random_range(0..profiles.len())];
                Server {
                    machine: Machine::new(
                        truth::settings(profile, race, tokens.login()),
                        seed ^ n,
                        start,
                    ),
                    epoch: 0,
                    up: true,
                    dead: false,
                    frozen_until: start,
                    conns: BTreeMap::new(),
                    ok_since: start,
                    scripts_until: start,
                    lists: BTreeMap::new(),
                    listed_since: BTreeMap::new(),
                    emptied: BTreeMap::new(),
                    profile,
                }
            })
            .collect();
        let key = |n| {
            let name = match n {
                ..=PERSISTENT => format!("s{n}"),
                _ => pool_name(n),
            };
            ServiceKey::new("public", name.parse().unwrap()).unwrap()
        };
        let mut world = Self {
            seed,
            start,
            now: start,
            events: BTreeMap::new(),
            serial: 0,
            servers,
            clients: Vec::new(),
            providers: Vec::new(),
            keys: (0..=PERSISTENT + LISTED).map(key).collect(),
            calls: BTreeMap::new(),
            last_call: 0,
            last_ticket: 0,
            lies,
            calm_since: None,
            race,
            tokens,
            names: rng.random_bool(0.3),
            no_names_until: start,
            held_up: (start, start),
            disturbed: start,
            unacknowledged: None,
            trace: trace.then(Vec::new),
            steps: 0,
            rng,
        };
        world.add_providers();
        world.add_listed();
        for _ in 0..world.rng.random_range(1..=3) {
            world.add_client();
        }
        for step in &plan.steps {
            world.later(step.at, Event::Step(*step));
        }
        world.later(plan.end, Event::EndOfFaults);
        world
    }

    fn add_client(&mut self) {
        let servers = (0..self.servers.len())
            .map(|n| {
                let addr = server_addr(n);
                let host = if self.names {
                    Host::parse(&format!("nacos-{n}")).unwrap()
                } else {
                    Host::Ip(addr.ip())
                };
                (host, addr.port())
            })
            .collect();
        let settings = Settings {
            safety_read: self.lies.then_some(SEC * 60),
            login: self.tokens.login().is_some(),
        };
        let unit = SimClient::new(servers, settings, self.rng.random(), self.now);
        let lag = self.rng.random_range(1..40) * MS;
        let disk = StdRng::seed_from_u64(self.seed ^ (self.clients.len() as u64) << 32);
        let disk = Disk::new(disk, self.now);
        self.clients.push(Client::new(unit, lag, disk, self.now));
        let client = self.clients.len() - 1;
        for service in 0..2 {
            self.subscribe(client, service);
        }
        for filter in 0..2 {
            self.watch(client, filter);
        }
    }

    /// Lets `events` happen until `end`.
    pub(crate) fn run(&mut self, end: Instant) -> Checked {
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let client = self.clients.iter().enumerate();
            let client = client
                .filter_map(|(n, c)| Some((c.unit.poll_timeout()?, n)))
                .min();
            let server = self.servers.iter().enumerate();
            let server = server
                .filter(|(_, s)| s.up)
                .filter_map(|(n, s)| Some((s.machine.poll_timeout()?.max(s.frozen_until), n)))
                .min();
            let at = [event, client.map(|c| c.0), server.map(|s| s.0)];
            let Some(at) = at.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            ensure(at >= self.now, || "time went back".to_owned())?;
            self.now = at.max(self.now);
            self.steps += 1;
            ensure(self.steps < 2_000_000, || "too many steps".to_owned())?;
            if let Some((due, n)) = server.filter(|(due, _)| *due <= at) {
                let machine = &mut self.servers[n].machine;
                machine.handle_timeout(due.max(self.now));
                let next = machine.poll_timeout();
                ensure(next.is_none_or(|next| next > self.now), || {
                    format!("server {n} is due again at once")
                })?;
                self.take_outputs(n);
            } else if event == Some(at) {
                let ((_, serial), event) = self.events.pop_first().unwrap();
                self.happen(serial, event)?;
            } else if let Some((_, n)) = client {
                let now = self.now;
                self.clients[n].unit.handle_timeout(now);
                let next = self.clients[n].unit.poll_timeout();
                ensure(next.is_none_or(|next| next > now), || {
                    format!("client {n} is due again at once")
                })?;
                self.after(n, Came::Other)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, serial: u64, event: Event) -> Checked {
        let now = self.now;
        match event {
            Event::ToServer { client, link, up } => {
                let wire = &self.clients[client].wires[&link];
                let server = wire.server;
                let blocked = self.blocked_until(client, server);
                let until = blocked.max(self.servers[server].frozen_until);
                if until > now && !matches!(up, Up::Noticed) {
                    self.events
                        .insert((until, serial), Event::ToServer { client, link, up });
                } else {
                    self.reach_server(client, link, up);
                }
            }
            Event::ToClient { client, link, down } => {
                let until = self.blocked_until(client, self.clients[client].wires[&link].server);
                if until > now {
                    self.events
                        .insert((until, serial), Event::ToClient { client, link, down });
                } else {
                    self.reach_client(client, link, down)?;
                }
            }
            Event::Dial { client, link } => {
                let server = self.clients[client].wires[&link].server;
                let until = self.blocked_until(client, server);
                if until > now {
                    self.events
                        .insert((until, serial), Event::Dial { client, link });
                } else {
                    self.dialled(client, link, server);
                }
            }
            Event::Connected {
                client,
                link,
                token,
            } => {
                self.clients[client]
                    .unit
                    .handle_connected(link, local(client), token, now);
                self.after(client, Came::Other)?;
            }
            Event::LogIn { client, link } => self.logs_in(client, link),
            Event::LoggedIn {
                client,
                link,
                token,
            } => self.logged_in(client, link, token)?,
            Event::Refused { client, link } => {
                self.clients[client].unit.handle_refused(link, now);
                self.after(client, Came::Other)?;
            }
            Event::Resolve {
                client,
                link,
                server,
                port,
            } => {
                let result = if self.no_names_until > now {
                    Err("no such name".to_owned())
                } else {
                    Ok(vec![SocketAddr::new(server_addr(server).ip(), port)])
                };
                self.clients[client]
                    .unit
                    .handle_resolved(link, server, result, now);
                self.after(client, Came::Other)?;
            }
            Event::FileRead {
                client,
                key,
                number,
            } => self.file_read(client, &key, number)?,
            Event::FileWrite { client, write } => self.file_written(client, &write)?,
            Event::ServerUp(server) => self.server_up(server),
            Event::ClearScripts(server) => {
                self.disturbed = self.disturbed.max(now);
                if self.servers[server].scripts_until <= now {
                    self.servers[server].machine.clear_scripts();
                    self.servers[server].ok_since = self.servers[server].ok_since.max(now);
                }
            }
            Event::Return(provider) => self.provider_returns(provider),
            Event::Replicate { server, provider } => self.replicate(server, provider),
            Event::Forget(provider) => self.forget(provider),
            Event::Calmer(client) => {
                self.disturbed = self.disturbed.max(now);
                self.clients[client].lag = 10 * MS;
                self.clients[client].disturbed = now;
                self.clients[client].slow_until = now;
            }
            Event::Start(provider) => self.start(provider),
            Event::Starts(client) => self.starts(client)?,
            Event::Break(client) => self.break_newest(client),
            Event::Step(step) => self.step(step)?,
            Event::EndOfFaults => self.end_of_faults(),
        }
        Ok(())
    }

    /// Carries out what a client says and checks what must hold.
    pub(crate) fn after(&mut self, client: usize, came: Came) -> Checked {
        let now = self.now;
        while let Some(action) = self.clients[client].unit.poll_action() {
            match action {
                Action::Resolve {
                    link, server, port, ..
                } => {
                    let delay = self.rng.random_range(1..300) * MS;
                    self.later(
                        delay,
                        Event::Resolve {
                            client,
                            link,
                            server,
                            port,
                        },
                    );
                }
                Action::Dial { link, addr } => {
                    let server = (0..self.servers.len()).find(|n| server_addr(*n) == addr);
                    let server = server.ok_or_else(|| format!("{addr} is nobody's"))?;
                    let wire = Wire::new(server, u32::MAX, now);
                    self.clients[client].wires.insert(link, wire);
                    let delay = self.delay(client);
                    self.later(delay, Event::Dial { client, link });
                }
                Action::OpenStream { link, payload } => {
                    self.wire(client, link)?.streaming = true;
                    self.up(client, link, Up::OpenStream(payload));
                }
                Action::Send { link, payload } => {
                    self.wire(client, link)?;
                    self.unacknowledged.take_if(|pushed| *pushed == link);
                    self.up(client, link, Up::Stream(payload));
                }
                Action::Call {
                    link,
                    call,
                    payload,
                    ..
                } => {
                    let wire = self.wire(client, link)?;
                    if wire.broken {
                        continue; // its timer will tell
                    }
                    wire.calls.insert(call);
                    self.clients[client].sent.insert(call, now);
                    let delay = self.delay(client);
                    let at = (now + delay).max(self.clients[client].wires[&link].last_up);
                    self.at(
                        at,
                        Event::ToServer {
                            client,
                            link,
                            up: Up::Call(call, payload),
                        },
                    );
                }
                Action::ReadFile { key, number } => self.reads_file(client, key, number)?,
                Action::WriteFile(write) => self.writes_file(client, write),
                Action::LogIn { link } => self.begins_login(client, link)?,
                Action::Hangup { link } => {
                    if let Some(wire) = self.clients[client].wires.get_mut(&link) {
                        wire.hung_up = true;
                        wire.calls.clear();
                        self.up(client, link, Up::Close);
                    }
                }
            }
        }
        if let Some(link) = self.unacknowledged.take() {
            return Err(format!(
                "client {client}: a push on {link:?} is not acknowledged"
            ));
        }
        let mut notes = Vec::new();
        while let Some(note) = self.clients[client].unit.poll_note() {
            notes.push(note);
        }
        for note in &notes {
            match note {
                Note::Connected(_) | Note::Connecting(_) => {
                    self.disturbed = self.disturbed.max(now)
                }
                // What was denied is asked again after up to a minute.
                Note::Failed { .. } | Note::ServicesFailed { .. } => {
                    self.disturbed = now + 60 * SEC
                }
                _ => {}
            }
            self.log(|| format!("client {client}: {came:?} {}", tell(note)));
        }
        if let Some(calm) = self.calm_since
            && now > calm + crate::client::RECONNECTED
            && let Some(Note::Connecting(why)) = notes
                .iter()
                .find(|note| matches!(note, Note::Connecting(_)))
        {
            return Err(format!(
                "client {client} lost its connection in peace: {why}"
            ));
        }
        // What comes may have been true a while ago, longer if it was held up.
        let (from, until) = self.held_up;
        let known = if until + STALE > now { from } else { now };
        let (providers, elapsed) = (&self.providers, now - self.start);
        let (listed, told) = self.listed_to(client, came);
        let serving = |service: usize| {
            let served =
                |p: &&Provider| p.service == service && p.is_serving() && p.since + STALE <= known;
            let served = providers.iter().filter(served);
            served.map(|p| p.address().clone()).collect()
        };
        let surely = |service: usize, address: &Address| {
            listed.iter().any(|(p, since)| {
                let p = &providers[*p];
                p.service == service && p.address() == address && *since <= told
            })
        };
        self.clients[client]
            .check(came, &notes, now, elapsed, serving, surely)
            .map_err(|error| format!("client {client}: {error}"))?;
        let connected = self.clients[client].connected;
        let (providers, known) = (&self.providers, known.checked_sub(LISTED_LATE));
        let known = known.unwrap_or(self.start);
        let closed = self.clients[client].closed;
        let lists = self.clients[client].lists.values_mut();
        for listed in lists.filter(|_| !closed) {
            let serves = |name: &_| Self::serves(providers, known, name);
            listed
                .check(connected, serves)
                .map_err(|error| format!("client {client}: {error}"))?;
        }
        for watched in self.clients[client].subs.values() {
            if let Some(trace) = &mut self.trace
                && notes
                    .iter()
                    .any(|note| matches!(note, Note::Listed { key, .. } if *key == watched.key))
            {
                trace.push(format!(
                    "{:>9} {}: {}",
                    "",
                    watched.key.name(),
                    watched.tell()
                ));
            }
        }
        self.nobody_is_offline_for_long(client)
    }

    /// Which providers the server in use lists and since when, and from which of them a client must
    /// have heard of by now.
    fn listed_to(&self, client: usize, came: Came) -> (BTreeMap<usize, Instant>, Instant) {
        let c = &self.clients[client];
        let link = match came {
            Came::Stream(link) | Came::Answer(link, _) | Came::Late(link) => Some(link),
            Came::Other | Came::File => c.open_links().last().map(|(link, _)| *link),
        };
        let wire = link.map(|link| &c.wires[&link]);
        let wire = wire.filter(|wire| !wire.cut); // nothing comes any more
        let Some(server) = wire.map(|wire| &self.servers[wire.server]) else {
            return (BTreeMap::new(), self.start);
        };
        let last = [self.held_up.1, server.scripts_until, c.slow_until];
        let quiet = c.lag <= 40 * MS && last.iter().all(|at| *at + STALE < self.now);
        let told = match (quiet, self.lies) {
            (true, _) => TOLD,
            (false, false) => STALE,
            (false, true) => return (BTreeMap::new(), self.start), // it may hear of nothing
        };
        let told = self.now.checked_sub(told).unwrap_or(self.start);
        (server.listed_since.clone(), told)
    }

    /// No two minutes offline while one server is within reach all the time, and no longer than
    /// an attempt while all of them are.
    fn nobody_is_offline_for_long(&self, client: usize) -> Checked {
        let c = &self.clients[client];
        if c.connected || c.closed {
            return Ok(());
        }
        let within_reach = |(n, server): (usize, &Server)| {
            let blocked = c.blocked.get(&n).copied().unwrap_or(self.start);
            let since = [
                server.ok_since,
                server.frozen_until,
                server.scripts_until,
                self.no_names_until,
                blocked,
                c.offline_since,
            ];
            (server.up && since.iter().all(|at| *at <= self.now))
                .then(|| self.now - *since.iter().max().unwrap_or(&self.start))
        };
        let one = self
            .servers
            .iter()
            .enumerate()
            .filter_map(within_reach)
            .max();
        ensure(one.is_none_or(|reach| reach <= SEC * 120), || {
            format!("client {client} is offline although a server is there")
        })?;
        let alive = self.servers.iter().enumerate().filter(|(_, s)| !s.dead);
        let all: Option<Vec<Duration>> = alive.map(within_reach).collect();
        let all = all.and_then(|all| all.into_iter().min());
        let undisturbed = self.now.saturating_duration_since(c.disturbed);
        let slow = c.lag > 100 * MS;
        ensure(
            slow || all.is_none_or(|reach| reach.min(undisturbed) <= FOUND),
            || format!("client {client} is offline although all servers are there"),
        )
    }

    /// Messages are held up from now until then.
    pub(crate) fn hold_up(&mut self, until: Instant) {
        let (from, before) = self.held_up;
        let from = if before + STALE > self.now {
            from
        } else {
            self.now
        };
        self.held_up = (from, until.max(before));
    }

    pub(crate) fn later(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>9.3} {}",
                (self.now - self.start).as_secs_f64(),
                line()
            ));
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(crate) fn is_connected_to(&self, client: usize) -> Option<(usize, ConnId)> {
        let mut open = self.clients[client].open_links();
        let (_, wire) = open.next()?;
        Some((wire.server, wire.conn?))
    }

    /// What a server believes to be registered by whom.
    pub(crate) fn clients_of(&self, server: usize) -> BTreeMap<usize, Vec<ConnId>> {
        let mut clients: BTreeMap<usize, Vec<ConnId>> = BTreeMap::new();
        if self.servers[server].up {
            for conn in self.servers[server].machine.view().registered() {
                if let Some((client, _)) = self.owner(server, conn) {
                    clients.entry(client).or_default().push(conn);
                }
            }
        }
        clients
    }

    /// What a server should list in the end.
    pub(crate) fn expected(&self, service: usize, server: usize) -> Vec<Instance> {
        let providers = self.providers.iter();
        let mut instances: Vec<Instance> = providers
            .filter(|p| p.service == service && p.alive)
            .map(|p| p.instance.clone())
            .collect();
        for (n, client) in self.clients.iter().enumerate() {
            let here = self.is_connected_to(n).is_some_and(|(s, _)| s == server);
            let published = client.publishes.get(&service).filter(|_| here);
            instances.extend(published.into_iter().flatten().cloned());
        }
        instances
    }

    /// What it lists now.
    pub(crate) fn listed(&self, service: usize, server: usize) -> Vec<Instance> {
        let lists = self.servers[server].lists.values();
        let mut instances = Vec::new();
        for address in self.addresses(server, service) {
            let known = lists
                .clone()
                .filter(|instance| instance.address().to_string() == address);
            let before = instances.len();
            instances.extend(known.cloned());
            if instances.len() == before {
                instances.push(Instance::parse(&address).unwrap());
            }
        }
        instances
    }

    /// Why what a client has of a service is not what it should make of `instances`.
    pub(crate) fn differs(
        &self,
        watched: &Watched,
        server: usize,
        instances: &[Instance],
    ) -> Option<String> {
        let view = self.servers[server].machine.view();
        let threshold = view.protect_threshold(&watched.key);
        truth::differs(&watched.sub.snapshot(), instances, threshold)
    }

    pub(crate) fn addresses(&self, server: usize, service: usize) -> BTreeSet<String> {
        let view = self.servers[server].machine.view();
        view.addresses(&self.keys[service]).into_iter().collect()
    }

    /// The connection breaks for both, who learn of it one by one.
    pub(crate) fn break_link(&mut self, client: usize, link: SimLink) {
        self.clients[client].disturbed = self.now;
        self.down(client, link, Down::Broken);
        let delay = self.rng.random_range(0..2_000) * MS;
        self.later(
            delay,
            Event::ToServer {
                client,
                link,
                up: Up::Noticed,
            },
        );
    }

    pub(crate) fn end_stream(&mut self, server: usize, conn: ConnId, end: StreamEnd) {
        let now = self.now;
        self.servers[server].machine.end_stream(conn, end, now);
        self.take_outputs(server);
    }
}

pub(crate) fn server_addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n as u8 + 1], 9848))
}

pub(crate) fn local(client: usize) -> IpAddr {
    IpAddr::from([10, 0, 1, client as u8])
}

pub(crate) fn contains(payload: &Bytes, text: &[u8]) -> bool {
    payload.windows(text.len()).any(|window| window == text)
}

fn tell(note: &Note) -> String {
    match note {
        Note::Listed { key, origin, .. } => format!("{origin:?} {}", key.name()),
        Note::Failed { key, what, retries } => format!("{} {what}, retries: {retries}", key.name()),
        other => format!("{other:?}"),
    }
}
