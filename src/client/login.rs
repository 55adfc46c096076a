//! A user's login: a POST over HTTP/1.1 to a server's main port, which answers with a token.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::{
    auth::Token,
    exchange::{Answer, exchange, quote},
    secret::Secret,
};
use crate::{
    link::{DialError, Protocol, Security},
    model::Host,
    session,
};

/// The paths of a login, the newest first. A server that lacks one says so by a status of
/// [`tries_older`].
const PATHS: [&str; 2] = ["/v3/auth/user/login", "/v1/auth/login"];
/// What a token lives for when a server does not say: Nacos's default of five hours.
const DEFAULT_TTL: u64 = 18_000;

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
    /// What the servers' paths begin with: `/nacos`, or nothing.
    pub(super) context_path: String,
    pub(super) security: Security,
    /// For the whole of it, both paths.
    pub(super) timeout: Duration,
}

/// The main port of the server to log in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    /// As configured, which a certificate must be for.
    pub(super) host: Host,
    /// The same with the port, for the header `Host`.
    pub(super) authority: String,
}

/// Why there is no token. Never shows the password.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(
        "login at {url}: the main port cannot be reached ({reason}); the token comes over HTTP, so that port must be open too"
    )]
    Unreachable { url: String, reason: String },
    #[error(
        "login at {url}: {error}; where only the gRPC port speaks TLS, `Tls::plain_login` allows a login without"
    )]
    Tls { url: String, error: Arc<DialError> },
    #[error("login at {url}: no answer within {after:?}")]
    TimedOut { url: String, after: Duration },
    #[error("login at {url}: {reason}; is this a Nacos server's main port?")]
    NotHttp { url: String, reason: String },
    #[error(
        "login as {username:?} at {url} refused with status {status}{}; check user name and password",
        saying(body)
    )]
    Refused {
        url: String,
        username: String,
        status: u16,
        body: String,
    },
    #[error(
        "login at {url}: the server knows no login path (status {status}); check `context_path`, which is now {context_path:?}, and whether the server has authentication"
    )]
    NoPath {
        url: String,
        status: u16,
        context_path: String,
    },
    /// What signs requests is not known: no server was asked.
    #[cfg(feature = "ram")]
    #[error("the RAM credentials cannot be had: {reason}")]
    NoCredentials { reason: String },
    #[error("login at {url}: the answer has no token ({what}){}", saying(body))]
    NoToken {
        url: String,
        what: String,
        body: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    access_token: String,
    token_ttl: Option<serde_json::Value>,
}

/// What an error says of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// They are wrong: no server that is just starting answers so.
    Wrong,
    /// They are refused, in words that a server also has while it is starting and knows no users
    /// yet: 403 from genuine 3.1.0 until 5.1 s after it is up, "unknown user!" from rnacos.
    Doubted,
    /// Nothing.
    None,
}

/// Some gateways and versions wrap every answer.
#[derive(Deserialize)]
struct Wrapped {
    data: Granted,
}

