//! The machine in virtual time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    ConnId, Fault, Frame, Login, Machine, OperatorCall, Output, Profile, Script, Settings,
    StreamEnd,
};
use crate::model::{Instance, Metadata};

mod faults;
mod fuzzy;
mod lists;
mod operator;
mod time;

/// A machine, its time, and what came out of it.
struct World {
    machine: Machine,
    start: Instant,
    now: Instant,
    calls: u64,
    out: Vec<(u64, Output)>,
}

const LABELS: &str = r#"{"module":"naming","source":"sdk"}"#;

impl World {
    fn new(settings: Settings) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time begins anywhere")]
        let start = Instant::now();
        Self {
            machine: Machine::new(settings, 7, start),
            start,
            now: start,
            calls: 0,
            out: Vec::new(),
        }
    }

    fn of(profile: Profile) -> Self {
        Self::new(Settings {
            profile,
            ..Settings::default()
        })
    }

    /// Lets time pass, stopping at everything that is due.
    fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let ms = u64::try_from((self.now - self.start).as_millis()).unwrap();
        while let Some(output) = self.machine.poll_output() {
            self.out.push((ms, output));
        }
    }

    fn open(&mut self) -> ConnId {
        let address = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let conn = self.machine.open(address, self.now);
        self.machine.handle_stream_opened(conn, self.now);
        conn
    }

    /// A client that is registered.
    fn client(&mut self) -> ConnId {
        let conn = self.open();
        self.send(
            conn,
            "ConnectionSetupRequest",
            &format!(r#"{{"clientVersion":"t","tenant":"public","labels":{LABELS}}}"#),
        );
        conn
    }

    fn send(&mut self, conn: ConnId, kind: &str, body: &str) {
        let frame = Frame::new(kind, body.to_owned());
        self.machine.handle_stream(conn, &frame.encode(), self.now);
        self.drain();
    }

    fn call(&mut self, conn: ConnId, kind: &str, body: &Value) -> Option<(String, Value)> {
        self.calls += 1;
        let frame = Frame::new(kind, body.to_string());
        self.machine
            .handle_unary(conn, self.calls, &frame.encode(), self.now);
        self.drain();
        let mine = self.calls;
        let at = self.out.iter().position(
            |(_, output)| matches!(output, Output::Answer { call, .. } if *call == mine),
        )?;
        let Output::Answer { payload, .. } = self.out.remove(at).1 else {
            unreachable!()
        };
        let frame = Frame::decode(&payload).unwrap();
        Some((frame.kind, serde_json::from_slice(&frame.body).unwrap()))
    }

    fn subscribe(&mut self, conn: ConnId, service: &str) -> Value {
        let body = json!({"namespace": "public", "groupName": "DEFAULT_GROUP",
            "serviceName": service, "subscribe": true, "clusters": ""});
        self.call(conn, "SubscribeServiceRequest", &body).unwrap().1
    }

    fn register(&mut self, conn: ConnId, service: &str, instance: &Value) -> Value {
        let body = json!({"namespace": "public", "groupName": "DEFAULT_GROUP",
            "serviceName": service, "type": "registerInstance", "instance": instance});
        self.call(conn, "InstanceRequest", &body).unwrap().1
    }

    fn query(&mut self, conn: ConnId, service: &str) -> Value {
        let body = json!({"namespace": "public", "groupName": "DEFAULT_GROUP",
            "serviceName": service, "cluster": "", "healthyOnly": false});
        self.call(conn, "ServiceQueryRequest", &body).unwrap().1
    }

    /// The frames on a stream since the last look, with their times.
    fn frames(&mut self, of: ConnId) -> Vec<(u64, Frame)> {
        let (mine, rest) = self
            .out
            .drain(..)
            .partition(|(_, output)| matches!(output, Output::Stream { conn, .. } if *conn == of));
        self.out = rest;
        let mine: Vec<(u64, Output)> = mine;
        mine.into_iter()
            .map(|(ms, output)| match output {
                Output::Stream { payload, .. } => (ms, Frame::decode(&payload).unwrap()),
                _ => unreachable!(),
            })
            .collect()
    }

    /// Times and ports of the pushes since the last look, all of which are acknowledged.
    fn pushes(&mut self, conn: ConnId) -> Vec<(u64, Vec<u64>)> {
        let frames = self.frames(conn);
        frames
            .into_iter()
            .filter(|(_, frame)| frame.kind == "NotifySubscriberRequest")
            .map(|(ms, frame)| {
                self.ack(conn, &frame, 200);
                (ms, ports(&serde_json::from_slice(&frame.body).unwrap()))
            })
            .collect()
    }

    fn ack(&mut self, conn: ConnId, push: &Frame, code: i32) {
        let body = json!({"requestId": push.field("/requestId"), "resultCode": code});
        let kind = push.kind.replace("Request", "Response");
        self.send(conn, &kind, &body.to_string());
    }

    fn ends(&self, of: ConnId) -> Vec<(u64, StreamEnd)> {
        self.out
            .iter()
            .filter_map(|(ms, output)| match output {
                Output::EndStream { conn, end } if *conn == of => Some((*ms, end.clone())),
                _ => None,
            })
            .collect()
    }
}

fn ports(body: &Value) -> Vec<u64> {
    let hosts = body["serviceInfo"]["hosts"].as_array().unwrap();
    hosts.iter().map(|h| h["port"].as_u64().unwrap()).collect()
}

fn at(port: u16) -> Value {
    json!({"ip": "10.0.0.1", "port": port})
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("10.0.0.1:{port}")).unwrap()
}

fn at_once() -> Settings {
    Settings {
        push_delay: None,
        ..Settings::default()
    }
}
