//! What our caller is told when somebody that we call fails.

use std::fmt::Display;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde_json::json;
use tonic::Code;
use tower_nacos::http as by_name;

/// A status, and whose fault it was.
///
/// | what happened | status |
/// |---|---|
/// | nobody to call, nobody reachable, or too many calls at once: nothing was done | 503, with `retry-after` |
/// | the deadline passed | 504 |
/// | it says that there is no such thing | 404 |
/// | anything else: a connection lost in mid-call, a 500, an answer that makes no sense | 502 |
pub(crate) struct Failure {
    status: StatusCode,
    reason: String,
}

impl Failure {
    pub(crate) fn too_late(service: &str) -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            reason: format!("{service} did not finish its answer in time"),
        }
    }

    pub(crate) fn broken(service: &str, error: &impl Display) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            reason: format!("the answer of {service} is broken: {error}"),
        }
    }

    /// It answered, and not with success.
    pub(crate) fn answered(service: &str, status: StatusCode, body: &[u8]) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self {
                status,
                reason: String::from_utf8_lossy(body).into_owned(),
            },
            _ => Self {
                status: StatusCode::BAD_GATEWAY,
                reason: format!("{service} answered {status}"),
            },
        }
    }
}

impl From<by_name::Error> for Failure {
    fn from(error: by_name::Error) -> Self {
        let nobody = error.is_no_instances() || error.is_unknown();
        let status = match () {
            () if error.is_timeout() && !error.is_connect() => StatusCode::GATEWAY_TIMEOUT,
            () if nobody || error.is_connect() || error.is_overloaded() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            () => StatusCode::BAD_GATEWAY,
        };
        // Names service, instance and cause.
        let reason = error.to_string();
        Self { status, reason }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            Code::Unavailable | Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::NotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self {
            status: code,
            reason: status.message().to_owned(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.reason }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // A registry needs about as long to tell of a new instance.
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
