use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{ConnId, Frame, Machine, Output, ServiceId, faults::Fault, services::PushTask};

/// A push that no acknowledgement has come for.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) service: ServiceId,
    pub(super) deadline: Instant,
}

pub(super) const PUSH: &str = "NotifySubscriberRequest";

impl Machine {
    /// Merges a push into the service's task. The earliest time stays, so that a service that
    /// changes for ever is pushed for ever.
    pub(super) fn schedule_push(
        &mut self,
        service: &ServiceId,
        to: Option<ConnId>,
        delay: Option<Duration>,
        now: Instant,
    ) {
        let due = delay.map_or(now, |delay| self.on_scan_grid(now + delay));
        let Some(state) = self.services.get_mut(service) else {
            return;
        };
        let to = to.map(|conn| BTreeSet::from([conn]));
        state.task = Some(match state.task.take() {
            None => PushTask { due, to },
            Some(old) => PushTask {
                due: due.min(old.due),
                to: old.to.zip(to).map(|(mut old, new)| {
                    old.extend(new);
                    old
                }),
            },
        });
    }

    pub(super) fn run_pushes(&mut self, now: Instant) {
        let due: Vec<ServiceId> = self
            .services
            .iter()
            .filter(|(_, state)| state.task.as_ref().is_some_and(|task| task.due <= now))
            .map(|(service, _)| service.clone())
            .collect();
        for service in due {
            self.push(&service, now);
        }
    }

    fn push(&mut self, service: &ServiceId, now: Instant) {
        let Some(state) = self.services.get_mut(service) else {
            return;
        };
        let Some(task) = state.task.take() else {
            return;
        };
        let list = state.refresh(self.seed);
        let targets: Vec<(ConnId, String)> = state
            .subscribers
            .iter()
            .filter(|(conn, _)| task.to.as_ref().is_none_or(|to| to.contains(conn)))
            .map(|(conn, clusters)| (*conn, clusters.clone()))
            .collect();
        for (conn, clusters) in targets {
            let open = self.conns.get(&conn).is_some_and(|c| c.stream);
            if !open {
                self.schedule_push(service, Some(conn), Some(self.settings.retry_delay), now);
                continue;
            }
            let info = self.info(service, &list, &clusters, false, false, now);
            let id = self.request_id();
            let body = push_body(&id, &info);
            if self.send(conn, PUSH, Some(service), body.into(), now)
                && let Some(connection) = self.conns.get_mut(&conn)
            {
                let deadline = now + self.settings.ack_timeout;
                let service = service.clone();
                connection.unacked.insert(id, Unacked { service, deadline });
            }
        }
    }

    pub(super) fn push_answered(&mut self, conn: ConnId, id: &str, accepted: bool, now: Instant) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if accepted {
            connection.acks += 1;
        } else {
            connection.refusals += 1;
        }
        let Some(unacked) = connection.unacked.remove(id) else {
            return;
        };
        if !accepted {
            let delay = Some(self.settings.retry_delay);
            self.schedule_push(&unacked.service, Some(conn), delay, now);
        }
    }

    pub(super) fn expire_acks(&mut self, now: Instant) {
        let mut expired = Vec::new();
        for (conn, connection) in &mut self.conns {
            connection.unacked.retain(|_, unacked| {
                let late = unacked.deadline <= now;
                if late {
                    expired.push((*conn, unacked.service.clone()));
                }
                !late
            });
        }
        for (conn, service) in expired {
            let delay = Some(self.settings.retry_delay);
            self.schedule_push(&service, Some(conn), delay, now);
        }
    }

    /// Pushes this text as `serviceInfo` to all subscribers of a service, whatever it says. Nobody
    /// waits for its acknowledgement, and the lists that the machine keeps stay as they are.
    pub fn push_raw(&mut self, service: impl Into<ServiceId>, service_info: &str, now: Instant) {
        let id = self.request_id();
        self.push_body(service, push_body(&id, service_info), now);
    }

    /// Pushes these bytes as the whole body of a push to all subscribers of a service.
    pub fn push_body(
        &mut self,
        service: impl Into<ServiceId>,
        body: impl Into<Bytes>,
        now: Instant,
    ) {
        let (service, body) = (service.into(), body.into());
        let subscribers: Vec<ConnId> = match self.services.get(&service) {
            Some(state) => state.subscribers.keys().copied().collect(),
            None => return,
        };
        for conn in subscribers {
            self.send(conn, PUSH, Some(&service), body.clone(), now);
        }
    }

    /// Sends one frame on a connection's stream, with whatever fault is scripted for it. Whether
    /// an answer to it may be waited for.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        kind: &str,
        service: Option<&ServiceId>,
        body: Bytes,
        now: Instant,
    ) -> bool {
        let fault = self.take_fault(kind, service, conn);
        let Some(connection) = self.conns.get_mut(&conn) else {
            return false;
        };
        if !connection.stream || fault == Some(Fault::Drop) {
            return false;
        }
        let body = match &fault {
            Some(fault) => fault.tamper(body),
            None => body,
        };
        let frame = Frame {
            client_ip: connection.address.ip().to_string(),
            ..Frame::new(kind, body)
        };
        let payload = frame.encode();
        let mut at = connection.hold_until.filter(|t| *t > now).unwrap_or(now);
        if let Some(Fault::Delay(delay)) = fault {
            at = at.max(now + delay);
            connection.hold_until = Some(at);
        }
        let copies = if fault == Some(Fault::Duplicate) {
            2
        } else {
            1
        };
        if kind == PUSH {
            connection.pushes += copies;
            if let Some(service) = service {
                self.log.pushed(service, copies, at);
            }
        }
        for _ in 0..copies {
            let payload = payload.clone();
            self.output_at(at, Output::Stream { conn, payload }, now);
        }
        true
    }

    fn on_scan_grid(&self, due: Instant) -> Instant {
        let scan = self.settings.push_scan.as_nanos();
        if scan == 0 {
            return due;
        }
        let since = due.duration_since(self.start).as_nanos();
        let late = (scan - since % scan) % scan;
        due + Duration::from_nanos(u64::try_from(late).unwrap_or(0))
    }
}

fn push_body(id: &str, service_info: &str) -> String {
    format!(
        r#"{{"headers":{{}},"requestId":"{id}","serviceInfo":{service_info},"module":"naming"}}"#
    )
}
