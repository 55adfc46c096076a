//! What one attempt on one connection came to, if not to a response; and who may have another.

use http::{Extensions, HeaderName, Method, Request};

use crate::transport::{
    body::request::{Body, Kind},
    error::{Error, ErrorKind, Evidence},
    history::becomes_doubtful,
    peer::Peer,
};

/// Why an attempt came to no response.
pub(super) enum Failed {
    /// The request is there to be sent on another connection.
    Back(Box<Back>),
    Error(Error),
}

/// A request that a connection did not answer.
pub(super) struct Back {
    pub(super) request: Request<Body>,
    /// What is known of the connection.
    pub(super) connection: Past,
    /// How it is known that it was not processed; [`Evidence::Unknown`] if it is safe all the same.
    pub(super) evidence: Evidence,
    pub(super) why: String,
}

/// What a connection had done before it took no request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It had answered: another one may well do.
    Answered,
    /// Nobody was answered on it, and others had it as well: what one of them sent may have ended it.
    Shared,
    /// It was made for this request: another one is no more likely to do.
    Fresh,
}

/// In a request's extensions: it was sent once more already.
#[derive(Clone, Copy)]
struct SentOnceMore;

/// Whether a request may be sent once more when a kept connection closes before the first byte of
/// its response: it is safe, or says that the server knows it again (RFC 9110, 9.2.2; Go's client
/// does the same). Its body is there.
pub(super) fn may_be_sent_once_more(request: &Request<Body>) -> bool {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    let there = match &request.body().0 {
        Kind::Empty => safe || is_known_again(request),
        Kind::Full(_) => is_known_again(request),
        Kind::Stream(_) => false,
    };
    there && request.extensions().get::<SentOnceMore>().is_none()
}

fn is_known_again(request: &Request<Body>) -> bool {
    request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// It is sent once more now, and not again.
pub(super) fn is_sent_once_more<B>(request: &mut Request<B>) {
    request.extensions_mut().insert(SentOnceMore);
    becomes_doubtful(request.extensions_mut());
}

/// Whether it is.
pub(super) fn was_sent_before(extensions: &Extensions) -> bool {
    extensions.get::<SentOnceMore>().is_some()
}

/// The connection that had the call ended, or each of those that had it `before` and now.
pub(super) const fn lost(before: bool) -> &'static str {
    if before {
        "it was reached, but each connection was lost with the call on it"
    } else {
        "it was reached, but the connection was lost with the call on it"
    }
}

/// How often a request was refused so far, by whomever. Goes with it from instance to instance.
#[derive(Clone, Copy, Default)]
struct Refusals(u32);

/// Counts a refusal of the request with these extensions. False if that is one too many: who is
/// refused everywhere is to slow down.
pub(super) fn may_go_elsewhere(extensions: &mut Extensions) -> bool {
    let times = extensions.get_or_insert_default::<Refusals>();
    times.0 += 1;
    times.0 <= MOST_REFUSALS
}

/// It answered 421 to a request that said whom it means. Nothing was done (RFC 9110, 15.5.20). That is a
/// refusal each time, and no response: a request that may not go elsewhere, or of which that was not
/// `kept`, fails with it.
pub(super) fn misdirected(peer: &Peer, kept: Result<Request<Body>, &str>) -> Failed {
    let mut text =
        "it answers 421 (Misdirected Request): somebody else has this address by now".to_owned();
    let request = match kept {
        Ok(mut request) => {
            let may = may_go_elsewhere(request.extensions_mut());
            if !may {
                text +=
                    &format!("; the call was refused {MOST_REFUSALS} times before: it ends here");
            }
            may.then_some(request)
        }
        Err(why) => {
            text += "; the call ends here, since ";
            text += why;
            None
        }
    };
    let refused = peer.error(ErrorKind::Refused, Evidence::Refused, text);
    Failed::Error(refused.with_request(request))
}

/// After so many refusals a request goes nowhere else, neither to another connection of the same
/// instance nor to another instance.
pub(super) const MOST_REFUSALS: u32 = 3;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, key: bool, body: impl Into<Body>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri("/");
        if key {
            request = request.header("Idempotency-Key", "7");
        }
        request.body(body.into()).unwrap()
    }

    #[test]
    fn the_safe_and_those_known_again_are_sent_once_more_and_only_once() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(may_be_sent_once_more(&request(method, false, ())));
            assert!(!may_be_sent_once_more(&request(method, false, "body")));
        }
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(!may_be_sent_once_more(&request(method, false, ())));
            assert!(may_be_sent_once_more(&request(method, true, ())));
            assert!(may_be_sent_once_more(&request(method, true, "body")));
        }
        let stream = Body::new(http_body_util::StreamBody::new(
            futures_util::stream::pending::<Result<_, std::convert::Infallible>>(),
        ));
        assert!(!may_be_sent_once_more(&request("POST", true, stream)));
        let mut once = request("GET", false, ());
        is_sent_once_more(&mut once);
        assert!(!may_be_sent_once_more(&once));
    }
}
