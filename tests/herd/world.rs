//! Servers, clients, and a network with a latency and nothing else.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tower_nacos::{
    model::{Host, ServiceKey},
    simulation::{Action, Call, Failure, Note, Settings, SimClient, SimLink, Token},
    testing::{self, ConnId, Login, OperatorCall, machine::Machine, machine::Output},
};

/// What is counted, by when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connected,
    Login,
}

enum Event {
    ToServer(usize, SimLink, Up),
    ToClient(usize, SimLink, Down),
    ClientDue(usize),
    ServerDue(usize),
}

enum Up {
    Dial,
    LogIn,
    OpenStream(Bytes),
    Stream(Bytes),
    Call(Call, Bytes),
    Close,
}

enum Down {
    Connected(Option<Token>),
    LoggedIn(Option<Token>),
    Refused,
    Answer(Call, Bytes),
    Failed(Call, i32),
    Stream(Bytes),
    Broken,
}

struct Node {
    machine: Machine,
    up: bool,
    conns: HashMap<ConnId, (usize, SimLink)>,
    calls: HashMap<u64, (usize, SimLink, Call)>,
    due: Option<Instant>,
}

struct Member {
    unit: SimClient,
    wires: BTreeMap<SimLink, Wire>,
    at: Option<SocketAddr>,
    due: Option<Instant>,
}

/// A connection as its client has it.
struct Wire {
    server: usize,
    conn: Option<ConnId>,
    calls: Vec<Call>,
    open: bool,
}

pub(crate) struct World {
    now: Instant,
    start: Instant,
    serial: u64,
    last_call: u64,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: HashMap<u64, Event>,
    nodes: Vec<Node>,
    members: Vec<Member>,
    login: Option<Login>,
    seen: Vec<(Kind, Duration)>,
}

