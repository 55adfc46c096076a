//! What a failure with the request on its way means. Nobody knows whether it was processed.

use crate::transport::{
    attempt::lost,
    error::{Error, ErrorKind, Evidence},
    peer::Peer,
};

/// Whether the connection ended, and not what the caller or the peer said was wrong.
pub(in crate::transport) fn is_lost(error: &hyper::Error) -> bool {
    !error.is_user() && !error.is_parse()
}

/// What it is, of a request that was or was not sent `before` on another connection.
pub(in crate::transport) fn explain(
    peer: &Peer,
    max_headers: u32,
    before: bool,
    error: hyper::Error,
) -> Error {
    let new = |kind, text: &str| peer.error(kind, Evidence::Unknown, text);
    // hyper tells some of this only in words, and whether a head is too large by a method only with
    // its server's feature.
    let judged = if error.is_user() {
        // Its head cannot be written, or its body failed half-way.
        let (kind, text) = if error.is_body_write_aborted() || is_body(&error) {
            (ErrorKind::Body, "the request's body failed")
        } else {
            (ErrorKind::Request, "the request cannot be sent")
        };
        new(kind, text)
    } else if error.is_parse() && error.to_string().contains("too large") {
        let text = format!(
            "its response's headers are larger than this client takes: more than 100, or than \
             400 KiB and `max_header_size` ({max_headers} bytes)"
        );
        new(ErrorKind::Protocol, &text).losing()
    } else if error.is_parse() {
        let text = format!(
            "its answer is not HTTP/1 ({error}): a malformed head, or it speaks TLS or HTTP/2 on \
             this port"
        );
        new(ErrorKind::Protocol, &text).losing()
    } else {
        new(ErrorKind::Lost, lost(before)).losing()
    };
    judged.because(error)
}

fn is_body(error: &hyper::Error) -> bool {
    error.to_string().contains("Body")
}
