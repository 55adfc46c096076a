//! One connection to one Nacos server.
//!
//! A server knows a client by its HTTP/2 connection: the stream and all unary calls must share
//! one, and a connection that ended cannot be replaced under the same handle. So this is
//! [`hyper`]'s handshake on a socket of our own under tonic's client, and not tonic's channel,
//! which would dial again by itself. The end of a connection is an event.

mod error;
mod io;
mod probe;
mod protocol;
mod secure;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use http::uri::{PathAndQuery, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::AbortHandle};
use tonic::{body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower::Service;

#[cfg(feature = "tls")]
pub(crate) use self::tls::{Tls, TlsParts};
pub(crate) use self::{
    error::{CallError, DialError, HUNG_UP, chain},
    io::{Heard, SPEAKS_TLS},
    probe::speaks_tls,
    protocol::Protocol,
    secure::Security,
    stream::{StreamReceiver, StreamSender},
};
use crate::{logs, model::Host, wire::Payload};

const UNARY: PathAndQuery = PathAndQuery::from_static("/Request/request");
const STREAM: PathAndQuery = PathAndQuery::from_static("/BiRequestStream/requestBiStream");

/// Room for one large push without waiting for window updates.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A live connection. Clones share it; it closes when [`Connection`] is dropped.
#[derive(Clone)]
pub(crate) struct Link {
    grpc: Grpc<Sender>,
    heard: Heard,
    limit: usize,
}

/// The socket and hyper's task on it. Dropping it closes both at once.
#[derive(Debug)]
pub(crate) struct Connection {
    task: AbortHandle,
}

/// hyper's half of the connection as a tower service.
#[derive(Clone)]
struct Sender(http2::SendRequest<Body>);

/// Dials `addr`, which `host` resolved to, and speaks HTTP/2: by prior knowledge, or as agreed in
/// the TLS handshake.
///
/// Returns once the socket is open, and secured if it is to be: else the peer has said nothing yet, and whether it speaks HTTP/2 at
/// all shows at the first call. `limit` is the size in bytes up to which a message is accepted.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn dial(
    addr: SocketAddr,
    host: &Host,
    security: &Security,
    limit: usize,
) -> Result<(Link, Connection, SocketAddr), DialError> {
    let socket = TcpStream::connect(addr).await.map_err(DialError::tcp)?;
    socket.set_nodelay(true).map_err(DialError::tcp)?; // else each call waits for a delayed ACK
    let local = socket.local_addr().map_err(DialError::tcp)?;
    let stream = security.secure(socket, host, Protocol::Http2).await?;
    let heard = Heard::default();
    let io = TokioIo::new(heard.on(stream));
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(io)
        .await
        .map_err(DialError::http2)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "hyper's own connection task; `Connection` owns it and ends it when dropped"
    )]
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(target: logs::REGISTRY, cause = %error, "connection to the registry ended");
        }
    });
    let origin = origin(addr, security.is_tls());
    let grpc = Grpc::with_origin(Sender(sender), origin).max_decoding_message_size(limit);
    Ok((
        Link { grpc, heard, limit },
        Connection {
            task: task.abort_handle(),
        },
        local,
    ))
}

/// The URI that requests to `addr` begin with.
fn origin(addr: SocketAddr, tls: bool) -> Uri {
    // Without the scope of a link-local address, which a resolver may give and a URI cannot hold.
    let addr = SocketAddr::new(addr.ip(), addr.port());
    Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(addr.to_string())
        .path_and_query("/")
        .build()
        .expect("an IP address and a port are an authority")
}

impl Link {
    /// One unary call. Waits without limit; the caller sets the deadline.
    pub(crate) async fn call(&self, payload: Payload) -> Result<Payload, CallError> {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(|error| CallError::lost(&error, &self.heard))?;
        let answer = grpc
            .unary(tonic::Request::new(payload), UNARY, ProstCodec::default())
            .await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| CallError::from_status(&status, &self.heard, self.limit))
    }

    /// The two ends of the bidirectional stream. What is sent waits in memory until the server
    /// takes it; the server's side opens when it first says something.
    pub(crate) fn open_stream(&self) -> (StreamSender, StreamReceiver) {
        let (sender, outbound) = stream::outbound();
        let mut grpc = self.grpc.clone();
        let (heard, limit) = (self.heard.clone(), self.limit);
        let opening = async move {
            grpc.ready()
                .await
                .map_err(|error| CallError::lost(&error, &heard))?;
            let codec = ProstCodec::default();
            let answer = grpc
                .streaming(tonic::Request::new(outbound), STREAM, codec)
                .await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| CallError::from_status(&status, &heard, limit))
        };
        (
            sender,
            StreamReceiver::new(Box::pin(opening), self.heard.clone(), self.limit),
        )
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
