//! Requests that nobody makes to get something done, and that go on when all callers have left.

use std::fmt;

use ::http::{HeaderName, HeaderValue, Request, Uri, header::USER_AGENT, uri::PathAndQuery};

/// A path that nobody calls to get something done.
#[derive(Clone, Debug)]
pub(super) struct NoCall {
    path: Box<str>,
    /// Any, if none is given.
    query: Option<Box<str>>,
}

impl NoCall {
    /// `None` if no request can have it. A missing slash is added.
    pub(super) fn parse(written: &str) -> Option<Self> {
        let rooted = match written.starts_with('/') {
            true => written.to_owned(),
            false => format!("/{written}"),
        };
        let read: PathAndQuery = rooted.parse().ok()?;
        Some(Self {
            path: read.path().into(),
            query: read.query().map(Into::into),
        })
    }

    fn is_of(&self, uri: &Uri) -> bool {
        let asked = self.query.as_deref();
        *self.path == *uri.path() && (asked.is_none() || asked == uri.query())
    }
}

impl fmt::Display for NoCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// Who looks after services, by the beginning of its name: Kubernetes, Prometheus, the load balancers of
/// Google and AWS, Consul.
const WATCHERS: [&[u8]; 5] = [
    b"kube-probe/",
    b"Prometheus/",
    b"GoogleHC/",
    b"ELB-HealthChecker/",
    b"Consul Health Check",
];
/// Everything that scrapes as Prometheus does sends it: vmagent, the agents of Grafana and OpenTelemetry.
const SCRAPE: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Whether it is a caller's, and not that of somebody who looks after us.
pub(super) fn is_call<B>(request: &Request<B>, no_calls: &[NoCall]) -> bool {
    let (uri, headers) = (request.uri(), request.headers());
    let by_watcher = || {
        let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        agent.is_some_and(|agent| WATCHERS.iter().any(|name| agent.starts_with(name)))
    };
    !no_calls.iter().any(|no_call| no_call.is_of(uri))
        && !uri.path().starts_with("/grpc.health.v1.Health/")
        && !by_watcher()
        && !headers.contains_key(SCRAPE)
}
