//! The embedded registry against the transcripts of Alibaba's servers: fed what clients and the
//! operator sent, in virtual time, it answers the same types, codes and lists.
//!
//! Left out of the comparison: stamps, ids, the order of hosts, the wording of messages, server
//! lines whose request was not recorded, and calls between a setup and its registration, which takes
//! a real server some milliseconds and the machine none. Pushes are compared where lists have
//! settled, and reads where a push was neither due nor late.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tower_nacos::testing::{
    ConnId, Frame, Profile, Settings, StreamEnd,
    machine::{Machine, Output},
};

#[path = "golden_registry/transcript.rs"]
mod transcript;

use transcript::{Line, load};

const SCENARIOS: [&str; 13] = [
    "acks",
    "burst",
    "clusters",
    "delay",
    "handshake",
    "operator",
    "ownership",
    "protection",
    "subscribe-rules",
    "weights",
    "errors",
    "namespaces",
    "fuzzy",
];

/// A push leaves 500 ms after the change in the machine, up to this much later in the recordings.
const DELAY: u64 = 500;
const LATE: u64 = 640;
/// How clients acknowledge lists, and what is told of watched patterns.
const PUSHED: &str = "NotifySubscriberResponse";
const WATCHED: &str = "NamingFuzzyWatchChangeNotifyResponse";
/// After this long without anybody doing anything, all lists have settled.
const QUIET: u64 = 1_200;

