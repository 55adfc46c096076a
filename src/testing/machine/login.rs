use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Frame, Machine, OperatorCall, operator::Answered, requests::Refusal};

/// A user whose password every naming request needs a token of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// How long a token is good.
    pub token_ttl: Duration,
}

/// The tokens given out, and when each ends.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    ends: BTreeMap<String, Instant>,
    number: u64,
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

    /// Answers a login. A server without login gives everybody a token that nobody asks for.
    pub(super) fn login(&mut self, call: &OperatorCall, now: Instant) -> Answered {
        let (username, password) = (call.needed("username")?, call.needed("password")?);
        let (mut ttl, v3) = (Duration::from_secs(18_000), self.settings.profile.is_v3());
        if let Some(login) = &self.settings.login {
            // Statuses as recorded; nothing can be built on them.
            if login.username != username {
                let status = if v3 { 403 } else { 500 };
                return Err((status, "user not found!".to_owned()));
            }
            if login.password != password {
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
    pub(super) fn authorize(&self, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        if self.settings.login.is_none() {
            return Ok(());
        }
        let name = |header: &&String| header.eq_ignore_ascii_case("accessToken");
        let header = frame.headers.keys().find(name);
        let refusal = match header.and_then(|header| frame.headers.get(header)) {
            None => "user not found!",
            Some(token) => match self.tokens.ends.get(token) {
                None => "token invalid!",
                Some(end) if *end <= now => "token expired!",
                Some(_) => return Ok(()),
            },
        };
        let message = if self.settings.profile.is_v3() {
            format!("Code: 401, Message: {refusal}")
        } else {
            refusal.to_owned()
        };
        Err(Refusal::Own(403, message))
    }
}
