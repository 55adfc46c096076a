use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body::{Body, Frame as BodyFrame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use super::Registry;
use crate::{
    model::Instance,
    testing::{Fault, Frame, Script, StreamEnd},
};

const HANG: Duration = Duration::from_secs(20);

type Sending = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A Nacos client made of nothing but hyper.
struct Raw {
    sender: conn::http2::SendRequest<Sending>,
    addr: SocketAddr,
}

struct RawStream {
    outgoing: mpsc::UnboundedSender<Bytes>,
    response: Option<tokio::task::JoinHandle<http::Response<Incoming>>>,
    incoming: Option<Incoming>,
    bytes: Vec<u8>,
    status: Option<http::HeaderValue>,
}

impl Raw {
    async fn connect(registry: &Registry) -> Self {
        let addr = registry.grpc_addr();
        let socket = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
                .await
                .unwrap();
        tokio::task::spawn_local(connection);
        Self { sender, addr }
    }

    fn request(&self, path: &str, body: Sending) -> Request<Sending> {
        Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap()
    }

    async fn call(&mut self, kind: &str, json: &str) -> Result<Frame, String> {
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

    async fn set_up(&mut self, labels: &str) -> RawStream {
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
    fn send(&self, kind: &str, json: &str) {
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
    async fn next(&mut self) -> Result<Frame, String> {
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

const NAMING: &str = r#"{"clientVersion":"raw","labels":{"module":"naming","source":"sdk"}}"#;
const ORDERS: &str = r#""namespace":"public","groupName":"DEFAULT_GROUP","serviceName":"orders""#;

async fn local(test: impl Future<Output = ()>) {
    timeout(3 * HANG, tokio::task::LocalSet::new().run_until(test))
        .await
        .unwrap();
}

async fn http(registry: &Registry, method: &str, path: &str, body: &str) -> (u16, String) {
    let socket = TcpStream::connect(registry.addr()).await.unwrap();
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::task::spawn_local(connection);
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", registry.addr());
    let response = sender
        .send_request(request.body(body.to_owned()).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn registry() -> Registry {
    Registry::builder().push_delay(None).start().await.unwrap()
}

#[tokio::test]
async fn a_client_connects_registers_subscribes_and_is_pushed_to() {
    local(async {
        let registry = registry().await;
        let mut client = Raw::connect(&registry).await;
        let check = client.call("ServerCheckRequest", "{}").await.unwrap();
        assert_eq!(check.field("/supportAbilityNegotiation").unwrap(), "true");
        let unregistered = client.call("HealthCheckRequest", "{}").await.unwrap();
        assert_eq!(unregistered.field("/errorCode").unwrap(), "301");

        let mut stream = client.set_up(NAMING).await;
        let subscribe = format!(r#"{{{ORDERS},"subscribe":true,"clusters":""}}"#);
        let answer = client
            .call("SubscribeServiceRequest", &subscribe)
            .await
            .unwrap();
        assert_eq!(answer.field("/serviceInfo/hosts").unwrap(), "[]");
        assert_eq!(registry.subscribers("orders"), registry.connections());
        assert_eq!(
            stream
                .next()
                .await
                .unwrap()
                .field("/serviceInfo/hosts")
                .unwrap(),
            "[]"
        );

        let register = format!(
            r#"{{{ORDERS},"type":"registerInstance","instance":{{"ip":"10.0.0.3","port":8080}}}}"#
        );
        let answer = client.call("InstanceRequest", &register).await.unwrap();
        assert_eq!(answer.field("/resultCode").unwrap(), "200");
        let push = stream.next().await.unwrap();
        assert_eq!(push.kind, "NotifySubscriberRequest");
        assert_eq!(push.field("/serviceInfo/hosts/0/ip").unwrap(), "10.0.0.3");
        let ack = format!(
            r#"{{"requestId":"{}","resultCode":200}}"#,
            push.field("/requestId").unwrap()
        );
        stream.send("NotifySubscriberResponse", &ack);
        let acked = registry.wait_until(|view| view.connections().iter().any(|c| c.acks == 1));
        timeout(HANG, acked).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_stream_can_end_alone_and_a_transport_can_be_killed() {
    local(async {
        let registry = registry().await;
        let mut client = Raw::connect(&registry).await;
        let mut stream = client.set_up(NAMING).await;
        registry.end_stream(registry.connections()[0], StreamEnd::Clean);
        // Nothing had been sent, so that the status travels in the headers.
        assert_eq!(stream.next().await.unwrap_err(), "0");
        let answer = client.call("HealthCheckRequest", "{}").await.unwrap();
        assert_eq!(answer.field("/errorCode").unwrap(), "301");

        registry.kill_all();
        timeout(HANG, async {
            while client.call("HealthCheckRequest", "{}").await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(registry.inspect(|view| view.connections().is_empty()));
    })
    .await;
}

#[tokio::test]
async fn an_operator_edits_over_http_and_a_provider_is_gone_with_its_socket() {
    local(async {
        let registry = registry().await;
        let (status, body) = http(&registry, "GET", "/nacos/v1/console/health/readiness", "").await;
        assert_eq!((status, &*body), (200, "OK"));
        registry.register("orders", &Instance::parse("10.0.0.3:8080").unwrap());
        let edit = "/nacos/v1/ns/instance?serviceName=orders&ip=10.0.0.3&port=8080";
        let (status, _) = http(
            &registry,
            "PUT",
            edit,
            "weight=7.5&metadata=%7B%22a%22%3A%22b%22%7D",
        )
        .await;
        assert_eq!(status, 200);
        let list = "/nacos/v1/ns/instance/list?serviceName=orders";
        let (_, body) = http(&registry, "GET", list, "").await;
        assert!(
            body.contains(r#""weight":7.5"#) && body.contains(r#"{"a":"b"}"#),
            "{body}"
        );

        let mut client = Raw::connect(&registry).await;
        let stream = client.set_up(NAMING).await;
        let register = format!(
            r#"{{{ORDERS},"type":"registerInstance","instance":{{"ip":"::1","port":8081}}}}"#
        );
        client.call("InstanceRequest", &register).await.unwrap();
        let both = ["10.0.0.3:8080", "[::1]:8081"];
        assert_eq!(registry.inspect(|view| view.addresses("orders")), both);
        drop((client, stream));
        let gone = registry.wait_until(|view| view.addresses("orders") == ["10.0.0.3:8080"]);
        timeout(HANG, gone).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_restart_keeps_the_ports_and_loses_what_is_ephemeral() {
    local(async {
        let registry = registry().await;
        registry.register("orders", &Instance::parse("10.0.0.3:8080").unwrap());
        let mut client = Raw::connect(&registry).await;
        let _stream = client.set_up(NAMING).await;
        registry.stop().await;
        assert!(client.call("HealthCheckRequest", "{}").await.is_err());
        assert!(TcpStream::connect(registry.grpc_addr()).await.is_err());
        assert!(TcpStream::connect(registry.addr()).await.is_err());
        registry.resume().await.unwrap();
        assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
        let mut client = Raw::connect(&registry).await;
        client.set_up(NAMING).await;
        let (http, grpc) = (registry.socket_addr(), registry.grpc_addr());
        drop(registry);
        for addr in [http, grpc] {
            assert!(refused(addr).await, "{addr} still accepts");
        }
    })
    .await;
}

/// Dropping aborts tasks; on this runtime they go with its next turn.
async fn refused(addr: SocketAddr) -> bool {
    timeout(HANG, async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .is_ok()
}

#[tokio::test]
async fn a_frozen_registry_accepts_bytes_and_answers_none_until_it_thaws() {
    local(async {
        let registry = registry().await;
        let mut client = Raw::connect(&registry).await;
        let mut stream = client.set_up(NAMING).await;
        let subscribe = format!(r#"{{{ORDERS},"subscribe":true}}"#);
        client
            .call("SubscribeServiceRequest", &subscribe)
            .await
            .unwrap();
        stream.next().await.unwrap();
        registry.freeze();
        registry.push_raw("orders", r#"{"hosts":null}"#);
        let call = client.call("HealthCheckRequest", "{}");
        tokio::pin!(call);
        assert!(timeout(Duration::from_millis(50), &mut call).await.is_err());
        registry.thaw();
        assert_eq!(call.await.unwrap().kind, "HealthCheckResponse");
        assert_eq!(
            stream
                .next()
                .await
                .unwrap()
                .field("/serviceInfo/hosts")
                .unwrap(),
            "null"
        );
    })
    .await;
}

#[tokio::test]
async fn answers_are_refused_failed_and_delayed_as_scripted() {
    local(async {
        let registry = registry().await;
        let mut client = Raw::connect(&registry).await;
        let _stream = client.set_up(NAMING).await;
        registry.script(Script::next(
            "HealthCheckRequest",
            Fault::RefuseAsError(301),
        ));
        registry.script(Script::next("HealthCheckRequest", Fault::Fail(14)));
        registry.script(Script::next(
            "HealthCheckRequest",
            Fault::Delay(Duration::from_millis(30)),
        ));
        let refused = client.call("HealthCheckRequest", "{}").await.unwrap();
        assert_eq!(refused.field("/errorCode").unwrap(), "301");
        assert_eq!(
            client.call("HealthCheckRequest", "{}").await.unwrap_err(),
            "14"
        );
        let late = client.call("HealthCheckRequest", "{}").await.unwrap();
        assert_eq!(late.kind, "HealthCheckResponse");
        let big = format!(r#"{{"padding":"{}"}}"#, "x".repeat(10 * 1024 * 1024));
        assert_eq!(
            client.call("HealthCheckRequest", &big).await.unwrap_err(),
            "8"
        );
        let other = client.request("/Other/call", Empty::new().boxed_unsync());
        let other = client.sender.send_request(other).await.unwrap();
        assert_eq!(other.headers()["grpc-status"], "12");
        assert!(other.into_body().is_end_stream());
    })
    .await;
}

#[test]
fn it_runs_on_either_kind_of_runtime_and_outlives_neither() {
    for mut builder in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ] {
        let runtime = builder.enable_all().build().unwrap();
        let registry = runtime.block_on(Registry::start()).unwrap();
        let connected = runtime.block_on(TcpStream::connect(registry.addr()));
        assert!(connected.is_ok());
        drop(runtime);
        drop(registry);
    }
}
