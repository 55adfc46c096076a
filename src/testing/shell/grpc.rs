//! gRPC as far as Nacos uses it, by hand: five bytes before a message, a status behind.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::testing::machine::{ConnId, StreamEnd};

use super::core::{Item, Shared};

/// What grpc-java accepts of one message.
const LONGEST: usize = 10 * 1024 * 1024;

type Status = (i32, String);

/// The body of an answer.
#[derive(Debug)]
pub(super) enum GrpcBody {
    /// A message (or none), then its status.
    Unary(Option<Bytes>, Option<HeaderMap>),
    /// Messages until an end.
    Stream {
        first: Option<Item>,
        items: mpsc::UnboundedReceiver<Item>,
        ended: bool,
    },
}

/// Messages out of the bytes of a body.
struct Messages {
    body: Incoming,
    bytes: BytesMut,
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    run: u64,
    conn: ConnId,
    request: Request<Incoming>,
) -> Result<Response<GrpcBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let messages = Messages {
        body,
        bytes: BytesMut::new(),
    };
    Ok(match parts.uri.path() {
        "/Request/request" => unary(&shared, conn, messages).await,
        "/BiRequestStream/requestBiStream" => stream(shared, run, conn, messages).await,
        path => failed((12, format!("Method not found: {path}"))),
    })
}

async fn unary(shared: &Shared, conn: ConnId, mut messages: Messages) -> Response<GrpcBody> {
    let payload = match messages.next().await {
        Ok(Some(payload)) => payload,
        Ok(None) => return failed((13, "Half-closed without a request".to_owned())),
        Err(status) => return failed(status),
    };
    match shared.call(conn, &payload).await {
        Ok(Ok(payload)) => {
            let body = GrpcBody::Unary(Some(framed(&payload)), Some(trailers(&(0, String::new()))));
            respond(body)
        }
        Ok(Err(status)) => failed(status),
        // The call was withheld and the connection is gone.
        Err(_) => failed((14, "the server gave the call up".to_owned())),
    }
}

async fn stream(
    shared: Arc<Shared>,
    run: u64,
    conn: ConnId,
    mut messages: Messages,
) -> Response<GrpcBody> {
    let (number, mut items) = shared.stream_opened(conn);
    let reader = shared.clone();
    shared.spawn(run, async move {
        // A message that cannot be read and an end of the client's are one to the server.
        while let Ok(Some(payload)) = messages.next().await {
            reader.with(|machine, now| machine.handle_stream(conn, &payload, now));
        }
        reader.stream_closed(conn, number);
    });
    // grpc-java sends its headers with the first message, not before.
    match items.recv().await {
        Some(Item::End(StreamEnd::Status(code, message))) => failed((code, message)),
        None | Some(Item::End(StreamEnd::Clean)) => failed((0, String::new())),
        first => respond(GrpcBody::Stream {
            first,
            items,
            ended: false,
        }),
    }
}

impl Messages {
    /// The next whole message; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if self.bytes.len() >= 5 {
                let compressed = self.bytes[0] != 0;
                let length = (&self.bytes[1..5]).get_u32() as usize;
                if compressed {
                    return Err((12, "compressed messages are not supported".to_owned()));
                }
                if length > LONGEST {
                    let message = format!("gRPC message exceeds maximum size {LONGEST}: {length}");
                    return Err((8, message));
                }
                if self.bytes.len() >= 5 + length {
                    self.bytes.advance(5);
                    return Ok(Some(self.bytes.split_to(length).freeze()));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.bytes.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err((1, error.to_string())),
                None => return Ok(None),
            }
        }
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Unary(message, status) => Poll::Ready(match message.take() {
                Some(message) => Some(Ok(Frame::data(message))),
                None => status.take().map(|status| Ok(Frame::trailers(status))),
            }),
            Self::Stream { ended: true, .. } => Poll::Ready(None),
            Self::Stream {
                first,
                items,
                ended,
            } => {
                let item = match first.take() {
                    Some(first) => Some(first),
                    None => match items.poll_recv(cx) {
                        Poll::Ready(item) => item,
                        Poll::Pending => return Poll::Pending,
                    },
                };
                let status = match item {
                    Some(Item::Payload(payload)) => {
                        return Poll::Ready(Some(Ok(Frame::data(framed(&payload)))));
                    }
                    Some(Item::End(StreamEnd::Status(code, message))) => (code, message),
                    Some(Item::End(StreamEnd::Reset)) => {
                        *ended = true;
                        let error = io::Error::from(io::ErrorKind::ConnectionReset);
                        return Poll::Ready(Some(Err(error)));
                    }
                    Some(Item::End(StreamEnd::Clean)) | None => (0, String::new()),
                };
                *ended = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(
            self,
            Self::Unary(None, None) | Self::Stream { ended: true, .. }
        )
    }
}

fn framed(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(payload.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.extend_from_slice(payload);
    message.freeze()
}

fn trailers((code, message): &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(*code));
    if !message.is_empty()
        && let Ok(message) = HeaderValue::from_str(message)
    {
        trailers.insert("grpc-message", message);
    }
    trailers
}

fn respond(body: GrpcBody) -> Response<GrpcBody> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// A status and nothing else, which travels in the headers.
fn failed(status: Status) -> Response<GrpcBody> {
    let mut response = respond(GrpcBody::Unary(None, None));
    response.headers_mut().extend(trailers(&status));
    response
}