impl Login {
    /// Logs in at `target`, by the newest path that it knows.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(super) async fn at(&self, target: Target) -> Result<Token, LoginError> {
        match timeout(self.timeout, self.try_paths(&target)).await {
            Ok(result) => result,
            Err(_) => Err(LoginError::TimedOut {
                url: self.url(&target, PATHS[0]),
                after: self.timeout,
            }),
        }
    }

    async fn try_paths(&self, target: &Target) -> Result<Token, LoginError> {
        let mut last = None;
        for path in PATHS {
            let url = self.url(target, path);
            let answer = self.post(target, path, &url).await?;
            if !tries_older(answer.status) {
                return self.read(answer, url);
            }
            last = Some((url, answer.status));
        }
        let (url, status) = last.unwrap_or_default();
        Err(LoginError::NoPath {
            url,
            status: status.as_u16(),
            context_path: self.context_path.clone(),
        })
    }

    async fn post(&self, target: &Target, path: &str, url: &str) -> Result<Answer, LoginError> {
        let unreachable = |error: &dyn fmt::Display| LoginError::Unreachable {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let not_http = |error: &dyn fmt::Display| LoginError::NotHttp {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let socket = TcpStream::connect(target.addr)
            .await
            .map_err(|e| unreachable(&e))?;
        socket.set_nodelay(true).map_err(|e| unreachable(&e))?;
        let stream = self
            .security
            .secure(socket, &target.host, Protocol::Http1)
            .await
            .map_err(|error| LoginError::Tls {
                url: url.to_owned(),
                error: Arc::new(error),
            })?;
        let request = self.request(target, path).map_err(|e| not_http(&e))?;
        exchange(stream, request).await.map_err(|e| not_http(&e))
    }

    fn request(&self, target: &Target, path: &str) -> http::Result<Request<Full<Bytes>>> {
        let mut form = "username=".to_owned();
        encode(&self.username, &mut form);
        form.push_str("&password=");
        encode(self.password.reveal(), &mut form);
        Request::post(format!("{}{path}", self.context_path))
            .header(HOST, &target.authority)
            .header(
                USER_AGENT,
                concat!("tower-nacos/", env!("CARGO_PKG_VERSION")),
            )
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
    }

    fn read(&self, answer: Answer, url: String) -> Result<Token, LoginError> {
        let body = self.quote(&answer.body);
        if !answer.status.is_success() {
            return Err(LoginError::Refused {
                url,
                username: self.username.clone(),
                status: answer.status.as_u16(),
                body,
            });
        }
        let granted = serde_json::from_str::<Granted>(&answer.body)
            .or_else(|_| serde_json::from_str::<Wrapped>(&answer.body).map(|w| w.data));
        match granted {
            Ok(granted) if !granted.access_token.is_empty() => Ok(Token::new(
                granted.access_token,
                Duration::from_secs(seconds(granted.token_ttl.as_ref())),
            )),
            Ok(_) => Err(LoginError::NoToken {
                url,
                what: "it is empty".to_owned(),
                body,
            }),
            Err(error) => Err(LoginError::NoToken {
                url,
                what: self.quote(&error.to_string()),
                body,
            }),
        }
    }

    /// The same without the password.
    fn quote(&self, text: &str) -> String {
        let text = self.password.strike_out(text);
        let mut encoded = String::new();
        encode(self.password.reveal(), &mut encoded);
        let text = Secret::from(encoded).strike_out(&text);
        quote(&text)
    }

    fn url(&self, target: &Target, path: &str) -> String {
        let scheme = if self.security.is_tls() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}{}{path}", target.authority, self.context_path)
    }
}

impl LoginError {
    /// What it says of user name and password. Statuses alone do not tell: a wrong password is 403
    /// or 500, and so is much else.
    pub(super) fn verdict(&self) -> Verdict {
        let Self::Refused {
            url, status, body, ..
        } = self
        else {
            return Verdict::None;
        };
        let body = body.to_ascii_lowercase();
        let newest = url.ends_with(PATHS[0]);
        match status {
            401 => Verdict::Wrong,
            // To a wrong password of a known user, by the newest path alone: genuine 3.1.0 without a
            // word or with its bare error page, 3.0.3 with words. By older paths it answers so to
            // users whom it does not know as well, or not yet.
            500 if newest && (body.is_empty() || body.contains("\"internal server error\"")) => {
                Verdict::Wrong
            }
            500 if newest && body.contains("unknown user") => Verdict::Wrong,
            403 => Verdict::Doubted,
            500 if body.is_empty() || body.contains("\"internal server error\"") => {
                Verdict::Doubted
            }
            _ if body.contains("user not found") || body.contains("unknown user") => {
                Verdict::Doubted
            }
            _ if body.contains("password") => Verdict::Doubted,
            _ => Verdict::None,
        }
    }

    /// As the session hears of it.
    pub(super) fn to_dial_error(&self) -> session::DialError {
        match self.verdict() {
            Verdict::Wrong => session::DialError::LoginRefused(self.to_string()),
            Verdict::Doubted => session::DialError::LoginDoubted(self.to_string()),
            Verdict::None => session::DialError::Other(self.to_string()),
        }
    }
}

/// What a server said, as it is put into an error.
fn saying(body: &str) -> String {
    if body.is_empty() {
        return " and no word".to_owned();
    }
    format!(", saying '{body}'")
}

/// A number of seconds, as a number or as a text; what cannot be read as one has not been said.
fn seconds(ttl: Option<&serde_json::Value>) -> u64 {
    let read = ttl.and_then(|ttl| ttl.as_u64().or_else(|| ttl.as_str()?.trim().parse().ok()));
    read.unwrap_or(DEFAULT_TTL)
}

/// Whether the status says that the server, or what stands before it, does not have this path.
pub(super) const fn tries_older(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 405 | 410 | 501)
}

/// `application/x-www-form-urlencoded`.
pub(super) fn encode(text: &str, form: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                form.push(char::from(byte));
            }
            b' ' => form.push('+'),
            other => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                form.push('%');
                form.push(char::from(HEX[usize::from(other >> 4)]));
                form.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
