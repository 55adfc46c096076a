//! Reading `tests/golden`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tower_nacos::testing::{Frame, OperatorCall};

/// One line of a transcript.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) ms: u64,
    pub(crate) conn: String,
    pub(crate) from: String,
    pub(crate) via: String,
    pub(crate) kind: String,
    pub(crate) body: Value,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) end: Option<String>,
    pub(crate) call: Option<OperatorCall>,
    /// The index of the answer to a unary call.
    pub(crate) answer: Option<usize>,
}

impl Line {
    /// What travelled; rebuilt from the body where the recording left it out.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        self.payload.clone().unwrap_or_else(|| {
            let body = self.body.to_string();
            Frame::new(&*self.kind, body).encode().to_vec()
        })
    }
}

/// The lines of a scenario in order, each call with its answer.
pub(crate) fn load(server: &str, scenario: &str) -> Vec<Line> {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.extend(["tests", "golden", server, &format!("{scenario}.jsonl")]);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<Line> = text.lines().map(read_line).collect();
    if scenario == "burst" {
        add_closings(&mut lines);
    }
    // Calls of one connection follow each other: a server's line answers the call before it.
    let mut waiting: BTreeMap<String, usize> = BTreeMap::new();
    for at in 0..lines.len() {
        let line = &lines[at];
        match (&*line.from, &*line.via) {
            ("client", "unary") => {
                waiting.insert(line.conn.clone(), at);
            }
            ("server", "unary") => {
                if let Some(call) = waiting.remove(&line.conn) {
                    lines[call].answer = Some(at);
                }
            }
            _ => {}
        }
    }
    lines
}

fn read_line(text: &str) -> Line {
    let line: Value = serde_json::from_str(text).unwrap();
    let string = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let call = line["http"].as_str().map(|http| {
        let (method, path) = http.split_once(' ').unwrap();
        let params = line["params"].as_object().unwrap();
        params
            .iter()
            .fold(OperatorCall::new(method, path), |call, (name, value)| {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                call.with(name, value)
            })
    });
    Line {
        ms: line["ms"].as_u64().unwrap(),
        conn: string("conn"),
        from: string("from"),
        via: string("via"),
        kind: string("type"),
        body: line["body"].clone(),
        payload: line["payload"]
            .as_str()
            .map(|text| BASE64_STANDARD.decode(text).unwrap()),
        end: line["end"]
            .as_array()
            .map(|end| end[0].as_str().unwrap().to_owned()),
        call,
        answer: None,
    }
}

/// In `burst` providers close their sockets, which left no line: an instance that vanishes without
/// a cause went with the connection that registered it, one push delay earlier.
fn add_closings(lines: &mut Vec<Line>) {
    let mut owner: BTreeMap<u64, String> = BTreeMap::new();
    let mut listed: BTreeSet<u64> = BTreeSet::new();
    let mut closings = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.kind == "InstanceRequest" {
            let port = line.body["instance"]["port"].as_u64().unwrap();
            owner.insert(port, line.conn.clone());
        }
        if line.kind == "NotifySubscriberRequest" {
            let now: BTreeSet<u64> = ports(&line.body);
            for gone in listed.difference(&now) {
                let mut closing = line.clone();
                closing.ms -= crate::DELAY + 50;
                closing.conn = owner[gone].clone();
                (closing.from, closing.kind) = ("client".to_owned(), "close".to_owned());
                closings.push((at, closing));
            }
            listed = now;
        }
    }
    assert_eq!(closings.len(), 10, "ten providers end");
    for (at, closing) in closings.into_iter().rev() {
        lines.insert(at, closing);
    }
    lines.sort_by_key(|line| line.ms);
}

fn ports(body: &Value) -> BTreeSet<u64> {
    let hosts = body["serviceInfo"]["hosts"].as_array().unwrap();
    hosts.iter().map(|h| h["port"].as_u64().unwrap()).collect()
}
