//! What a call carries with it: until when its caller waits, and the trace that it belongs to.

use std::{convert::Infallible, time::Duration};

use axum::extract::FromRequestParts;
use http::request::Parts;
use tower_nacos::http::{Deadline, RequestBuilder};

/// How long the caller goes on waiting, in milliseconds. HTTP has no header of its own for this;
/// this is the one that Envoy sends to what it proxies. gRPC has `grpc-timeout`.
pub(crate) const TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";
/// W3C Trace Context: `00-<trace>-<the caller's span>-<flags>`.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// For callers that do not say, and at most.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(60);

/// Taken from a request, and given to those that are made on its behalf.
pub(crate) struct Context {
    pub(crate) deadline: Deadline,
    trace: String,
    flags: String,
}

impl Context {
    /// For an HTTP request by name.
    pub(crate) fn carry(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .deadline(self.deadline)
            .header(TIMEOUT, self.deadline.remaining().as_millis().to_string())
            .header(TRACEPARENT, self.traceparent())
    }

    /// For a call of a generated client.
    pub(crate) fn carry_grpc<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.deadline.remaining());
        if let Ok(traceparent) = self.traceparent().parse() {
            request.metadata_mut().insert(TRACEPARENT, traceparent);
        }
        request
    }

    /// The same trace, and a span of our own for each call. A real service takes both from its
    /// tracing library.
    fn traceparent(&self) -> String {
        let span = rand::random::<u64>() | 1; // all zeros would be invalid
        format!("00-{}-{span:016x}-{}", self.trace, self.flags)
    }
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = |name: &str| parts.headers.get(name)?.to_str().ok();
        let within = header(TIMEOUT).and_then(|text| text.parse().ok());
        let within = within.map_or(PATIENCE, Duration::from_millis).min(MOST);
        let (trace, flags) = header(TRACEPARENT).and_then(read).unwrap_or_else(|| {
            let trace = rand::random::<u128>() | 1;
            (format!("{trace:032x}"), "00".to_owned())
        });
        Ok(Self {
            deadline: Deadline::within(within),
            trace,
            flags,
        })
    }
}

/// Trace and flags. What is malformed is ignored, as the specification wants.
fn read(traceparent: &str) -> Option<(String, String)> {
    let mut fields = traceparent.split('-');
    let (version, trace) = (fields.next()?, fields.next()?);
    let (span, flags) = (fields.next()?, fields.next()?);
    let hex = |text: &str, len| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let sound = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16);
    (sound && hex(flags, 2) && !zero(trace) && !zero(span)).then(|| (trace.into(), flags.into()))
}
