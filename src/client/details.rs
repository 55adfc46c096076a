//! What a server says of a service as a whole: a GET over HTTP/1.1 to its main port, where operators
//! ask, since nothing on the connection tells it.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
};
use http_body_util::Full;
use serde::Deserialize;
use tokio::{net::TcpStream, sync::oneshot, task::coop::consume_budget, time::timeout};

use super::{
    client::Client,
    error::RequestError,
    exchange::{Answer, exchange, quote},
    login::{Target, encode, tries_older},
    operations::{Asker, Operation},
    secret::Secret,
};
use crate::{
    link::{Protocol, Security},
    model::{InvalidName, Metadata, ServiceDetails, ServiceKey, ServiceName},
};

/// Where operators ask, the newest first: Nacos 3, and everybody before it as well as rnacos (3.1.0
/// answers 410 to the older, 2.2.4 and rnacos 0.8.8 answer 404 to the newer).
const PATHS: [&str; 2] = ["/v3/admin/ns/service", "/v1/ns/service"];
/// More metadata is not kept: explanations are read by people.
const MOST_PAIRS: usize = 64;

/// How a server's main port is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) context_path: String,
    pub(super) security: Security,
    /// For the whole of it, both paths.
    pub(super) timeout: Duration,
}

/// The answer, in whichever interface's shape.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    protect_threshold: Option<f64>,
    #[serde(borrow)]
    metadata: Option<BTreeMap<Cow<'a, str>, serde_json::Value>>,
    ephemeral: Option<bool>,
}

/// The envelope of the newer one.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    data: Told<'a>,
}

impl Client {
    /// Asks the server what an operator set of a service as a whole: its protection threshold and its
    /// metadata. [`explain`](crate::Subscription::explain) shows it from then on.
    ///
    /// It is an HTTP request to the server's *main* port, by the path of operators
    /// (`/v3/admin/ns/service`, `/v1/ns/service` before 3.0), with the token of
    /// [`login`](super::ClientBuilder::login) if there is one. One is under way at a time, for
    /// [`login_timeout`](super::ClientBuilder::login_timeout) at most, and those of explanations wait behind
    /// this. What has been asked for is as old as the question: changes are not told.
    ///
    /// # Errors
    ///
    /// When the service does not exist there, which is so of one that was never created and has no
    /// instance; when the main port cannot be reached or the server has no such path; when the user may
    /// not look ([`is_denied`](RequestError::is_denied)): with authentication on, 3.x tells only
    /// administrators; and when there is no connection, or no answer, within the client's patience.
    pub async fn service_details<N>(&self, service: N) -> Result<ServiceDetails, RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        consume_budget().await;
        let key = self.key(service)?;
        self.handle.asks()?;
        let (reply, told) = oneshot::channel();
        let asker = Asker::Caller(reply);
        self.handle.send(Operation::Details { key, asker })?;
        self.handle.reply(told).await
    }
}

impl Http {
    /// Asks for `key` at `target`.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(super) async fn details(
        &self,
        target: &Target,
        key: &ServiceKey,
        token: Option<&Secret>,
    ) -> Result<ServiceDetails, RequestError> {
        let asking = self.try_paths(target, key, token);
        let told = timeout(self.timeout, asking).await;
        told.unwrap_or_else(|_| {
            let after = self.timeout;
            let what = format!("no answer within {after:?}");
            Err(self.failed(target, &what))
        })
    }

    async fn try_paths(
        &self,
        target: &Target,
        key: &ServiceKey,
        token: Option<&Secret>,
    ) -> Result<ServiceDetails, RequestError> {
        for path in PATHS {
            let answer = self.get(target, path, key, token).await;
            let answer = answer.map_err(|what| self.failed(target, &what))?;
            if !tries_older(answer.status) {
                return self.read(target, answer, token);
            }
        }
        Err(self.failed(target, "it has no path for that; check `context_path`"))
    }

    async fn get(
        &self,
        target: &Target,
        path: &str,
        key: &ServiceKey,
        token: Option<&Secret>,
    ) -> Result<Answer, String> {
        let connecting = TcpStream::connect(target.addr).await;
        let socket = connecting.map_err(|error| error.to_string())?;
        socket
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let securing = self.security.secure(socket, &target.host, Protocol::Http1);
        let stream = securing.await.map_err(|error| error.to_string())?;
        let request = self.request(target, path, key, token);
        exchange(stream, request.map_err(|error| error.to_string())?).await
    }

    fn request(
        &self,
        target: &Target,
        path: &str,
        key: &ServiceKey,
        token: Option<&Secret>,
    ) -> http::Result<Request<Full<Bytes>>> {
        let mut uri = format!("{}{path}?namespaceId=", self.context_path);
        encode(key.namespace(), &mut uri);
        uri.push_str("&groupName=");
        encode(key.group(), &mut uri);
        uri.push_str("&serviceName=");
        encode(key.name(), &mut uri);
        let agent = concat!("tower-nacos/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::get(uri)
            .header(HOST, &target.authority)
            .header(USER_AGENT, agent)
            .header(ACCEPT, "application/json");
        // In headers, since addresses are logged: one for Alibaba's servers, one for rnacos.
        let token = token.map(Secret::reveal);
        for (name, text) in [
            (
                AUTHORIZATION.as_str(),
                token.map(|token| format!("Bearer {token}")),
            ),
            ("accessToken", token.map(str::to_owned)),
        ] {
            if let Some(text) = text {
                let mut value = HeaderValue::try_from(text)?;
                value.set_sensitive(true);
                request = request.header(name, value);
            }
        }
        request.body(Full::new(Bytes::new()))
    }

    fn read(
        &self,
        target: &Target,
        answer: Answer,
        token: Option<&Secret>,
    ) -> Result<ServiceDetails, RequestError> {
        let text = match token {
            Some(token) => token.strike_out(&answer.body),
            None => answer.body.clone(),
        };
        let text = quote(&text);
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(RequestError::Denied { message: text });
            }
            status if !status.is_success() => {
                let what = format!("status {}: {text}", status.as_u16());
                return Err(self.failed(target, &what));
            }
            _ => {}
        }
        let told = serde_json::from_str::<Wrapped<'_>>(&answer.body)
            .map(|wrapped| wrapped.data)
            .or_else(|_| serde_json::from_str::<Told<'_>>(&answer.body));
        match told {
            // Whatever else answers with an object says neither.
            Ok(told) if told.protect_threshold.is_some() || told.metadata.is_some() => {
                Ok(told.into())
            }
            _ => Err(self.failed(
                target,
                &format!("an answer that says nothing of it: {text}"),
            )),
        }
    }

    fn failed(&self, target: &Target, what: &str) -> RequestError {
        let scheme = if self.security.is_tls() {
            "https"
        } else {
            "http"
        };
        let at = &target.authority;
        let context = &self.context_path;
        RequestError::Failed(format!(
            "details of a service, asked for at {scheme}://{at}{context}: {what}"
        ))
    }
}

impl From<Told<'_>> for ServiceDetails {
    fn from(told: Told<'_>) -> Self {
        let pairs = told.metadata.unwrap_or_default();
        let pairs = pairs.into_iter().take(MOST_PAIRS).map(|(key, value)| {
            let value = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            (key.into_owned(), value)
        });
        Self {
            protection_threshold: told.protect_threshold.filter(|share| share.is_finite()),
            metadata: pairs.collect::<Metadata>(),
            ephemeral: told.ephemeral,
        }
    }
}

#[cfg(test)]
#[path = "details_tests.rs"]
mod tests;
