//! Traces: one [`tracing`] span a call, with the names of OpenTelemetry's semantic conventions.
//!
//! Off unless [`Traces`] is given to [`HttpBuilder::traces`](crate::http::HttpBuilder::traces) or
//! [`ChannelBuilder::traces`](crate::grpc::ChannelBuilder::traces); then it costs a span and an allocation
//! a call, and nothing where no subscriber wants spans of
//! [`logs::TRACES`](crate::logs::TRACES) at level INFO. Any subscriber does, `tracing-opentelemetry` among them: this
//! crate depends on no tracer. `examples/opentelemetry` is a program with one.
//!
//! A span begins as the request is sent (`send()`, or the await of `http.get(..)`; a generated client's method),
//! as a child of the span that is current there, and is entered whenever the call is at work. So instrument the
//! block that sends and awaits, not a future that was made outside of it. Over HTTP it ends with the response's head, as a deadline does, over gRPC with the response's
//! trailers. However often a request moves or is sent again, it is one span.
//!
//! | field | HTTP | gRPC |
//! |---|---|---|
//! | `otel.name`, `otel.kind` | the method, `client` | `package.Service/Method`, `client` |
//! | `http.request.method` | the method, `_OTHER` for one that RFC 9110 and 5789 do not know | – |
//! | `rpc.system`, `rpc.service`, `rpc.method` | – | `grpc`, `package.Service`, `Method` |
//! | `nacos.service` | `group@@service` | the same |
//! | `server.address`, `server.port` | the instance that answered, or was asked last | the same |
//! | `http.request.resend_count` | how often it was sent after the first time, if at all | the same |
//! | `http.response.status_code` | the status | – |
//! | `rpc.grpc.status_code` | – | the code, 0 included |
//! | `error.type` | for 400 and more the status; `connect`, `timeout`, `lost`, `no_instances` and the like; `cancelled` if the caller went | the code's name, `CANCELLED` if the caller went |
//! | `otel.status_code` | `ERROR` with an `error.type` | the same |
//!
//! The request's address is not among them, since it may hold secrets, nor is any header.
//!
//! # Context
//!
//! What tells the instance which trace it is part of is the caller's to say, by a
//! [hook](Traces::propagate): W3C's `traceparent` from the span, by a tracer, or from what the request's
//! extensions carry.

mod span;

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap};
use tracing::Span;

pub(crate) use self::span::CallSpan;

/// That calls are traced, and how; see [the module](crate::traces).
///
/// ```
/// use tower_nacos::traces::Traces;
///
/// /// What the caller's own server put into its request's extensions.
/// #[derive(Clone)]
/// struct TraceParent(http::HeaderValue);
///
/// let traces = Traces::new().propagate(|_span, extensions, headers| {
///     if let Some(TraceParent(value)) = extensions.get() {
///         headers.insert("traceparent", value.clone());
///     }
/// });
/// ```
#[derive(Clone, Default)]
pub struct Traces {
    propagate: Option<Arc<Propagate>>,
}

type Propagate = dyn Fn(&Span, &Extensions, &mut HeaderMap) + Send + Sync;

impl Traces {
    /// A span a call, and no header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs this for each request before it is sent, with the call's span, the request's extensions and its
    /// headers: to write `traceparent` and `tracestate` (W3C Trace Context). Once a call: a request that is sent
    /// again says the same again. Run also where no subscriber wants the span, which
    /// [is disabled](Span::is_disabled) then. Must not block. Default: none.
    #[must_use]
    pub fn propagate(
        mut self,
        hook: impl Fn(&Span, &Extensions, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.propagate = Some(Arc::new(hook));
        self
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces")
            .field("propagates", &self.propagate.is_some())
            .finish()
    }
}
