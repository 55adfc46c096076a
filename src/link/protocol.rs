/// What is spoken on a connection; a server with TLS wants to know beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}