struct Replay {
    machine: Machine,
    start: Instant,
    conns: BTreeMap<String, ConnId>,
    streams: BTreeSet<ConnId>,
    /// Who was recorded to be given up, and so answers no detection.
    deaf: BTreeSet<String>,
    answers: BTreeMap<u64, Frame>,
    /// Lists pushed, by connection and service: ours and the recorded ones.
    ours: BTreeMap<(String, String), Vec<Value>>,
    theirs: BTreeMap<(String, String), Vec<Value>>,
    /// Other frames on the stream, ours and the recorded ones.
    frames: BTreeMap<String, [Vec<(String, Value)>; 2]>,
    ends: BTreeMap<String, [Option<String>; 2]>,
    /// Frames that wait for their acknowledgement, and acknowledgements that wait for their frame, by
    /// connection and type of the acknowledgement.
    unacked: BTreeMap<(ConnId, &'static str), VecDeque<String>>,
    owed: BTreeMap<(ConnId, &'static str), VecDeque<Value>>,
    /// In how many namespaces a connection subscribed to a service: a push does not say which.
    namespaces: BTreeMap<(String, String), BTreeSet<String>>,
    changes: BTreeMap<String, Vec<u64>>,
    compared: [usize; 2],
    faults: String,
}

#[test]
fn the_registry_answers_as_alibaba_2_5_1_was_recorded_to() {
    replay_all("alibaba-2.5.1", Profile::V2_5);
}

#[test]
fn the_registry_answers_as_alibaba_3_0_3_was_recorded_to() {
    replay_all("alibaba-3.0.3", Profile::V3_0);
}

fn replay_all(server: &str, profile: Profile) {
    let mut faults = String::new();
    let mut compared = [0, 0];
    for scenario in SCENARIOS {
        let lines = load(server, scenario);
        let mut replay = Replay::new(profile, &lines);
        replay.run(&lines);
        if !replay.faults.is_empty() {
            let _ = writeln!(faults, "{server} {scenario}:\n{}", replay.faults);
        }
        compared[0] += replay.compared[0];
        compared[1] += replay.compared[1];
    }
    assert!(faults.is_empty(), "{faults}");
    // A replay that skips everything would agree with anything.
    assert!(compared[0] >= 220 && compared[1] >= 120, "{compared:?}");
    println!(
        "{server}: {} answers, {} pushed lists",
        compared[0], compared[1]
    );
}

impl Replay {
    fn new(profile: Profile, lines: &[Line]) -> Self {
        let mut settings = Settings::default();
        settings.profile = profile;
        // When a real server looks for due pushes cannot be known from outside.
        settings.push_scan = Duration::from_millis(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "where virtual time begins makes no difference"
        )]
        let start = Instant::now();
        let ended = lines.iter().filter(|line| line.end.is_some());
        Self {
            machine: Machine::new(settings, 1, start),
            start,
            conns: BTreeMap::new(),
            streams: BTreeSet::new(),
            deaf: ended.map(|line| line.conn.clone()).collect(),
            answers: BTreeMap::new(),
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            frames: BTreeMap::new(),
            ends: BTreeMap::new(),
            unacked: BTreeMap::new(),
            owed: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            changes: BTreeMap::new(),
            compared: [0, 0],
            faults: String::new(),
        }
    }

    fn run(&mut self, lines: &[Line]) {
        let mut last_action = 0;
        let mut set_up: BTreeSet<&str> = BTreeSet::new();
        for line in lines {
            self.advance(line.ms);
            let acting =
                line.call.is_some() || (line.from == "client" && !line.kind.ends_with("Response"));
            if acting {
                if line.ms - last_action >= QUIET {
                    self.compare_settled(line.ms);
                }
                last_action = line.ms;
            }
            if let Some(call) = &line.call {
                self.changed(&call.params["serviceName"], line.ms);
                let answer = self.machine.operator(call, self.at(line.ms));
                if answer.status != 200 {
                    self.fault(line.ms, &format!("{call:?}: {answer:?}"));
                }
                self.drain(line.ms);
                continue;
            }
            let conn = self.conn(line);
            match (&*line.from, &*line.via) {
                ("client", _) if line.kind == "close" => {
                    self.machine.handle_closed(conn, self.at(line.ms));
                }
                ("client", "stream") => {
                    if line.kind == "ConnectionSetupRequest" {
                        set_up.insert(&line.conn);
                    }
                    self.on_stream(line, conn);
                }
                ("client", _) => {
                    let answer = line.answer.map(|at| &lines[at]);
                    let early = answer.is_some_and(|a| a.body["errorCode"] == 301);
                    if !(early && set_up.contains(&*line.conn)) {
                        self.on_call(line, answer, conn);
                    }
                }
                ("server", "stream") => self.on_frame(line),
                _ => {}
            }
            self.drain(line.ms);
        }
        let end = lines.last().unwrap().ms;
        // What was just done at the end of a recording was not recorded to settle.
        if end - last_action >= DELAY {
            self.compare_settled(end);
        }
        for key in self.theirs.keys().cloned().collect::<Vec<_>>() {
            let count = |lists: &BTreeMap<_, Vec<Value>>| lists.get(&key).map_or(0, Vec::len);
            let (ours, theirs) = (count(&self.ours), count(&self.theirs));
            // The grid on which a real server looks makes its pushes up to a fifth rarer.
            if ours.abs_diff(theirs) > theirs / 5 {
                self.fault(end, &format!("{ours} pushes to {key:?}, recorded {theirs}"));
            }
        }
        let (frames, ends) = (self.frames.clone(), self.ends.clone());
        for (conn, [ours, theirs]) in frames {
            self.same(end, &format!("frames to {conn}"), &ours, &theirs);
        }
        self.advance(end + 1_000); // a detection ends up to a sweep later
        for (conn, [_, theirs]) in ends {
            let ours = self.ends[&conn][0].clone();
            self.same(end, &format!("end of {conn}"), &ours, &theirs);
        }
    }

    fn on_stream(&mut self, line: &Line, conn: ConnId) {
        let now = self.at(line.ms);
        match &*line.kind {
            "ClientDetectionResponse" => {} // answered as it came
            PUSHED => self.on_ack(conn, PUSHED, line),
            WATCHED => self.on_ack(conn, WATCHED, line),
            _ => {
                if self.streams.insert(conn) {
                    self.machine.handle_stream_opened(conn, now);
                }
                self.machine.handle_stream(conn, &line.encoded(), now);
            }
        }
    }

    /// Ids differ: an acknowledgement goes to the oldest frame that has none, or waits.
    fn on_ack(&mut self, conn: ConnId, kind: &'static str, line: &Line) {
        let unacked = self.unacked.entry((conn, kind)).or_default().pop_front();
        match unacked {
            Some(id) => self.ack(conn, kind, id, line.body.clone(), line.ms),
            None => {
                let owed = self.owed.entry((conn, kind)).or_default();
                owed.push_back(line.body.clone());
            }
        }
    }

    fn on_call(&mut self, line: &Line, answer: Option<&Line>, conn: ConnId) {
        let service = line.body["serviceName"].as_str().unwrap_or_default();
        let uncertain = self.is_uncertain(service, line.ms);
        match &*line.kind {
            "SubscribeServiceRequest" => {
                let namespace = line.body["namespace"].as_str().unwrap_or_default();
                let key = (line.conn.clone(), service.to_owned());
                self.namespaces
                    .entry(key)
                    .or_default()
                    .insert(namespace.to_owned());
            }
            "InstanceRequest" | "BatchInstanceRequest" => self.changed(service, line.ms),
            _ => {}
        }
        let now = self.at(line.ms);
        self.machine.handle_unary(conn, 0, &line.encoded(), now);
        self.drain(line.ms);
        let ours = self.answers.remove(&0);
        let Some(answer) = answer else {
            return;
        };
        let Some(ours) = ours else {
            self.fault(line.ms, &format!("no answer to {}", line.kind));
            return;
        };
        let what = format!("answer to {} {}", line.kind, line.body);
        let our_body: Value = serde_json::from_slice(&ours.body).unwrap();
        let read = line.kind == "ServiceQueryRequest" || line.kind == "SubscribeServiceRequest";
        if read && uncertain {
            self.same(line.ms, &what, &ours.kind, &answer.kind);
        } else if line.kind == "ServiceListRequest" && line.body["namespace"] == "public" {
            // It counts the services of other recordings too.
            let codes = |body: &Value| (body["resultCode"].clone(), body["errorCode"].clone());
            self.same(line.ms, &what, &codes(&our_body), &codes(&answer.body));
            let past = line.body["pageNo"] == 999;
            let empty = our_body["serviceNames"].as_array().unwrap().is_empty();
            self.same(line.ms, &what, &empty, &past);
        } else {
            let ours = (ours.kind, comparable(&our_body));
            let theirs = (answer.kind.clone(), comparable(&answer.body));
            self.same(line.ms, &what, &ours, &theirs);
            self.compared[0] += 1;
        }
    }

    /// A frame that the recorded server sent.
    fn on_frame(&mut self, line: &Line) {
        if let Some(end) = &line.end {
            self.ends.entry(line.conn.clone()).or_default()[1] = Some(end.clone());
            return;
        }
        match &*line.kind {
            "ClientDetectionRequest" => {}
            "NotifySubscriberRequest" => {
                let (service, list) = pushed(&line.body);
                let key = (line.conn.clone(), service.clone());
                self.theirs.entry(key.clone()).or_default().push(list);
                let changes = self.changes.get(&service).into_iter().flatten();
                let last = changes.max().copied().unwrap_or(0);
                if line.ms - last >= DELAY {
                    self.compare_last(line.ms, &key);
                }
            }
            _ => self.frames.entry(line.conn.clone()).or_default()[1]
                .push((line.kind.clone(), comparable(&line.body))),
        }
    }

    /// Lets virtual time pass, stopping wherever the machine has something to do.
    fn advance(&mut self, ms: u64) {
        let until = self.at(ms);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= until) {
            self.machine.handle_timeout(due);
            let ms = due.duration_since(self.start).as_millis();
            self.drain(u64::try_from(ms).unwrap());
        }
    }

