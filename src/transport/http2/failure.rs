//! What an HTTP/2 call that came to no response proves.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Request, request::Parts};

use crate::transport::{
    attempt::{
        Back, Failed, MOST_REFUSALS, Past, is_sent_once_more, lost, may_go_elsewhere,
        was_sent_before,
    },
    body::{recording::Recording, request::Body},
    error::{ErrorKind, Evidence},
    http2::{driver::is_complaint, pool::Place},
};

/// What of a request's body may be sent again.
pub(in crate::transport) enum Sent {
    Empty,
    Full(Bytes),
    Stream(Arc<Recording>),
}

/// No stream was opened: row (a).
pub(in crate::transport) fn not_opened(
    place: &Place,
    error: h2::Error,
    request: Request<Body>,
) -> Failed {
    let peer = &place.pool().peer;
    place.pool().retire(place.connection());
    let told = error.is_go_away() && error.is_remote();
    if !told && !error.is_io() && error.reason().is_none() {
        let text = "the request cannot be sent";
        let error = peer
            .error(ErrorKind::Request, Evidence::Unsent, text)
            .because(error);
        return Failed::Error(error);
    }
    let connection = place.connection().past();
    if connection == Past::Fresh && told {
        let text = format!("it sent GOAWAY as soon as it was connected ({error})");
        let refused = peer.error(ErrorKind::Refused, Evidence::Unsent, text);
        let refused = refused.losing().because(error);
        return Failed::Error(refused.with_request(Some(request)));
    }
    Failed::Back(Box::new(Back {
        request,
        evidence: Evidence::Unsent,
        connection,
        why: format!("its connection closed before it took the request ({error})"),
    }))
}

/// How an opened stream ended before a response.
pub(in crate::transport) struct Ended {
    pub(in crate::transport) error: h2::Error,
    pub(in crate::transport) stream: u32,
    /// Whether nothing was written since it was opened.
    pub(in crate::transport) unwritten: bool,
    /// Whether the request may be sent once more.
    pub(in crate::transport) once_more: bool,
}

impl Ended {
    /// What that means.
    pub(in crate::transport) fn explain(self, place: &Place, parts: Parts, sent: Sent) -> Failed {
        let Self {
            error,
            stream,
            unwritten,
            once_more,
        } = self;
        let (pool, connection) = (place.pool(), place.connection());
        let new = |kind, evidence, text: String| pool.peer.error(kind, evidence, text);
        let unknown = |kind, text: String| new(kind, Evidence::Unknown, text);
        if let Sent::Stream(recording) = &sent
            && let Some(failure) = recording.failure()
        {
            let text = "the request's body failed".to_owned();
            return Failed::Error(unknown(ErrorKind::Body, text).because(failure));
        }
        if unwritten {
            pool.retire(connection);
            let why = format!("its connection closed before the request was written ({error})");
            let Some(body) = sent.take_back() else {
                let error = new(ErrorKind::Unsent, Evidence::Unsent, why).because(error);
                return Failed::Error(error);
            };
            return Failed::Back(Box::new(Back {
                request: Request::from_parts(parts, body),
                evidence: Evidence::Unsent,
                connection: connection.past(),
                why,
            }));
        }
        if let Some(silent) = connection.silence() {
            let lost = unknown(ErrorKind::Lost, silent.to_owned()).ejecting();
            return Failed::Error(lost.timing_out().because(error));
        }
        let reason = error.reason().unwrap_or(h2::Reason::NO_ERROR);
        let left_out = error.is_go_away() && error.is_remote();
        let refused = error.is_reset() && error.is_remote() && reason == h2::Reason::REFUSED_STREAM;
        if left_out {
            pool.retire(connection);
            let size = size_of(&parts);
            let mut parts = parts;
            // The guilty one would end one more connection wherever it goes.
            if connection.told().is_first_left_out(stream)
                && size > LARGE
                && is_guilty(&error, reason, &mut parts.extensions)
            {
                let why = format!(
                    "it closed the connection over the call's headers ({reason}): they are {size} \
                     bytes; it goes nowhere else with them"
                );
                let refused = new(ErrorKind::Refused, Evidence::Refused, why);
                return Failed::Error(refused.losing().because(error));
            }
            return left_out_of(place, error, parts, sent);
        }
        if refused {
            let why = "it refused the call (REFUSED_STREAM)".to_owned();
            return match again(&why, parts, sent) {
                Ok(request) => {
                    let refused = new(ErrorKind::Refused, Evidence::Refused, why);
                    Failed::Error(refused.because(error).with_request(Some(request)))
                }
                Err(text) => {
                    let refused = new(ErrorKind::Refused, Evidence::Refused, text);
                    Failed::Error(refused.because(error))
                }
            };
        }
        Failed::Error(if error.is_reset() && error.is_remote() {
            let text = format!("it gave the call up ({reason})");
            unknown(ErrorKind::Reset, text).because(error)
        } else if error.is_reset() {
            let max = pool.options.max_header_size;
            let text = format!(
                "what it answered breaks HTTP/2's rules ({reason}), or its headers are larger \
                 than `max_header_size` ({max} bytes)"
            );
            unknown(ErrorKind::Protocol, text).because(error)
        } else {
            pool.retire(connection);
            let told = connection.told();
            let innocent = match error.is_go_away() {
                // What was wrong with an answer that came is perhaps this one's doing.
                true => told.is_untouched(stream),
                // A byte of an answer says that the request was taken.
                false => !told.has_begun(stream),
            };
            if once_more
                && innocent
                && let Some(body) = sent.take_back()
            {
                let mut request = Request::from_parts(parts, body);
                is_sent_once_more(&mut request);
                return Failed::Back(Box::new(Back {
                    request,
                    evidence: Evidence::Unknown,
                    connection: Past::Answered,
                    why: format!("{} ({error})", lost(false)),
                }));
            }
            let (kind, text) = if error.is_go_away() {
                let text = format!("what it sent breaks HTTP/2's rules ({reason})");
                (ErrorKind::Protocol, text)
            } else {
                let before = was_sent_before(&parts.extensions);
                (ErrorKind::Lost, lost(before).to_owned())
            };
            unknown(kind, text).losing().because(error)
        })
    }
}

