//! Fuzzy watch, as servers have it from 3.0 on: who watches which pattern, and what they are told.
//!
//! Written after the recording of 3.0.3 and, for the limits and the batches, after the source of 3.1.

use std::{collections::BTreeSet, time::Instant};

use serde_json::{Value, json};

use super::{
    ConnId, Machine, ServiceId,
    patterns::{Pattern, Task, What},
    requests::{Refusal, Request},
};

/// How many services a batch has.
const BATCH: usize = 10;

const SYNC: &str = "NamingFuzzyWatchSyncRequest";
const CHANGE: &str = "NamingFuzzyWatchChangeNotifyRequest";
const TOO_MANY_PATTERNS: i32 = 50310;
const TOO_MANY_MATCHES: i32 = 50311;

impl Machine {
    /// `NamingFuzzyWatchRequest`.
    pub(super) fn fuzzy_watch(
        &mut self,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<Value, Refusal> {
        let Request { conn, fields, .. } = request;
        let pattern = fields.text("groupKeyPattern")?.unwrap_or_default();
        if pattern.split(">>").count() != 3 {
            return Err(Refusal::invalid("Illegal groupKeyPattern"));
        }
        match &*fields.text("watchType")?.unwrap_or_default() {
            "WATCH" => {}
            "CANCEL_WATCH" => {
                if let Some(watched) = self.fuzzy.patterns.get_mut(&pattern) {
                    watched.watchers.remove(conn);
                }
                return Ok(json!({}));
            }
            other => {
                let message = format!("Unsupported request type {other}");
                return Err(Refusal::invalid(message));
            }
        }
        let received: BTreeSet<ServiceId> = match fields.raw("receivedGroupKeys") {
            Some(Value::Array(keys)) => keys
                .iter()
                .filter_map(Value::as_str)
                .filter_map(key)
                .collect(),
            _ => BTreeSet::new(),
        };
        let initializing = fields.boolean("initializing", false)?;
        let most = self.settings.fuzzy_matches;
        if !self.fuzzy.patterns.contains_key(&pattern) {
            if self.fuzzy.patterns.len() >= self.settings.fuzzy_patterns {
                let message = "fuzzy watch pattern over limit".to_owned();
                return Err(Refusal::Own(TOO_MANY_PATTERNS, message));
            }
            let listed = self.services.iter().filter(|(_, state)| state.listed);
            let of_pattern = listed.filter(|(service, _)| matches(&pattern, service));
            let matched = of_pattern.map(|(id, _)| id.clone()).take(most).collect();
            let watchers = BTreeSet::new();
            let new = Pattern { watchers, matched };
            self.fuzzy.patterns.insert(pattern.clone(), new);
        }
        let Some(watched) = self.fuzzy.patterns.get_mut(&pattern) else {
            return Ok(json!({}));
        };
        watched.watchers.insert(*conn);
        let full = watched.matched.len() >= most;
        let added = watched.matched.difference(&received);
        let added = added.map(|service| (service.clone(), true));
        let removed = received.difference(&watched.matched);
        // What is full may leave services out: nothing is said to be gone then.
        let removed = removed
            .filter(|_| !full)
            .map(|service| (service.clone(), false));
        let difference: Vec<_> = added.chain(removed).collect();
        self.sync(*conn, pattern, initializing, &difference, now);
        if full {
            let message = "fuzzy watch pattern match count over limit".to_owned();
            return Err(Refusal::Own(TOO_MANY_MATCHES, message));
        }
        Ok(json!({}))
    }

    /// Puts what differs on its way, in batches, and the end of it if there is nothing.
    fn sync(
        &mut self,
        conn: ConnId,
        pattern: String,
        initializing: bool,
        difference: &[(ServiceId, bool)],
        now: Instant,
    ) {
        let delayed = self.settings.push_delay.is_some();
        let at = if delayed {
            now + self.settings.retry_delay
        } else {
            now
        };
        if difference.is_empty() {
            if initializing {
                let what = What::Finish { pattern };
                self.fuzzy.tasks.push((at, Task { conn, what }));
            }
            return;
        }
        self.fuzzy.syncs += 1;
        let (sync, total) = (self.fuzzy.syncs, difference.len().div_ceil(BATCH));
        self.fuzzy.left.insert(sync, total);
        for (n, contexts) in difference.chunks(BATCH).enumerate() {
            let what = What::Batch {
                pattern: pattern.clone(),
                initializing,
                contexts: contexts.to_vec(),
                total,
                current: n + 1,
                sync,
            };
            self.fuzzy.tasks.push((at, Task { conn, what }));
        }
    }

    /// A service got its first instance, or lost its last.
    pub(super) fn fuzzy_changed(&mut self, service: &ServiceId, exists: bool, now: Instant) {
        let most = self.settings.fuzzy_matches;
        let mut told = BTreeSet::new();
        for (pattern, watched) in &mut self.fuzzy.patterns {
            if !matches(pattern, service) {
                continue;
            }
            let changed = if !exists {
                watched.matched.remove(service)
            } else {
                watched.matched.len() < most && watched.matched.insert(service.clone())
            };
            if changed {
                told.extend(&watched.watchers);
            }
        }
        for conn in told {
            let service = service.clone();
            let what = What::Change { service, exists };
            self.fuzzy.tasks.push((now, Task { conn, what }));
        }
    }

    pub(super) fn run_fuzzy(&mut self, now: Instant) {
        let mut late = Vec::new();
        self.fuzzy.unacked.retain(|_, (until, task)| {
            let is_late = *until <= now;
            if is_late {
                late.push(task.clone());
            }
            !is_late
        });
        for task in late {
            self.fuzzy
                .tasks
                .push((now + self.settings.retry_delay, task));
        }
        let due: Vec<_> = self
            .fuzzy
            .tasks
            .extract_if(.., |(at, _)| *at <= now)
            .collect();
        for (_, task) in due {
            self.send_fuzzy(task, now);
        }
    }

    fn send_fuzzy(&mut self, task: Task<ConnId>, now: Instant) {
        let id = self.request_id();
        let context = |(service, exists): &(ServiceId, bool)| json!({"serviceKey": key_of(service), "changedType": change_type(*exists)});
        let (kind, body) = match &task.what {
            What::Batch {
                pattern,
                initializing,
                contexts,
                total,
                current,
                ..
            } => {
                let kind = if *initializing {
                    "FUZZY_WATCH_INIT_NOTIFY"
                } else {
                    "FUZZY_WATCH_DIFF_SYNC_NOTIFY"
                };
                let contexts: Vec<Value> = contexts.iter().map(context).collect();
                let body = json!({
                    "headers": {}, "requestId": id, "syncType": kind, "groupKeyPattern": pattern,
                    "contexts": contexts, "totalBatch": total, "currentBatch": current,
                    "module": "naming"
                });
                (SYNC, body)
            }
            What::Finish { pattern } => {
                let body = json!({
                    "headers": {}, "requestId": id, "syncType": "FINISH_FUZZY_WATCH_INIT_NOTIFY",
                    "groupKeyPattern": pattern, "contexts": [], "totalBatch": 1, "currentBatch": 1,
                    "module": "naming"
                });
                (SYNC, body)
            }
            What::Change { service, exists } => {
                let body = json!({
                    "headers": {}, "requestId": id, "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
                    "serviceKey": key_of(service), "changedType": change_type(*exists),
                    "module": "naming"
                });
                (CHANGE, body)
            }
        };
        let conn = task.conn;
        if self.send(conn, kind, None, body.to_string().into(), now) {
            let until = now + self.settings.ack_timeout;
            self.fuzzy.unacked.insert((conn, id), (until, task));
        }
    }

    /// An answer of a client. False if it is to nothing that was told of a pattern.
    pub(super) fn fuzzy_answered(
        &mut self,
        conn: ConnId,
        id: &str,
        accepted: bool,
        now: Instant,
    ) -> bool {
        let Some((_, task)) = self.fuzzy.unacked.remove(&(conn, id.to_owned())) else {
            return false;
        };
        if !accepted {
            self.fuzzy
                .tasks
                .push((now + self.settings.retry_delay, task));
            return true;
        }
        if let What::Batch {
            pattern,
            initializing,
            sync,
            ..
        } = task.what
            && let Some(left) = self.fuzzy.left.get_mut(&sync)
        {
            *left -= 1;
            if *left == 0 {
                self.fuzzy.left.remove(&sync);
                if initializing {
                    let at = now + self.settings.push_delay.unwrap_or_default();
                    let what = What::Finish { pattern };
                    self.fuzzy.tasks.push((at, Task { conn, what }));
                }
            }
        }
        true
    }
}

fn change_type(exists: bool) -> &'static str {
    if exists {
        "ADD_SERVICE"
    } else {
        "DELETE_SERVICE"
    }
}

fn key_of(service: &ServiceId) -> String {
    format!("{}@@{}", service.namespace, service.grouped())
}

fn key(text: &str) -> Option<ServiceId> {
    let (namespace, rest) = text.split_once("@@")?;
    let (group, name) = rest.split_once("@@")?;
    Some(ServiceId::new(namespace, group, name))
}

fn matches(pattern: &str, service: &ServiceId) -> bool {
    let mut parts = pattern.split(">>");
    let mut takes = |text: &str| parts.next().is_some_and(|part| takes(part, text));
    takes(&service.namespace) && takes(&service.group) && takes(&service.name)
}

/// Exact, `*`, `x*`, `*x` or `*x*`.
fn takes(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (first, last) = (pattern.starts_with('*'), pattern.ends_with('*'));
    let stem = pattern.trim_start_matches('*').trim_end_matches('*');
    match (first, last) {
        (false, false) => pattern == text,
        (true, true) => text.contains(stem),
        (true, false) => text.ends_with(stem),
        (false, true) => text.starts_with(stem),
    }
}
