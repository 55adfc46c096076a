//! Tokens: what a denial means, and logging in again.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use super::{Driver, Warning, now};
use tokio::sync::oneshot;

#[cfg(feature = "ram")]
use crate::client::auth::Auth;
use crate::{
    client::{
        RequestError,
        auth::{Denied, Failed, Subject, Token},
        login::LoginError,
    },
    logs,
    model::ServiceKey,
    session::{self, LinkId},
    wire::Payload,
};

impl Driver {
    /// Whether the next connection has no token to try.
    pub(super) fn needs_login(&self, now: Instant) -> bool {
        let auth = self.auth.as_ref();
        auth.is_some_and(|auth| auth.headers(now).is_none())
    }

    /// A connection is made, and with it a login if it needed one.
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        local: IpAddr,
        login: Option<Result<Token, LoginError>>,
        now: Instant,
    ) {
        let mut headers = self.auth.as_ref().and_then(|auth| auth.headers(now));
        let failed = match (login, &mut self.auth) {
            (Some(Ok(token)), Some(auth)) => {
                auth.learned(token, link, now);
                headers = auth.headers(now);
                None
            }
            (Some(Err(error)), _) => {
                headers = Some(HashMap::new());
                Some(error)
            }
            _ => None,
        };
        self.look_at_interfaces();
        self.core
            .session_mut()
            .handle_connected(link, local, headers, now);
        if let Some(error) = failed {
            let told = error.to_dial_error();
            self.core.session_mut().handle_login_failed(link, told, now);
            self.without_login = Some((link, error));
        }
    }

    /// The connection made last is the one in use.
    pub(super) fn trust_connection(&mut self, now: Instant) {
        let Some((auth, link)) = self.auth.as_mut().zip(self.core.session().current_link()) else {
            return;
        };
        auth.connected(link, now);
        let without = self.without_login.take();
        if let Some((_, error)) = without.filter(|(other, _)| *other == link)
            && self.may_warn(Warning::Login(error.verdict()), now)
        {
            tracing::warn!(
                target: logs::REGISTRY,
                client = self.owner.name(),
                namespace = &*self.namespace,
                cause = %error,
                "the login failed, and the registry takes requests without one: its authentication is off"
            );
        }
    }

    /// A 403. With a user it may be the token's fault: one login, and the session tries again with
    /// what that brings. Else it is the server's last word to who waits; the session goes on
    /// asking, seldom, and only for this service.
    pub(super) fn denied(
        &mut self,
        key: &ServiceKey,
        operation: session::Operation,
        error: session::OperationError,
    ) {
        let denied = match &mut self.auth {
            Some(auth) => auth.denied(&Subject::Service(key.clone()), now()),
            None => Denied::Final,
        };
        match denied {
            Denied::LogIn => self.log_in(),
            Denied::Wait => {}
            Denied::Final if operation == session::Operation::Subscribe => {
                let user = self.auth.is_some();
                let Some(subscribed) = self.services.get_mut(key) else {
                    return;
                };
                if !subscribed.refused {
                    let (namespace, group, service) =
                        (&**key.namespace(), &**key.group(), &**key.name());
                    tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace, group, service, cause = %error, user, "the registry denies access");
                }
                subscribed.refuse(&error.into());
            }
            Denied::Final => {}
        }
    }

    /// A 403 on the names of a group's services, which the session asks for once more.
    pub(super) fn list_denied(&mut self, group: Arc<str>) {
        if let Some(auth) = &mut self.auth
            && auth.denied(&Subject::List(group), now()) == Denied::LogIn
        {
            self.log_in();
        }
    }

    /// Signs a naming request as it leaves. While no credentials are known it goes without.
    pub(super) fn sign(&self, payload: &mut Payload, resource: &str) {
        #[cfg(not(feature = "ram"))]
        let _ = (payload, resource);
        #[cfg(feature = "ram")]
        if let Some(signer) = self.auth.as_ref().and_then(Auth::signer)
            && let Some(metadata) = &mut payload.metadata
        {
            #[expect(
                clippy::disallowed_methods,
                reason = "servers want to know when a request was signed; nothing here depends on it"
            )]
            let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let headers = signer.sign(resource, since_1970.unwrap_or_default());
            let headers = headers.map(|(name, value)| (name.to_owned(), value));
            metadata.headers.extend(headers);
        }
    }

    pub(super) fn await_login(&mut self, reply: oneshot::Sender<Arc<str>>) {
        match &self.login_refused {
            Some(message) => drop(reply.send(message.clone())),
            None => self.awaiting_login.push(reply),
        }
    }

    /// Every server was tried, and user or password are wrong.
    pub(super) fn login_is_refused(&mut self, message: Arc<str>) {
        for waiting in self.awaiting_login.drain(..) {
            let _ = waiting.send(message.clone());
        }
        self.login_refused = Some(message);
    }

    /// Begins a login at the server that we are connected to.
    pub(super) fn log_in(&mut self) {
        let link = self.core.session().current_link();
        let begun = link.is_some_and(|link| self.links.log_in(link));
        if !begun {
            // The next connection is asked with what there is.
            if let Some(auth) = &mut self.auth {
                auth.disconnected();
            }
        }
    }

    pub(super) fn logged_in(
        &mut self,
        link: LinkId,
        result: Result<Token, LoginError>,
        now: Instant,
    ) {
        let Some(auth) = &mut self.auth else { return };
        if self.core.session().current_link() != Some(link) {
            return; // of a connection that is being left: the new one has its own
        }
        match result {
            Ok(token) => {
                tracing::debug!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, ttl = ?token.ttl, "logged in again");
                auth.learned(token, link, now);
                let headers = auth.headers(now).unwrap_or_default();
                self.core.session_mut().handle_headers(headers, now);
            }
            Err(error) => {
                let failed = auth.failed(now);
                if self.may_warn(Warning::Login(error.verdict()), now) {
                    tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, cause = %error, "logging in again failed");
                } else {
                    tracing::debug!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, cause = %error, "logging in again failed");
                }
                let waiting = match failed {
                    Failed::Again(waiting) => waiting,
                    Failed::Leave => {
                        let error = error.to_dial_error();
                        return self
                            .core
                            .session_mut()
                            .handle_login_failed(link, error, now);
                    }
                };
                let error = RequestError::Denied {
                    message: format!(
                        "the token no longer holds, and a new one cannot be had: {error}"
                    ),
                };
                for subject in waiting {
                    let Subject::Service(key) = subject else {
                        continue; // the session hears no the second time
                    };
                    if let Some(service) = self.services.get_mut(&key) {
                        service.refuse(&error);
                    }
                }
            }
        }
    }
}
