mod raw;

use std::{net::SocketAddr, time::Duration};

use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use self::raw::Raw;
use super::Registry;
use crate::{
    model::Instance,
    testing::{Fault, Script, StreamEnd},
};

const HANG: Duration = Duration::from_secs(20);

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

        let mut stream = client.set_up(NAMING).await;
        let conn = registry.connections()[0];
        let subscribe = format!(r#"{{{ORDERS},"subscribe":true}}"#);
        client
            .call("SubscribeServiceRequest", &subscribe)
            .await
            .unwrap();
        stream.next().await.unwrap();
        registry.end_stream(conn, StreamEnd::Status(14, "gone".to_owned()));
        assert_eq!(stream.next().await.unwrap_err(), "14");

        let mut stream = client.set_up(NAMING).await;
        client
            .call("SubscribeServiceRequest", &subscribe)
            .await
            .unwrap();
        stream.next().await.unwrap();
        registry.end_stream(conn, StreamEnd::Reset);
        let error = stream.next().await.unwrap_err();
        assert!(error.contains("error"), "{error}");

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
async fn one_connection_can_be_frozen_alone() {
    local(async {
        let registry = registry().await;
        let (mut a, mut b) = (Raw::connect(&registry).await, Raw::connect(&registry).await);
        let _stream = a.set_up(NAMING).await;
        let conn = registry.connections()[0];
        registry.freeze_connection(conn);
        let call = a.call("HealthCheckRequest", "{}");
        tokio::pin!(call);
        assert!(timeout(Duration::from_millis(50), &mut call).await.is_err());
        b.call("ServerCheckRequest", "{}").await.unwrap();
        registry.thaw_connection(conn);
        call.await.unwrap();
        // A server that is killed while it is frozen closes its sockets all the same.
        registry.freeze();
        registry.restart().await.unwrap();
        assert!(b.call("ServerCheckRequest", "{}").await.is_err());
        let mut b = Raw::connect(&registry).await;
        b.call("ServerCheckRequest", "{}").await.unwrap();
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

/// As genuine servers do to a client with a keep-alive of a few seconds.
#[tokio::test]
async fn a_client_that_pings_too_often_is_told_and_left() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    local(async {
        let registry = registry().await;
        let mut socket = TcpStream::connect(registry.grpc_addr()).await.unwrap();
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for _ in 0..4 {
            sent.extend(b"\0\0\x08\x06\0\0\0\0\0too_many");
        }
        socket.write_all(&sent).await.unwrap();
        let mut said = Vec::new();
        // The rest may be a reset: it had not read everything.
        let _ = socket.read_to_end(&mut said).await;
        let goodbye = b"\x00\x00\x00\x0btoo_many_pings";
        let found = said.windows(goodbye.len()).any(|part| part == goodbye);
        assert!(found, "{said:?}");
        let gone = |view: &crate::testing::View<'_>| view.connections().is_empty();
        registry.wait_until(gone).await;
    })
    .await;
}