/// What a request's head comes to, by HTTP/2's own count but for the paths (RFC 9113, 6.5.2).
fn size_of(parts: &Parts) -> usize {
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 32);
    let path = parts
        .uri
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    path + headers.sum::<usize>()
}

/// Whether a head, large and the first that a GOAWAY left out, is what the peer ended the connection for.
fn is_guilty(error: &h2::Error, reason: h2::Reason, extensions: &mut Extensions) -> bool {
    match reason {
        // So nginx, which says no more, and hyper (`too_many_continuations`) speak of heads; others who
        // speak of resets, PINGs or DATA say so besides.
        h2::Reason::ENHANCE_YOUR_CALM => {
            let text = error.to_string();
            !text.ends_with(')') || text.contains("continuation") || text.contains("header")
        }
        // So Go and netty do; but these may be about anything that anybody sent. Who is the first left
        // out twice in a row is it.
        h2::Reason::PROTOCOL_ERROR | h2::Reason::COMPRESSION_ERROR => {
            extensions.insert(LeftOutFirst).is_some()
        }
        _ => false,
    }
}

/// In a request's extensions: a connection ended before it that may have ended over its head.
#[derive(Clone, Copy)]
struct LeftOutFirst;

/// A head that may be too much. Servers take this by default: nginx 8 KiB a field, hyper 16 KiB in all,
/// Go 1 MiB.
const LARGE: usize = 8 * 1024;

/// A GOAWAY says that the call was not processed.
fn left_out_of(place: &Place, error: h2::Error, parts: Parts, sent: Sent) -> Failed {
    let peer = &place.pool().peer;
    let reason = error.reason().unwrap_or(h2::Reason::NO_ERROR);
    let mut why = format!("it closes the connection and left the call out (GOAWAY, {reason})");
    if is_complaint(&error) {
        why += "; it says `too_many_pings`: the next connection to it is asked half as often";
    }
    // A connection that was to end does not mean that the instance is: another one will do. Nor does
    // one that was too much for it: that speaks of what was sent on it, by somebody else perhaps.
    let of_the_connection = matches!(reason, h2::Reason::NO_ERROR | h2::Reason::ENHANCE_YOUR_CALM);
    let request = match again(&why, parts, sent) {
        Ok(request) if of_the_connection => {
            return Failed::Back(Box::new(Back {
                request,
                evidence: Evidence::Refused,
                connection: Past::Answered,
                why,
            }));
        }
        Ok(request) => Some(request),
        Err(text) => {
            why = text;
            None
        }
    };
    let refused = peer.error(ErrorKind::Refused, Evidence::Refused, why);
    let refused = refused.because(error).with_request(request);
    Failed::Error(match reason {
        h2::Reason::NO_ERROR => refused,
        _ => refused.losing(),
    })
}

/// The request as it may be sent elsewhere, or why it is not.
fn again(why: &str, parts: Parts, sent: Sent) -> Result<Request<Body>, String> {
    let Some(body) = sent.take_back() else {
        return Err(format!(
            "{why}, and more of the request's body was sent than is kept to send it again"
        ));
    };
    let mut request = Request::from_parts(parts, body);
    if !may_go_elsewhere(request.extensions_mut()) {
        return Err(format!("{why}, and so did the {MOST_REFUSALS} before it"));
    }
    Ok(request)
}

impl Sent {
    /// The body as it was; none, and nothing has changed, if it cannot be sent again.
    pub(in crate::transport) fn take_back(&self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::empty()),
            Self::Full(bytes) => Some(bytes.clone().into()),
            Self::Stream(recording) => recording.take_back(),
        }
    }
}
