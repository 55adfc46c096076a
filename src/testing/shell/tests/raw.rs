use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use super::{HANG, Registry};
use crate::testing::Frame;

pub(super) type Sending = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A Nacos client made of nothing but hyper.
pub(super) struct Raw {
    pub(super) sender: conn::http2::SendRequest<Sending>,
    addr: SocketAddr,
}

/// Its stream.
pub(super) struct RawStream {
    outgoing: mpsc::UnboundedSender<Bytes>,
    response: Option<tokio::task::JoinHandle<http::Response<Incoming>>>,
    incoming: Option<Incoming>,
    bytes: Vec<u8>,
    status: Option<http::HeaderValue>,
}

impl Raw {
    pub(super) async fn connect(registry: &Registry) -> Self {
        let addr = registry.grpc_addr();
        let socket = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
                .await
                .unwrap();
        tokio::task::spawn_local(connection);
        Self { sender, addr }
    }

    pub(super) fn request(&self, path: &str, body: Sending) -> Request<Sending> {
        Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap()
    }

    pub(super) async fn call(&mut self, kind: &str, json: &str) -> Result<Frame, String> {
        let message = framed(&Frame::new(kind, json.to_owned()).encode());
        let body = Full::new(message).boxed_unsync();
        let request = self.request("/Request/request", body);
        let response = timeout(HANG, self.sender.send_request(request))
            .await
            .unwrap()
            .map_err(|e| e.to_string())?;
        if let Some(status) = response.headers().get("grpc-status") {
            return Err(status.to_str().unwrap().to_owned());
        }
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        Ok(Frame::decode(&body.to_bytes()[5..]).unwrap())
    }

    pub(super) async fn set_up(&mut self, labels: &str) -> RawStream {
        let (outgoing, items) = mpsc::unbounded_channel::<Bytes>();
        let body = StreamBody::new(futures_util::stream::unfold(items, |mut items| async {
            let item = items.recv().await?;
            Some((Ok(BodyFrame::data(item)), items))
        }));
        let request = self.request("/BiRequestStream/requestBiStream", body.boxed_unsync());
        let sending = self.sender.send_request(request);
        let response = tokio::task::spawn_local(async move { sending.await.unwrap() });
        let stream = RawStream {
            outgoing,
            response: Some(response),
            incoming: None,
            bytes: Vec::new(),
            status: None,
        };
        stream.send("ConnectionSetupRequest", labels);
        while self.call("HealthCheckRequest", "{}").await.unwrap().kind != "HealthCheckResponse" {
            tokio::task::yield_now().await;
        }
        stream
    }
}

impl RawStream {
    pub(super) fn send(&self, kind: &str, json: &str) {
        let payload = Frame::new(kind, json.to_owned()).encode();
        self.outgoing.send(framed(&payload)).unwrap();
    }

    async fn incoming(&mut self) -> &mut Incoming {
        if let Some(response) = self.response.take() {
            let response = timeout(HANG, response).await.unwrap().unwrap();
            self.status = response.headers().get("grpc-status").cloned();
            self.incoming = Some(response.into_body());
        }
        self.incoming.as_mut().unwrap()
    }

    /// The next frame, or how the stream ended.
    pub(super) async fn next(&mut self) -> Result<Frame, String> {
        loop {
            if self.bytes.len() >= 5 {
                let length = u32::from_be_bytes(self.bytes[1..5].try_into().unwrap()) as usize;
                if self.bytes.len() >= 5 + length {
                    let frame = Frame::decode(&self.bytes[5..5 + length]).unwrap();
                    self.bytes.drain(..5 + length);
                    return Ok(frame);
                }
            }
            match timeout(HANG, self.incoming().await.frame()).await.unwrap() {
                Some(Ok(frame)) if frame.is_data() => {
                    self.bytes.extend(frame.into_data().unwrap());
                }
                Some(Ok(frame)) => {
                    let trailers = frame.into_trailers().unwrap();
                    return Err(trailers["grpc-status"].to_str().unwrap().to_owned());
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    let status = self.status.take().map(|s| s.to_str().unwrap().to_owned());
                    return Err(status.unwrap_or_else(|| "closed".to_owned()));
                }
            }
        }
    }
}

fn framed(payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), payload].concat().into()
}
