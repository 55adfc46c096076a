//! Users and tokens: the login over HTTP, and who may send naming requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Frame, Machine, OperatorAnswer, OperatorCall, Profile, ServiceId, requests::Refusal};

/// The one user of a registry that asks for a login.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthSettings {
    /// Who may log in.
    pub username: String,
    /// With what.
    pub password: String,
    /// How long a token lives; told to clients in whole seconds, rounded up.
    pub token_ttl: Duration,
}

/// Tokens given out, and what has been forbidden.
#[derive(Debug, Default)]
pub(super) struct Auth {
    tokens: BTreeMap<String, Instant>,
    forbidden: BTreeSet<ServiceId>,
    logins: u64,
    refused_logins: u64,
    denials: u64,
}

impl AuthSettings {
    /// One user, whose tokens live for this long.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<String>,
        token_ttl: Duration,
    ) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            token_ttl,
        }
    }
}

impl Machine {
    /// From now on no token given out so far is known.
    pub fn revoke_tokens(&mut self) {
        self.auth.tokens.clear();
    }

    /// From now on nobody may touch this service, whatever the token; or everybody again.
    pub fn set_forbidden(&mut self, service: impl Into<ServiceId>, forbidden: bool) {
        let service = service.into();
        if forbidden {
            self.auth.forbidden.insert(service);
        } else {
            self.auth.forbidden.remove(&service);
        }
    }

    /// From now on this is the user's password.
    pub fn set_password(&mut self, password: impl Into<String>) {
        if let Some(auth) = &mut self.settings.auth {
            auth.password = password.into();
        }
    }

    /// Logins that brought a token.
    pub(super) const fn logins(&self) -> u64 {
        self.auth.logins
    }

    /// Logins that were refused.
    pub(super) const fn refused_logins(&self) -> u64 {
        self.auth.refused_logins
    }

    /// Naming requests that were answered 403.
    pub(super) const fn denials(&self) -> u64 {
        self.auth.denials
    }

    /// Answers a login; `None` if it is none. All three servers take the old path, and only a 3.x
    /// one the new; how they refuse differs, as recorded.
    pub(super) fn log_in(&mut self, call: &OperatorCall, now: Instant) -> Option<OperatorAnswer> {
        let v3 = self.settings.profile >= Profile::V3_0;
        let known = match call.path.strip_prefix("/nacos/")? {
            "v1/auth/login" | "v1/auth/users/login" => true,
            "v3/auth/user/login" => v3,
            _ => false,
        };
        if !known || call.method != "POST" {
            return None;
        }
        let Some(auth) = &self.settings.auth else {
            let body = json!({"accessToken": "", "tokenTtl": 18_000, "globalAdmin": true});
            return Some(OperatorAnswer {
                status: 200,
                body: body.to_string(),
            });
        };
        let given = |name: &str| call.params.get(name).map(String::as_str);
        let fits = given("username") == Some(&*auth.username)
            && given("password") == Some(&*auth.password);
        if !fits {
            self.auth.refused_logins += 1;
            let (status, body) = if v3 {
                let body = json!({"code": 500, "message": "caused: User not found! Please check user exist or password is right!;", "data": null});
                (500, body.to_string())
            } else {
                (403, "unknown user!".to_owned())
            };
            return Some(OperatorAnswer { status, body });
        }
        self.auth.logins += 1;
        let token = format!("token-{}-{}", self.seed, self.auth.logins);
        let ttl = auth.token_ttl;
        let body = json!({
            "accessToken": token,
            "tokenTtl": ttl.as_millis().div_ceil(1000),
            "globalAdmin": true,
            "username": auth.username,
        });
        self.auth.tokens.insert(token, now + ttl);
        Some(OperatorAnswer {
            status: 200,
            body: body.to_string(),
        })
    }

    /// Whether this naming request may be carried out.
    pub(super) fn authorise(
        &mut self,
        frame: &Frame,
        service: &ServiceId,
        now: Instant,
    ) -> Result<(), Refusal> {
        let verdict = self.verdict(frame, service, now);
        let Err(message) = verdict else { return Ok(()) };
        self.auth.denials += 1;
        let message = if self.settings.profile >= Profile::V3_0 {
            format!("Code: 401, Message: {message}.")
        } else {
            message.to_owned()
        };
        Err(Refusal::Own(403, message))
    }

    fn verdict(
        &self,
        frame: &Frame,
        service: &ServiceId,
        now: Instant,
    ) -> Result<(), &'static str> {
        if self.settings.auth.is_some() {
            let v3 = self.settings.profile >= Profile::V3_0;
            let token = frame.headers.get("accessToken").filter(|t| !t.is_empty());
            match token.map(|token| self.auth.tokens.get(token)) {
                None if v3 => {
                    return Err("User not found! Please check user exist or password is right!");
                }
                None => return Err("user not found!"),
                Some(None) => return Err("token invalid!"),
                Some(Some(until)) if *until <= now => return Err("token expired!"),
                Some(Some(_)) => {}
            }
        }
        if self.auth.forbidden.contains(service) {
            return Err("authorization failed!");
        }
        Ok(())
    }
}

impl fmt::Debug for AuthSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthSettings")
            .field("username", &self.username)
            .field("token_ttl", &self.token_ttl)
            .finish_non_exhaustive()
    }
}
