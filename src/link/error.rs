use std::{error::Error, io};

use tonic::{Code, Status};

use super::Heard;

/// What a peer did that said nothing at all.
pub(crate) const HUNG_UP: &str = "it closed the connection without a word; is this the gRPC port, which is the main port + 1000?";

/// A connection that could not be made. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Tcp(io::Error),
    /// The handshake failed; the text says why and what to do.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS fails so"))]
    #[error("{0}")]
    Tls(String),
    #[error("HTTP/2 could not begin: {0}")]
    Http2(hyper::Error),
}

/// A call on a connection that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection, or this stream of it, is gone.
    #[error("{0}")]
    Lost(String),
    /// The peer is something else than a Nacos server's gRPC port.
    #[error("{0}")]
    NotGrpc(&'static str),
    /// The message is larger than the limit; the connection lives.
    #[error(
        "the server's message is larger than the limit of {limit} bytes; raise `max_message_size`"
    )]
    TooLarge { limit: usize },
    /// The server answered with a gRPC status; the connection lives.
    #[error("gRPC status {code}: {message}")]
    Status { code: i32, message: String },
}

impl DialError {
    pub(super) fn tcp(error: io::Error) -> Self {
        Self::Tcp(error)
    }

    pub(super) fn http2(error: hyper::Error) -> Self {
        Self::Http2(error)
    }
}

impl CallError {
    pub(super) fn lost(error: &(dyn Error + 'static), heard: &Heard) -> Self {
        Self::ended(error, heard)
    }

    fn ended(error: &(dyn Error + 'static), heard: &Heard) -> Self {
        if let Some(what) = heard.tls_failure() {
            return Self::Lost(what);
        }
        match heard.not_grpc() {
            Some(what) => Self::NotGrpc(what),
            None if heard.last().is_none() && heard.is_tls() => Self::NotGrpc(
                "it closed the connection right after the TLS handshake; it may want a client certificate (`Tls::client_certificate`)",
            ),
            // What servers of HTTP/1 do that know the preface of HTTP/2.
            None if heard.last().is_none() => Self::NotGrpc(HUNG_UP),
            None => Self::Lost(chain(error)),
        }
    }

    pub(super) fn from_status(status: &Status, heard: &Heard, limit: usize) -> Self {
        if let Some(what) = heard.not_grpc() {
            return Self::NotGrpc(what);
        }
        // tonic reports a message over our own limit as OUT_OF_RANGE and a broken connection as
        // whatever the transport's error maps to, with that error as the source.
        if status.code() == Code::OutOfRange && status.source().is_none() {
            return Self::TooLarge { limit };
        }
        match (status.source(), status.code()) {
            (Some(error), _) => Self::ended(error, heard),
            (None, Code::Unavailable | Code::Cancelled) => {
                Self::Lost(format!("{}: {}", status.code(), status.message()))
            }
            (None, code) => Self::Status {
                code: code.into(),
                message: status.message().to_owned(),
            },
        }
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
