//! Tokens: what a denial means, and logging in again.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{Driver, now};
use tokio::sync::oneshot;

use crate::{
    client::{
        RequestError,
        auth::{Denied, Subject},
        login::{LoginError, Token},
    },
    model::ServiceKey,
    session::{self, LinkId},
};

impl Driver {
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
                    tracing::warn!(namespace, group, service, cause = %error, user, "the registry denies access");
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
        if let Some(auth) = self.auth.as_mut().filter(|_| !begun) {
            auth.disconnected(); // the next connection brings a token
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
                tracing::debug!(namespace = &*self.namespace, ttl = ?token.ttl, "logged in again");
                auth.renewed(token.ttl, now);
                self.core.session_mut().handle_headers(headers(&token), now);
            }
            Err(error) => {
                let waiting = auth.failed(now);
                tracing::warn!(namespace = &*self.namespace, cause = %error, "logging in again failed");
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

/// A token as naming requests carry it.
pub(super) fn headers(token: &Token) -> HashMap<String, String> {
    HashMap::from([("accessToken".to_owned(), token.text.reveal().to_owned())])
}
