use bytes::Bytes;
use h2::{
    RecvStream,
    client::{self, SendRequest},
};
use http::{
    Method, Request, Response, Uri, Version,
    header::{ACCEPT, USER_AGENT},
    uri::{PathAndQuery, Scheme},
};

use crate::{
    endpoint::Failure,
    tls::Socket,
    transport::ask::{driven::driven, form, verdict},
};

/// Asks for that path, and closes the connection at the end of the answer's head.
pub(super) async fn ask(
    io: Socket,
    secure: bool,
    authority: &str,
    path: &PathAndQuery,
) -> Result<(), Failure> {
    let mut request = request(Method::GET, secure, authority, path.clone())?;
    let any = http::HeaderValue::from_static("*/*");
    request.headers_mut().insert(ACCEPT, any);
    let asked = exchange(io, async |sender| {
        let response = send(sender, request, None).await?;
        Ok(verdict::of(response.status(), response.headers()))
    });
    asked.await.unwrap_or_else(|error| Err(broken(&error)))
}

/// What comes of `work` over a new connection.
pub(super) async fn exchange<T>(
    io: Socket,
    work: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<T, h2::Error>,
) -> Result<T, h2::Error> {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(form::MOST_OF_HEAD);
    let (sender, connection) = builder.handshake(io).await?;
    driven(connection, work(sender)).await
}

/// Sends a request with that body, and waits for the head of its answer.
pub(super) async fn send(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut stream) = sender.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(body, true)?;
    }
    response.await
}

pub(super) fn request(
    method: Method,
    secure: bool,
    authority: &str,
    path: PathAndQuery,
) -> Result<Request<()>, Failure> {
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build();
    Request::builder()
        .method(method)
        .uri(uri.map_err(Failure::silent)?)
        .version(Version::HTTP_2)
        .header(USER_AGENT, form::USER_AGENT)
        .body(())
        .map_err(Failure::silent)
}

pub(super) fn broken(error: &h2::Error) -> Failure {
    Failure::silent(format_args!("no answer over HTTP/2: {error}"))
}