impl World {
    /// `clients` of `servers`, each with one subscription, begin within two seconds.
    pub(crate) fn new(servers: usize, clients: usize, login: bool, seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the origin of virtual time; never read again"
        )]
        let start = Instant::now();
        let login = login.then(|| Login::new("user", "password"));
        let node = |n| {
            let mut settings = testing::Settings::default();
            settings.login.clone_from(&login);
            Node {
                machine: Machine::new(settings, seed + n as u64, start),
                up: true,
                conns: HashMap::new(),
                calls: HashMap::new(),
                due: None,
            }
        };
        let mut world = Self {
            now: start,
            start,
            serial: 0,
            last_call: 0,
            events: BinaryHeap::new(),
            what: HashMap::new(),
            nodes: (0..servers).map(node).collect(),
            members: Vec::new(),
            login,
            seen: Vec::new(),
        };
        let hosts: Vec<_> = (0..servers).map(address).collect();
        let hosts = hosts.iter().map(|at| (Host::Ip(at.ip()), at.port()));
        let hosts: Vec<_> = hosts.collect();
        let orders = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
        for n in 0..clients {
            let settings = Settings {
                safety_read: Some(Duration::from_secs(60)),
                login: world.login.is_some(),
            };
            let unit = SimClient::new(hosts.clone(), settings, seed << 32 | n as u64, start);
            world.members.push(Member {
                unit,
                wires: BTreeMap::new(),
                at: None,
                due: None,
            });
            // Its last handle is this one; nobody reads what it is told.
            std::mem::forget(world.members[n].unit.subscribe(&orders, start));
            world.client_acted(n);
        }
        world
    }

    pub(crate) fn at(&self) -> Duration {
        self.now - self.start
    }

    /// How many clients each server has.
    pub(crate) fn connected(&self) -> Vec<usize> {
        let at = |n| {
            self.members
                .iter()
                .filter(|m| m.at == Some(address(n)))
                .count()
        };
        (0..self.nodes.len()).map(at).collect()
    }

    pub(crate) fn times(&self, kind: Kind) -> Vec<Duration> {
        let of = self.seen.iter().filter(|(seen, _)| *seen == kind);
        of.map(|(_, at)| *at).collect()
    }

    /// The server's process is gone, and the system tells all its clients at once.
    pub(crate) fn kill(&mut self, server: usize) {
        let node = &mut self.nodes[server];
        node.up = false;
        node.calls.clear();
        let mut conns: Vec<_> = node.conns.drain().map(|(_, of)| of).collect();
        conns.sort_unstable();
        for (client, link) in conns {
            self.send_down(client, link, Down::Broken);
        }
    }

    /// It starts again and knows nothing.
    pub(crate) fn start(&mut self, server: usize) {
        let node = &mut self.nodes[server];
        node.machine.restart(self.now);
        node.up = true;
    }

    pub(crate) fn run_until(&mut self, at: Duration) {
        let until = self.start + at;
        while let Some(Reverse((due, serial))) = self.events.peek().copied() {
            if due > until {
                break;
            }
            self.events.pop();
            self.now = due;
            let event = self.what.remove(&serial).expect("each event is one");
            self.happens(event);
        }
        self.now = until;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::ToServer(client, link, up) => self.reaches_server(client, link, up),
            Event::ToClient(client, link, down) => self.reaches_client(client, link, down),
            Event::ClientDue(client) => {
                self.members[client].due = None;
                self.members[client].unit.handle_timeout(self.now);
                self.client_acted(client);
            }
            Event::ServerDue(server) => {
                self.nodes[server].due = None;
                self.nodes[server].machine.handle_timeout(self.now);
                self.server_acted(server);
            }
        }
    }

    fn reaches_server(&mut self, client: usize, link: SimLink, up: Up) {
        let now = self.now;
        let Some(wire) = self.members[client].wires.get_mut(&link) else {
            return;
        };
        let n = wire.server;
        let node = &mut self.nodes[n];
        if !node.up {
            let down = if matches!(up, Up::Dial) {
                Down::Refused
            } else {
                Down::Broken
            };
            return self.send_down(client, link, down);
        }
        match (up, wire.conn) {
            (Up::Dial, _) => {
                let port = 1_024 + (client % 60_000) as u16;
                let conn = node.machine.open(SocketAddr::new(local(client), port), now);
                wire.conn = Some(conn);
                node.conns.insert(conn, (client, link));
                let token = self.grant(n);
                self.send_down(client, link, Down::Connected(token));
            }
            (_, None) => return,
            (Up::LogIn, Some(_)) => {
                let token = self.grant(n);
                self.send_down(client, link, Down::LoggedIn(token));
            }
            (Up::OpenStream(payload), Some(conn)) => {
                node.machine.handle_stream_opened(conn, now);
                node.machine.handle_stream(conn, &payload, now);
            }
            (Up::Stream(payload), Some(conn)) => node.machine.handle_stream(conn, &payload, now),
            (Up::Call(call, payload), Some(conn)) => {
                self.last_call += 1;
                node.calls.insert(self.last_call, (client, link, call));
                node.machine
                    .handle_unary(conn, self.last_call, &payload, now);
            }
            (Up::Close, Some(conn)) => {
                node.machine.handle_closed(conn, now);
                node.conns.remove(&conn);
                self.members[client].wires.remove(&link);
            }
        }
        self.server_acted(n);
    }

    fn grant(&mut self, server: usize) -> Option<Token> {
        let login = self.login.clone()?;
        self.seen.push((Kind::Login, self.at()));
        let call = OperatorCall::new("POST", "/nacos/v1/auth/login")
            .with("username", &login.username)
            .with("password", &login.password);
        let answer = self.nodes[server].machine.operator(&call, self.now);
        let text = answer
            .body
            .split('"')
            .nth(3)
            .filter(|_| answer.status == 200);
        text.map(|text| (text.to_owned(), login.token_ttl))
    }

    fn server_acted(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].machine.poll_output() {
            let node = &mut self.nodes[n];
            match output {
                Output::Answer { call, payload, .. } => {
                    if let Some((client, link, call)) = node.calls.remove(&call) {
                        self.send_down(client, link, Down::Answer(call, payload));
                    }
                }
                Output::Fail { call, code, .. } => {
                    if let Some((client, link, call)) = node.calls.remove(&call) {
                        self.send_down(client, link, Down::Failed(call, code));
                    }
                }
                Output::Stream { conn, payload } => {
                    if let Some((client, link)) = node.conns.get(&conn).copied() {
                        self.send_down(client, link, Down::Stream(payload));
                    }
                }
                Output::EndStream { conn, .. } | Output::CloseTransport { conn } => {
                    if let Some((client, link)) = node.conns.remove(&conn) {
                        self.send_down(client, link, Down::Broken);
                    }
                }
                _ => {}
            }
        }
        let due = self.nodes[n].machine.poll_timeout();
        if let Some(due) = due.filter(|due| self.nodes[n].due.is_none_or(|now| *due < now)) {
            self.nodes[n].due = Some(due);
            self.at_time(due, Event::ServerDue(n));
        }
    }

    fn reaches_client(&mut self, client: usize, link: SimLink, down: Down) {
        let now = self.now;
        let member = &mut self.members[client];
        let Some(wire) = member.wires.get_mut(&link).filter(|wire| wire.open) else {
            return;
        };
        match down {
            Down::Connected(token) => member
                .unit
                .handle_connected(link, local(client), token, now),
            Down::LoggedIn(token) => member.unit.handle_logged_in(link, token, now),
            Down::Refused => {
                wire.open = false;
                member.unit.handle_refused(link, now);
            }
            Down::Answer(call, payload) => {
                wire.calls.retain(|other| *other != call);
                member.unit.handle_answer(call, Ok(payload), now);
            }
            Down::Failed(call, code) => {
                wire.calls.retain(|other| *other != call);
                member
                    .unit
                    .handle_answer(call, Err(Failure::Status(code)), now);
            }
            Down::Stream(payload) => member.unit.handle_stream(link, payload, now),
            Down::Broken => {
                wire.open = false;
                let calls = std::mem::take(&mut wire.calls);
                member.unit.handle_stream_ended(link, "broken", now);
                for call in calls {
                    member.unit.handle_answer(call, Err(Failure::Lost), now);
                }
            }
        }
        self.client_acted(client);
    }

    fn client_acted(&mut self, n: usize) {
        let now = self.now;
        while let Some(action) = self.members[n].unit.poll_action() {
            match action {
                Action::Dial { link, addr } => {
                    let server = (0..self.nodes.len()).find(|n| address(*n) == addr);
                    let wire = Wire {
                        server: server.expect("the address is one of ours"),
                        conn: None,
                        calls: Vec::new(),
                        open: true,
                    };
                    self.members[n].wires.insert(link, wire);
                    self.send_up(n, link, Up::Dial);
                }
                Action::OpenStream { link, payload } => {
                    self.send_up(n, link, Up::OpenStream(payload));
                }
                Action::Send { link, payload } => self.send_up(n, link, Up::Stream(payload)),
                Action::Call {
                    link,
                    call,
                    payload,
                    ..
                } => {
                    if let Some(wire) = self.members[n].wires.get_mut(&link) {
                        wire.calls.push(call);
                    }
                    self.send_up(n, link, Up::Call(call, payload));
                }
                Action::LogIn { link } => self.send_up(n, link, Up::LogIn),
                Action::Hangup { link } => {
                    if let Some(wire) = self.members[n].wires.get_mut(&link) {
                        wire.open = false;
                    }
                    self.send_up(n, link, Up::Close);
                }
                Action::ReadFile { key, number } => {
                    self.members[n]
                        .unit
                        .handle_file_read(&key, number, None, now);
                }
                Action::Resolve { .. } | Action::WriteFile(_) => {}
            }
        }
        while let Some(note) = self.members[n].unit.poll_note() {
            match note {
                Note::Connected(addr) => {
                    self.members[n].at = Some(addr);
                    self.seen.push((Kind::Connected, self.at()));
                }
                Note::Connecting(_) => self.members[n].at = None,
                _ => {}
            }
        }
        let member = &mut self.members[n];
        let due = member.unit.poll_timeout();
        if let Some(due) = due.filter(|due| member.due.is_none_or(|now| *due < now)) {
            member.due = Some(due);
            self.at_time(due, Event::ClientDue(n));
        }
    }

    fn send_up(&mut self, client: usize, link: SimLink, up: Up) {
        self.at_time(self.now + LATENCY, Event::ToServer(client, link, up));
    }

    fn send_down(&mut self, client: usize, link: SimLink, down: Down) {
        self.at_time(self.now + LATENCY, Event::ToClient(client, link, down));
    }

    fn at_time(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.what.insert(self.serial, event);
        self.events.push(Reverse((at.max(self.now), self.serial)));
    }
}

const LATENCY: Duration = Duration::from_millis(1);

fn address(server: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, server as u8 + 1], 9848))
}

fn local(client: usize) -> IpAddr {
    IpAddr::from([10, 1, (client / 256) as u8, client as u8])
}
