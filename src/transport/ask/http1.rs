use bytes::Bytes;
use http::{
    Request,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::{
    endpoint::Failure,
    tls::Socket,
    transport::ask::{driven::driven, form, verdict},
};

/// Asks for that path, and closes the connection at the end of the answer's head.
pub(super) async fn ask(io: Socket, authority: &str, path: &PathAndQuery) -> Result<(), Failure> {
    let request = Request::get(path.as_str())
        .header(HOST, authority)
        .header(USER_AGENT, form::USER_AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(Failure::silent)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(form::MOST_OF_HEAD as usize);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(broken)?;
    let response = driven(connection, sender.send_request(request)).await;
    let response = response.map_err(broken)?;
    verdict::of(response.status(), response.headers())
}

fn broken(error: hyper::Error) -> Failure {
    let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
    Failure::silent(format_args!(
        "no answer over HTTP/1.1: {error}{}",
        why.unwrap_or_default()
    ))
}
