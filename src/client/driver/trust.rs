//! Tokens: what a denial means, and logging in again.

use std::{collections::HashMap, time::Instant};

use super::{Driver, now};
use crate::{
    client::{
        ConnectionState, RequestError,
        auth::Denied,
        login::{LoginError, Token},
    },
    model::ServiceKey,
    session,
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
            Some(auth) => auth.denied(key, now()),
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

    /// Begins a login at the server that we are connected to.
    pub(super) fn log_in(&mut self) {
        let server = match &*self.state.borrow() {
            ConnectionState::Connected { server } => Some(*server),
            _ => None,
        };
        let begun = server.is_some_and(|server| self.links.log_in(server));
        if let Some(auth) = self.auth.as_mut().filter(|_| !begun) {
            auth.disconnected(); // the next connection brings a token
        }
    }

    pub(super) fn logged_in(&mut self, result: Result<Token, LoginError>, now: Instant) {
        let Some(auth) = &mut self.auth else { return };
        match result {
            Ok(token) => {
                tracing::debug!(namespace = &*self.namespace, ttl = ?token.ttl, "logged in again");
                auth.renewed(token.ttl, now);
                self.session.handle_headers(headers(&token), now);
            }
            Err(error) => {
                let waiting = auth.failed(now);
                tracing::warn!(namespace = &*self.namespace, cause = %error, "logging in again failed");
                let error = RequestError::Denied {
                    message: format!(
                        "the token no longer holds, and a new one cannot be had: {error}"
                    ),
                };
                for key in waiting {
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
