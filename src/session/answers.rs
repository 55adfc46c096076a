//! What is asked of a server, and what an answer says: first of the connection, then of the item.

use std::time::Instant;

use super::{
    asked::Id,
    calls::{Call, Purpose},
    error::{CallFailure, LinkError, OperationError},
    event::{CallId, LinkId, Output},
    items::Items,
    machine::Session,
    subscriptions::Subscription,
    timers::Timer,
};
use crate::wire::{Answer, DecodeError, Head, Payload, Request, ServerError};

impl Session {
    pub(super) fn call(
        &mut self,
        link: LinkId,
        request: &Request,
        purpose: Purpose,
        now: Instant,
    ) -> CallId {
        let timeout = match purpose {
            Purpose::Check => self.config.check_timeout,
            _ => self.config.call_timeout,
        };
        let mut head = self.head(link);
        let mut signed = None;
        if let Some(current) = self.current.as_mut().filter(|current| current.id == link) {
            current.last_sent = now;
        }
        if purpose.is_item() {
            head.headers.clone_from(&self.config.headers.0);
            head.headers
                .insert("app".to_owned(), self.config.app_name.clone());
            signed = self.config.signed.then(|| request.resource());
        }
        let id = CallId(self.next_id());
        self.timers.set(Timer::Call(id), now + timeout);
        self.outputs.push_back(Output::Call {
            link,
            call: id,
            payload: request.encode(&head),
            timeout,
            signed,
        });
        let call = Call {
            link,
            sent: now,
            timeout,
            purpose,
        };
        self.calls.insert(id, call);
        id
    }

    /// The envelope of what goes out on `link`: its local address.
    pub(super) fn head(&self, link: LinkId) -> Head {
        let current = self.current.as_ref().filter(|current| current.id == link);
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.id == link);
        let local = match (current, attempt) {
            (Some(current), _) => current.local,
            (None, Some(attempt)) => attempt.local,
            (None, None) => None,
        };
        Head {
            client_ip: local.map(|ip| ip.to_string()).unwrap_or_default(),
            ..Head::default()
        }
    }

    /// Forgets every call on `link`; its answers will be ignored.
    pub(super) fn forget_calls(&mut self, link: LinkId) {
        for id in self.calls.on(link) {
            self.timers.stop(&Timer::Call(id));
            self.calls.take(id);
        }
    }

    /// An answer, a failure, or the timer of a call.
    pub(super) fn call_ended(
        &mut self,
        id: CallId,
        result: Result<Payload, CallFailure>,
        now: Instant,
    ) {
        let Some(call) = self.calls.take(id) else {
            return; // late, or of a connection that is gone
        };
        self.timers.stop(&Timer::Call(id));
        if result.is_ok() {
            self.note_round_trip(&call, now);
        }
        match call.purpose {
            Purpose::Check => self.checked(call.link, result, now),
            Purpose::Poll => self.polled(id, call.link, result, now),
            Purpose::Trial => self.tried_without_login(call.link, result, now),
            _ => self.link_answered(&call, result, now),
        }
    }

    fn note_round_trip(&mut self, call: &Call, now: Instant) {
        let current = self.current.as_mut().filter(|link| link.id == call.link);
        let attempt = self.attempt.as_mut().filter(|made| made.id == call.link);
        let current = current.map(|link| &mut link.pace);
        if let Some(pace) = current.or_else(|| attempt.map(|made| &mut made.pace)) {
            pace.answered(call.sent, now);
        }
    }

    /// First what an answer says of the connection, then what it says of the item.
    fn link_answered(&mut self, call: &Call, result: Result<Payload, CallFailure>, now: Instant) {
        let Some(link) = self.current.as_mut().filter(|link| link.id == call.link) else {
            return;
        };
        if matches!(call.purpose, Purpose::Health) {
            link.health = None;
        }
        let mut unanswered = false;
        let verdict = match result {
            Ok(payload) => match answer(&payload, call, &mut self.items) {
                Ok(Ok(answer)) => {
                    link.pace.told(answer.stamp(), call.sent, now);
                    Ok(answer)
                }
                Ok(Err(error)) if is_unregistered(&error) => {
                    return self.lose(LinkError::Unregistered(error), now);
                }
                Ok(Err(error)) if error.code == STARTING => {
                    return self.lose(LinkError::Starting(error.message), now);
                }
                Ok(Err(error)) => Err(OperationError::refused(error)),
                Err(error) => {
                    self.counters.undecodable += 1;
                    Err(OperationError::Undecodable(error.to_string()))
                }
            },
            Err(CallFailure::Lost(reason)) => return self.lose(LinkError::Lost(reason), now),
            Err(CallFailure::NotGrpc(what)) => {
                return self.lose(LinkError::NotNacos(what.to_owned()), now);
            }
            Err(CallFailure::Timeout) => {
                unanswered = true;
                Err(OperationError::TimedOut(call.timeout))
            }
            Err(CallFailure::Status { code, message }) => {
                unanswered = code == UNAVAILABLE;
                Err(OperationError::Status { code, message })
            }
            Err(CallFailure::TooLarge(text)) => Err(OperationError::TooLarge(text)),
        };
        if unanswered {
            let tries = link.unanswered(call.sent, now);
            if tries >= self.config.tries {
                return self.lose(LinkError::Silent { tries }, now);
            }
        } else {
            link.answered(now);
        }
        match &call.purpose {
            Purpose::Check | Purpose::Poll | Purpose::Trial | Purpose::Health => {}
            Purpose::Item(id, asked) => {
                let (items, mut cx) = self.items(now);
                items.answered(id, *asked, call.sent, verdict, &mut cx);
            }
        }
        if unanswered {
            self.check_health(now);
        }
        self.pump(now);
    }

    /// Asks the current server whether it is there, unless that is under way.
    pub(super) fn check_health(&mut self, now: Instant) {
        let Some(link) = &self.current else { return };
        if link.health.is_none() {
            let id = self.call(link.id, &Request::HealthCheck, Purpose::Health, now);
            if let Some(link) = &mut self.current {
                link.health = Some(id);
            }
        }
    }

    /// When the current link has been silent, in either direction, for too long: a health check.
    pub(super) fn liveness_due(&mut self, now: Instant) {
        let Some(link) = &self.current else { return };
        let due = link.last_sent.min(link.last_answer) + self.config.idle;
        if due > now {
            self.timers.set(Timer::Liveness, due);
        } else {
            self.check_health(now);
            self.timers.set(Timer::Liveness, now + self.config.idle);
        }
    }
}

/// The server is starting or leaving.
pub(super) const STARTING: i32 = 300;
/// The connection is not, or no longer, registered.
pub(super) const UNREGISTERED: i32 = 301;
/// The server knows the connection but no naming client of it.
const NO_CLIENT: i32 = -401;
/// gRPC's status for "nobody is there", which also proxies give.
const UNAVAILABLE: i32 = 14;

/// Reads an answer: a list against what is kept of its service's hosts.
fn answer(
    payload: &Payload,
    call: &Call,
    items: &mut Items,
) -> Result<Result<Answer, ServerError>, DecodeError> {
    let kept = match &call.purpose {
        Purpose::Item(Id::Subscription(key), _) => items.subscription(key),
        _ => None,
    };
    Answer::decode_with(payload, kept.and_then(Subscription::kept))
}

fn is_unregistered(error: &ServerError) -> bool {
    matches!(error.code, UNREGISTERED | NO_CLIENT)
}