    fn drain(&mut self, ms: u64) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Answer { call, payload, .. } => {
                    self.answers.insert(call, Frame::decode(&payload).unwrap());
                }
                Output::Stream { conn, payload } => {
                    self.on_our_frame(conn, &Frame::decode(&payload).unwrap(), ms);
                }
                Output::EndStream { conn, end } => {
                    let status = match end {
                        StreamEnd::Clean => "OK".to_owned(),
                        other => format!("{other:?}"),
                    };
                    self.ends.entry(self.name(conn)).or_default()[0] = Some(status);
                }
                other => self.fault(ms, &format!("{other:?}")),
            }
        }
    }

    fn on_our_frame(&mut self, conn: ConnId, frame: &Frame, ms: u64) {
        let name = self.name(conn);
        let body: Value = serde_json::from_slice(&frame.body).unwrap();
        match &*frame.kind {
            "NotifySubscriberRequest" => {
                let (service, list) = pushed(&body);
                self.ours.entry((name, service)).or_default().push(list);
                self.await_ack(conn, PUSHED, frame, ms);
            }
            "ClientDetectionRequest" => {
                if !self.deaf.contains(&name) {
                    let body = json!({"requestId": body["requestId"], "resultCode": 200});
                    let answer = Frame::new("ClientDetectionResponse", body.to_string());
                    let now = self.at(ms);
                    self.machine.handle_stream(conn, &answer.encode(), now);
                }
            }
            kind => {
                let frames = self.frames.entry(name).or_default();
                frames[0].push((kind.to_owned(), comparable(&body)));
                if kind.starts_with("NamingFuzzyWatch") {
                    self.await_ack(conn, WATCHED, frame, ms);
                }
            }
        }
    }

    fn await_ack(&mut self, conn: ConnId, kind: &'static str, frame: &Frame, ms: u64) {
        let id = frame.field("/requestId").unwrap();
        let owed = self.owed.entry((conn, kind)).or_default().pop_front();
        match owed {
            Some(ack) => self.ack(conn, kind, id, ack, ms),
            None => self.unacked.entry((conn, kind)).or_default().push_back(id),
        }
    }

    fn ack(&mut self, conn: ConnId, kind: &str, id: String, mut body: Value, ms: u64) {
        body["requestId"] = json!(id);
        let ack = Frame::new(kind, body.to_string());
        let now = self.at(ms);
        self.machine.handle_stream(conn, &ack.encode(), now);
    }

    fn compare_settled(&mut self, ms: u64) {
        let keys: Vec<_> = self
            .theirs
            .keys()
            .chain(self.ours.keys())
            .cloned()
            .collect();
        for key in keys.into_iter().collect::<BTreeSet<_>>() {
            self.compare_last(ms, &key);
        }
    }

    fn compare_last(&mut self, ms: u64, key: &(String, String)) {
        let several = self.namespaces.get(key).map_or(1, BTreeSet::len);
        let last = |lists: &BTreeMap<_, Vec<Value>>| {
            let lists = lists.get(key).into_iter().flatten().rev().take(several);
            lists.map(Value::to_string).collect::<BTreeSet<String>>()
        };
        let (ours, theirs) = (last(&self.ours), last(&self.theirs));
        self.same(ms, &format!("list pushed to {key:?}"), &ours, &theirs);
        self.compared[1] += 1;
    }

    /// Whether a push that changes reads may have left the one server and not the other.
    fn is_uncertain(&self, service: &str, ms: u64) -> bool {
        let changes = self.changes.get(service).into_iter().flatten();
        changes
            .map(|at| ms - at)
            .any(|age| (DELAY - 5..=LATE).contains(&age))
    }

    fn changed(&mut self, service: &str, ms: u64) {
        self.changes.entry(service.to_owned()).or_default().push(ms);
    }

    fn conn(&mut self, line: &Line) -> ConnId {
        let now = self.at(line.ms);
        let port = u16::try_from(self.conns.len()).unwrap() + 40_000;
        *self.conns.entry(line.conn.clone()).or_insert_with(|| {
            self.machine
                .open(SocketAddr::from(([127, 0, 0, 1], port)), now)
        })
    }

    fn name(&self, conn: ConnId) -> String {
        let found = self.conns.iter().find(|(_, id)| **id == conn);
        found.unwrap().0.clone()
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, ms: u64, what: &str, ours: &T, theirs: &T) {
        if ours != theirs {
            self.fault(
                ms,
                &format!("{what}\n    ours   {ours:?}\n    theirs {theirs:?}"),
            );
        }
    }

    fn fault(&mut self, ms: u64, what: &str) {
        let _ = writeln!(self.faults, "  {ms} ms: {what}");
    }
}

fn pushed(body: &Value) -> (String, Value) {
    let name = body["serviceInfo"]["name"].as_str().unwrap().to_owned();
    (name, comparable(body))
}

/// A body without what differs from run to run.
fn comparable(body: &Value) -> Value {
    let mut body = body.clone();
    for (name, value) in body.as_object_mut().into_iter().flatten() {
        if matches!(&**name, "message" | "connectionId" | "requestId") {
            *value = json!("there");
        }
    }
    if let Some(info) = body.get_mut("serviceInfo") {
        info["lastRefTime"] = json!("there");
        if let Some(hosts) = info["hosts"].as_array_mut() {
            hosts.sort_by_key(Value::to_string);
        }
    }
    body
}
