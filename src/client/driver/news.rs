//! What the session says of lists and of the connection.

use std::time::Instant;

use super::{Driver, WARN_EVERY, Warning, now};
use crate::{
    client::{ConnectionState, outage::Line},
    logs,
    model::{Origin, ServiceKey},
    session,
};

impl Driver {
    /// A list was passed to the copy of `key`.
    pub(super) fn listed(
        &mut self,
        key: &ServiceKey,
        origin: Origin,
        nothing: bool,
        unusable: bool,
    ) {
        let Some(service) = self.services.get_mut(key) else {
            return;
        };
        if let Some(auth) = &mut self.auth {
            auth.accepted();
        }
        #[cfg(feature = "metrics")]
        if let Some(copy) = self.subscriptions.peek(key) {
            let now = now();
            let received = self.received.unwrap_or(now);
            let pushed = (origin == Origin::Push).then_some(received);
            self.applied.listed(&copy, pushed, now);
        }
        let first = !std::mem::replace(&mut service.answered, true);
        service.refused = unusable; // who asks again makes us ask again
        service.trouble = unusable.then(|| "none of the instances listed can be used".to_owned());
        service.waiting.clear(); // answered: whoever waits sees it in the subscription
        if nothing && (first || origin != Origin::Push) {
            self.ask_hint(key);
        }
        if !unusable {
            self.note_changed(key, now());
        }
    }

    pub(super) fn failed(
        &mut self,
        key: &ServiceKey,
        operation: session::Operation,
        error: session::OperationError,
        retries: bool,
    ) {
        let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
        tracing::debug!(target: logs::REGISTRY, client = self.owner.name(), namespace, group, service, ?operation, cause = %error, retries, "request failed");
        self.hint_failure(key, operation, &error);
        if error.is_denied() {
            return self.denied(key, operation, error);
        }
        if operation != session::Operation::Subscribe {
            return;
        }
        let may_warn = self.may_warn(Warning::Unanswered, now());
        let Some(subscribed) = self.services.get_mut(key) else {
            return;
        };
        subscribed.trouble = Some(error.to_string());
        if !retries || error.is_permanent() {
            if !subscribed.refused {
                tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace, group, service, cause = %error, retries, "the registry refuses the subscription");
            }
            subscribed.refuse(&error.into());
        } else if may_warn {
            tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace, group, service, cause = %error, "the registry does not answer a subscription; it is asked again");
        }
    }

    pub(super) fn undecodable(&mut self, key: Option<&ServiceKey>, reason: &str) {
        let now = now();
        match key {
            Some(key) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.refused |= !service.answered; // who asks again makes us ask again
                }
            }
            None if self.may_warn(Warning::Unreadable, now) => {
                tracing::warn!(
                    target: logs::REGISTRY,
                    client = self.owner.name(),
                    namespace = &*self.namespace,
                    cause = reason,
                    "a message of the registry cannot be read"
                );
            }
            None => {}
        }
    }

    pub(super) fn set_state(&mut self, state: session::SessionState) {
        let now = now();
        let was_connected = self.state.borrow().is_connected();
        let state = match state {
            session::SessionState::Connecting {
                attempt,
                last_error,
            } => ConnectionState::Connecting {
                attempt,
                last_error: last_error.map(|error| error.to_string().into()),
            },
            session::SessionState::Connected { server, .. } => {
                ConnectionState::Connected { server }
            }
            session::SessionState::Closed => ConnectionState::Closed,
        };
        let line = match &state {
            ConnectionState::Connected { .. } => {
                self.owner.set_outage(None);
                self.login_refused = None;
                self.awaiting_login.clear();
                self.trust_connection(now);
                self.ask_there(now);
                self.place_all();
                self.outage.connected(now)
            }
            ConnectionState::Connecting {
                attempt,
                last_error,
            } => {
                self.owner.set_outage(last_error.clone());
                if was_connected && let Some(auth) = &mut self.auth {
                    auth.disconnected();
                }
                self.outage.connecting(*attempt, last_error.as_ref(), now)
            }
            ConnectionState::Closed => None,
        };
        self.state.send_replace(state);
        if let Some(line) = line {
            self.tell(&line);
        }
    }

    /// Writes what is to be said of the connection.
    pub(super) fn tell(&self, line: &Line) {
        let (client, namespace) = (self.owner.name(), &*self.namespace);
        match line {
            Line::Connected => {
                let state = self.state.borrow().clone();
                tracing::info!(target: logs::REGISTRY, client, namespace, %state, "registry connection");
            }
            Line::Over { lasted } => {
                let state = self.state.borrow().clone();
                tracing::info!(target: logs::REGISTRY, client, namespace, %state, ?lasted, "there is a registry connection again");
            }
            Line::Lost { cause } => {
                tracing::info!(
                    target: logs::REGISTRY,
                    client,
                    namespace,
                    cause = &**cause,
                    "registry connection lost; the last known instances serve"
                );
            }
            Line::Out {
                lost: true,
                attempts,
                lasted,
                cause,
            } => tracing::warn!(
                target: logs::REGISTRY,
                client,
                namespace,
                attempts,
                ?lasted,
                cause = &**cause,
                "no registry connection since the last one was lost; the last known instances serve, and it is tried without end"
            ),
            Line::Out {
                lost: false,
                attempts,
                lasted,
                cause,
            } => tracing::warn!(
                target: logs::REGISTRY,
                client,
                namespace,
                attempts,
                ?lasted,
                cause = &**cause,
                "{}", if self.cached.as_ref().is_some_and(|cached| cached.serves) {
                    "no registry connection since the start; what the cache had serves, and it is tried without end"
                } else {
                    "no registry connection since the start, so no instance is known; it is tried without end"
                }
            ),
            Line::Flapping {
                losses,
                within,
                cause,
            } => tracing::warn!(
                target: logs::REGISTRY,
                client,
                namespace,
                losses,
                ?within,
                cause = &**cause,
                "the registry connection is lost again and again; single losses are not told"
            ),
        }
    }

    pub(super) fn may_warn(&mut self, cause: Warning, now: Instant) -> bool {
        let last = self.warned.get(&cause);
        let may = last.is_none_or(|last| now.saturating_duration_since(*last) >= WARN_EVERY);
        if may {
            self.warned.insert(cause, now);
        }
        may
    }
}
