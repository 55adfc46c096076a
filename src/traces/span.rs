use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, Method, Request, StatusCode};
use tonic::Code;
use tracing::{
    Span,
    field::{Empty, display},
    info_span,
};

use crate::{logs, model::ServiceKey, traces::Traces, transport::Route};

/// The span of one call. Dropped before the call has ended it says that its caller went.
pub(crate) struct CallSpan {
    span: Span,
    route: Route,
    kind: Kind,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Grpc,
}

impl CallSpan {
    /// Begins one for a request that is to be sent; none if nobody wants it.
    pub(crate) fn http<B>(
        traces: &Traces,
        service: &ServiceKey,
        request: &mut Request<B>,
    ) -> Option<Box<Self>> {
        let span = http_span(request.method());
        span.record("nacos.service", display(named(service)));
        Self::begin(span, Kind::Http, traces, request)
    }

    /// The span of a request that never came to a service.
    pub(crate) fn http_failed(method: &Method, kind: &str) {
        let span = http_span(method);
        span.record("error.type", kind);
        span.record("otel.status_code", "ERROR");
    }

    /// The same for a call over gRPC, whose path is `/package.Service/Method`.
    pub(crate) fn grpc<B>(
        traces: &Traces,
        service: &ServiceKey,
        request: &mut Request<B>,
    ) -> Option<Box<Self>> {
        let path = request.uri().path().trim_start_matches('/');
        let (rpc, method) = path.split_once('/').unwrap_or((path, ""));
        let span = info_span!(
            target: logs::TRACES,
            "call",
            "otel.name" = path,
            "otel.kind" = "client",
            "otel.status_code" = Empty,
            "rpc.system" = "grpc",
            "rpc.service" = rpc,
            "rpc.method" = method,
            "rpc.grpc.status_code" = Empty,
            "http.request.resend_count" = Empty,
            "server.address" = Empty,
            "server.port" = Empty,
            "nacos.service" = %named(service),
            "error.type" = Empty,
        );
        Self::begin(span, Kind::Grpc, traces, request)
    }

    fn begin<B>(
        span: Span,
        kind: Kind,
        traces: &Traces,
        request: &mut Request<B>,
    ) -> Option<Box<Self>> {
        if let Some(propagate) = &traces.propagate {
            let mut headers = std::mem::take(request.headers_mut());
            let extensions = request.extensions();
            // It is the user's, and the call is more than its trace.
            let hook = AssertUnwindSafe(|| propagate(&span, extensions, &mut headers));
            if catch_unwind(hook).is_err() && !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    target: logs::TRACES,
                    "the hook that propagates a trace panicked: its calls carry no context (said once)"
                );
            }
            *request.headers_mut() = headers;
        }
        if span.is_disabled() {
            return None;
        }
        let route = Route::default();
        request.extensions_mut().insert(route.clone());
        Some(Box::new(Self {
            span,
            route,
            kind,
            over: false,
        }))
    }

    /// Does this in the span.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// A response has come, over HTTP.
    pub(crate) fn answered(mut self, status: StatusCode) {
        self.span
            .record("http.response.status_code", status.as_u16());
        if status.as_u16() >= 400 {
            self.fail(status.as_str());
        }
        self.over = true;
    }

    /// It has failed in this way.
    pub(crate) fn failed(mut self, kind: &str) {
        self.fail(kind);
        self.over = true;
    }

    /// It has ended with this code, over gRPC.
    pub(crate) fn ended(mut self, code: Code) {
        self.end(code);
    }

    /// What trailers, or the headers of a response that has no more, say of a call over gRPC; it goes on if they
    /// say nothing.
    pub(crate) fn read(mut self: Box<Self>, headers: &HeaderMap) -> Option<Box<Self>> {
        let Some(status) = headers.get("grpc-status") else {
            return Some(self);
        };
        self.end(Code::from_bytes(status.as_bytes()));
        None
    }

    fn end(&mut self, code: Code) {
        self.span.record("rpc.grpc.status_code", code as i32);
        if code != Code::Ok {
            self.fail(NAMES.get(code as usize).unwrap_or(&"UNKNOWN"));
        }
        self.over = true;
    }

    fn fail(&self, kind: &str) {
        self.span.record("error.type", kind);
        self.span.record("otel.status_code", "ERROR");
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        match self.kind {
            _ if self.over => {}
            Kind::Http => self.fail("cancelled"),
            Kind::Grpc => self.end(Code::Cancelled),
        }
        if let Some(instance) = self.route.instance() {
            self.span.record("server.address", display(instance.host()));
            self.span.record("server.port", instance.port());
        }
        let resends = self.route.resends();
        if resends > 0 {
            self.span.record("http.request.resend_count", resends);
        }
    }
}

fn http_span(method: &Method) -> Span {
    // RFC 9110 and PATCH (RFC 5789): what else callers write would be names without number.
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE"
        | "PATCH") => known,
        _ => "_OTHER",
    };
    info_span!(
        target: logs::TRACES,
        "call",
        "otel.name" = if method == "_OTHER" { "HTTP" } else { method },
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "http.request.method" = method,
        "http.response.status_code" = Empty,
        "http.request.resend_count" = Empty,
        "server.address" = Empty,
        "server.port" = Empty,
        "nacos.service" = Empty,
        "error.type" = Empty,
    )
}

fn named(service: &ServiceKey) -> String {
    format!("{}@@{}", service.group(), service.name())
}

/// Whether the log says that a hook panics: each call would say it again.
static TOLD: AtomicBool = AtomicBool::new(false);
/// The codes of gRPC by their number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
