use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER,
};
use tower::load::completion::TrackCompletion;

use crate::{
    endpoint::{Classify, InFlight, Judge, Keep, Outcome, Recover, Recovered, Verdict},
    model::OFFLINE_HEADER,
    retry::{Again, Retry},
    transport::{
        body::{request::Body, response::ResponseBody},
        error::Error,
        spare,
    },
};

/// How a balancer deals with [`Transport`](crate::transport::Transport)s: what was provably not
/// processed moves to another instance, a failed connection ejects its instance, and a call is in
/// flight until its response's body has ended.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Rules;

static OFFLINE: HeaderName = HeaderName::from_static(OFFLINE_HEADER);
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A failed connection ejects its instance, a failed call does not.
pub fn classify(error: &Error) -> Verdict {
    error.verdict()
}

impl Recover<Request<Body>, Error> for Rules {
    fn recover(&self, error: &mut Error) -> Option<Recovered<Request<Body>>> {
        error.recovered()
    }

    fn keep(
        &self,
        request: &mut Request<Body>,
        retry: &Retry,
    ) -> Option<Box<dyn Keep<Request<Body>, Error>>> {
        spare::keep(request, retry)
    }

    fn doubtful(&self, error: &Error) -> u32 {
        error.times_lost()
    }
}

impl TrackCompletion<InFlight, Response<ResponseBody>> for Rules {
    type Output = Response<ResponseBody>;

    fn track_completion(
        &self,
        in_flight: InFlight,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        if response.headers().contains_key(&OFFLINE) {
            let values = response.headers().get_all(&OFFLINE);
            in_flight.marked(values.iter().map(HeaderValue::as_bytes));
        }
        response.body_mut().track(in_flight);
        response
    }
}

impl Classify<Error> for Rules {
    fn classify(&self, error: &Error) -> Verdict {
        classify(error)
    }
}

impl Judge<Response<ResponseBody>, Error> for Rules {
    fn outcome(&self, result: Result<&Response<ResponseBody>, &Error>) -> Outcome {
        match result {
            Ok(response) => judge(response.status(), response.headers()),
            Err(error) if error.is_timeout() => Outcome::Failure,
            Err(_) => Outcome::Ignored, // refused, or the caller's own fault
        }
    }

    fn overloaded(&self, result: Result<&Response<ResponseBody>, &Error>) -> bool {
        result.is_ok_and(|response| is_overload(response.status(), response.headers()))
    }

    fn again(&self, result: Result<&Response<ResponseBody>, &Error>, retry: &Retry) -> Again {
        match result {
            Ok(response) => retry.read(response.status(), response.headers()),
            Err(_) => Again::No, // but what was lost
        }
    }
}

/// Whether an instance says so that it has too much to do: RESOURCE_EXHAUSTED, 429, or 503 with an hour to come
/// back, since without one it may be broken.
fn is_overload(status: StatusCode, headers: &HeaderMap) -> bool {
    match headers.get(&GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(code) => code == b"8",
        None if status == StatusCode::SERVICE_UNAVAILABLE => headers.contains_key(RETRY_AFTER),
        None => status == StatusCode::TOO_MANY_REQUESTS,
    }
}

/// By the status, and by gRPC's where a response has it in its head.
fn judge(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let grpc = headers.get(&GRPC_STATUS).map(HeaderValue::as_bytes);
    let failed = match grpc {
        // DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        Some(code) => matches!(code, b"4" | b"13" | b"14" | b"15"),
        None => status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED,
    };
    if failed {
        Outcome::Failure
    } else {
        Outcome::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_instances_fault_is_a_failure() {
        let of = |status: u16| judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (429, Outcome::Success),
            (500, Outcome::Failure),
            (501, Outcome::Success),
            (503, Outcome::Failure),
        ] {
            assert_eq!(of(status), outcome, "{status}");
        }
        let grpc = |code: &'static str| {
            let header = (
                "grpc-status".parse().unwrap(),
                HeaderValue::from_static(code),
            );
            judge(StatusCode::OK, &[header].into_iter().collect())
        };
        assert_eq!(grpc("0"), Outcome::Success);
        assert_eq!(grpc("5"), Outcome::Success);
        assert_eq!(grpc("14"), Outcome::Failure);
    }

    #[test]
    fn who_has_too_much_to_do_says_so() {
        let head = |headers: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            };
            headers.iter().map(pair).collect()
        };
        let of = |status, headers| is_overload(StatusCode::from_u16(status).unwrap(), &headers);
        assert!(of(429, head(&[])));
        assert!(of(503, head(&[("retry-after", "1")])));
        assert!(!of(503, head(&[])), "it may be broken");
        assert!(of(200, head(&[("grpc-status", "8")])));
        for (status, headers) in [
            (200, head(&[])),
            (500, head(&[("retry-after", "1")])),
            (200, head(&[("grpc-status", "14")])),
            (200, head(&[("grpc-status", "0")])),
        ] {
            assert!(!of(status, headers.clone()), "{status} {headers:?}");
        }
    }
}
