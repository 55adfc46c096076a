use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Frame, Machine, OperatorCall, ServiceId, operator::Answered, requests::Refusal};

/// A user whose password every naming request needs a token of.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// How long a token is good.
    pub token_ttl: Duration,
}

/// The tokens given out, and when each ends; what nobody may touch; how often what happened.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    ends: BTreeMap<String, Instant>,
    number: u64,
    forbidden: BTreeSet<ServiceId>,
    refused: u64,
    denials: u64,
}

impl Login {
    /// A user whose tokens are good for five hours, Nacos's default.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            token_ttl: Duration::from_secs(18_000),
        }
    }

    /// Sets how long a token is good; clients are told in whole seconds.
    #[must_use]
    pub fn with_token_ttl(mut self, token_ttl: Duration) -> Self {
        self.token_ttl = token_ttl;
        self
    }
}

impl Machine {
    /// Ends all tokens now: the next naming request with one is refused.
    pub fn expire_tokens(&mut self, now: Instant) {
        for end in self.tokens.ends.values_mut() {
            *end = now;
        }
    }

    /// Forgets all tokens now, as a server does that got another secret.
    pub fn revoke_tokens(&mut self) {
        self.tokens.ends.clear();
    }

    /// From now on nobody may touch this service, whatever the token; or everybody again.
    pub fn set_forbidden(&mut self, service: impl Into<ServiceId>, forbidden: bool) {
        let service = service.into();
        if forbidden {
            self.tokens.forbidden.insert(service);
        } else {
            self.tokens.forbidden.remove(&service);
        }
    }

    /// From now on this is the user's password. Tokens given out stay.
    pub fn set_password(&mut self, password: impl Into<String>) {
        if let Some(login) = &mut self.settings.login {
            login.password = password.into();
        }
    }

    /// From now on naming requests have to be signed with this one's secret, or with none.
    #[cfg(feature = "ram")]
    pub fn set_access_key(&mut self, access_key: Option<super::AccessKey>) {
        self.settings.access_key = access_key;
    }

    /// Logins that brought a token.
    pub(super) const fn logins(&self) -> u64 {
        self.tokens.number
    }

    /// Logins that were refused.
    pub(super) const fn refused_logins(&self) -> u64 {
        self.tokens.refused
    }

    /// Naming requests that were answered 403.
    pub(super) const fn denials(&self) -> u64 {
        self.tokens.denials
    }

    /// Answers a login. A server without login gives everybody a token that nobody asks for.
    pub(super) fn login(&mut self, call: &OperatorCall, now: Instant) -> Answered {
        let (username, password) = (call.needed("username")?, call.needed("password")?);
        let (mut ttl, v3) = (Duration::from_secs(18_000), self.settings.profile.is_v3());
        if let Some(login) = &self.settings.login {
            if now < self.up + self.settings.users_after {
                self.tokens.refused += 1;
                return Err((403, "user not found!".to_owned()));
            }
            // Statuses as recorded; nothing can be built on them.
            if login.username != username {
                self.tokens.refused += 1;
                let status = if v3 { 403 } else { 500 };
                return Err((status, "user not found!".to_owned()));
            }
            if login.password != password {
                self.tokens.refused += 1;
                let status = if v3 { 500 } else { 403 };
                return Err((status, "unknown user!".to_owned()));
            }
            ttl = login.token_ttl;
        }
        self.tokens.number += 1;
        let token = format!("token-{}-{}", self.seed, self.tokens.number);
        self.tokens.ends.insert(token.clone(), now + ttl);
        Ok(json!({
            "accessToken": token, "tokenTtl": ttl.as_secs(), "globalAdmin": true, "username": username
        }))
    }

    /// Lets a naming request through, or refuses it with the code for it: 403 in the expected type.
    pub(super) fn authorize(
        &mut self,
        frame: &Frame,
        service: &ServiceId,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(refusal) = self.objection(frame, service, now) else {
            return Ok(());
        };
        self.tokens.denials += 1;
        let message = if self.settings.profile.is_v3() {
            format!("Code: 401, Message: {refusal}")
        } else {
            refusal.to_owned()
        };
        Err(Refusal::Own(403, message))
    }

    fn objection(&self, frame: &Frame, service: &ServiceId, now: Instant) -> Option<&'static str> {
        let name = |header: &&String| header.eq_ignore_ascii_case("accessToken");
        let header = frame.headers.keys().find(name);
        let token = header.and_then(|header| frame.headers.get(header));
        let known = token.map(|token| self.tokens.ends.get(token));
        match known {
            _ if self.settings.login.is_none() => {}
            None => return Some("user not found!"),
            Some(None) => return Some("token invalid!"),
            Some(Some(end)) if *end <= now => return Some("token expired!"),
            Some(Some(_)) => {}
        }
        #[cfg(feature = "ram")]
        if let Some(access_key) = &self.settings.access_key {
            let about = (&*service.group, &*service.name);
            if let Some(objection) = access_key.objection(&frame.headers, about) {
                return Some(objection);
            }
        }
        let forbidden = self.tokens.forbidden.contains(service);
        forbidden.then_some("authorization failed!")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .field("token_ttl", &self.token_ttl)
            .finish_non_exhaustive()
    }
}
