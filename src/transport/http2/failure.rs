//! What an HTTP/2 call that came to no response proves.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, request::Parts};

use crate::transport::{
    Body, ErrorKind, Evidence,
    body::recording::Recording,
    http2::connection::Slot,
    service::{Back, Connections, Failed},
};

/// What of a request's body may be sent again.
pub(in crate::transport) enum Sent {
    Empty,
    Full(Bytes),
    Stream(Arc<Recording>),
}

/// How often a request was refused so far, by whomever. Goes with it from instance to instance.
#[derive(Clone, Copy, Default)]
struct Refusals(u32);

/// No stream was opened: row (a).
pub(in crate::transport) fn not_opened(
    connections: &Connections,
    slot: &Slot,
    error: h2::Error,
    request: Request<Body>,
) -> Failed {
    connections.http2.retire(slot.connection());
    let told = error.is_go_away() && error.is_remote();
    if !told && !error.is_io() && error.reason().is_none() {
        let text = "the request cannot be sent";
        let error = connections
            .error(ErrorKind::Request, Evidence::Unsent, text)
            .because(error);
        return Failed::Error(error);
    }
    let fresh = !slot.connection().has_answered();
    if fresh && told {
        let text = format!("it sent GOAWAY as soon as it was connected ({error})");
        let refused = connections.error(ErrorKind::Refused, Evidence::Unsent, text);
        return Failed::Error(refused.because(error).with_request(Some(request)));
    }
    Failed::Back(Box::new(Back {
        request,
        evidence: Evidence::Unsent,
        fresh,
        why: format!("its connection closed before it took the request ({error})"),
    }))
}

/// What the end of an opened stream means.
pub(in crate::transport) fn judge(
    connections: &Connections,
    slot: &Slot,
    error: h2::Error,
    unwritten: bool,
    parts: Parts,
    sent: Sent,
) -> Failed {
    let new = |kind, evidence, text: String| connections.error(kind, evidence, text);
    let unknown = |kind, text: String| new(kind, Evidence::Unknown, text);
    if let Sent::Stream(recording) = &sent
        && let Some(failure) = recording.failure()
    {
        let text = "the request's body failed".to_owned();
        return Failed::Error(unknown(ErrorKind::Body, text).because(failure));
    }
    if unwritten {
        connections.http2.retire(slot.connection());
        let why = format!("its connection closed before the request was written ({error})");
        let Some(body) = sent.take_back() else {
            let error = new(ErrorKind::Unsent, Evidence::Unsent, why).because(error);
            return Failed::Error(error);
        };
        return Failed::Back(Box::new(Back {
            request: Request::from_parts(parts, body),
            evidence: Evidence::Unsent,
            fresh: !slot.connection().has_answered(),
            why,
        }));
    }
    if let Some(silent) = slot.connection().silence() {
        let lost = unknown(ErrorKind::Lost, silent.to_owned()).ejecting();
        return Failed::Error(lost.timing_out().because(error));
    }
    let reason = error.reason().unwrap_or(h2::Reason::NO_ERROR);
    let left_out = error.is_go_away() && error.is_remote();
    let refused = error.is_reset() && error.is_remote() && reason == h2::Reason::REFUSED_STREAM;
    if left_out {
        connections.http2.retire(slot.connection());
    }
    if left_out || refused {
        let why = if refused {
            "it refused the call (REFUSED_STREAM)".to_owned()
        } else {
            format!("it closes the connection and left the call out (GOAWAY, {reason})")
        };
        let Some(body) = sent.take_back() else {
            let text = format!(
                "{why}, and more of the request's body was sent than is kept to send it again"
            );
            let error = new(ErrorKind::Refused, Evidence::Refused, text).because(error);
            return Failed::Error(error);
        };
        let mut request = Request::from_parts(parts, body);
        let times = request.extensions_mut().get_or_insert_default::<Refusals>();
        times.0 += 1;
        if times.0 > MOST_REFUSALS {
            let text = format!("{why}, and so did the {MOST_REFUSALS} before it");
            let error = new(ErrorKind::Refused, Evidence::Refused, text).because(error);
            return Failed::Error(error);
        }
        // A connection that was to end does not mean that the instance is: another one will do.
        if left_out && reason == h2::Reason::NO_ERROR {
            return Failed::Back(Box::new(Back {
                request,
                evidence: Evidence::Refused,
                fresh: false,
                why,
            }));
        }
        let failing = left_out && reason != h2::Reason::ENHANCE_YOUR_CALM;
        let error = new(ErrorKind::Refused, Evidence::Refused, why)
            .because(error)
            .with_request(Some(request));
        return Failed::Error(if failing { error.ejecting() } else { error });
    }
    Failed::Error(if error.is_reset() && error.is_remote() {
        let text = format!("it gave the call up ({reason})");
        unknown(ErrorKind::Reset, text).because(error)
    } else if error.is_reset() {
        let text = format!("what it answered breaks HTTP/2's rules ({reason})");
        unknown(ErrorKind::Protocol, text).because(error)
    } else if error.is_go_away() {
        let text = format!("what it sent breaks HTTP/2's rules ({reason})");
        unknown(ErrorKind::Protocol, text).ejecting().because(error)
    } else {
        let text = "the connection was lost with the request on its way".to_owned();
        unknown(ErrorKind::Lost, text).losing().because(error)
    })
}

impl Sent {
    fn take_back(self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::empty()),
            Self::Full(bytes) => Some(bytes.into()),
            Self::Stream(recording) => recording.take_back(),
        }
    }
}

/// After so many refusals a request goes nowhere else, neither to another connection of the same
/// instance nor to another instance: who is refused everywhere is to slow down.
const MOST_REFUSALS: u32 = 3;
