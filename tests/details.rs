//! What an operator set of a service as a whole: asked for seldom, shown by `explain`, and missed by
//! nobody where it cannot be had.

#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite's; this one uses a part")]
mod server;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tower_nacos::{
    Client,
    directory::{Subscription, SubscriptionExplanation},
    model::Instance,
    testing::{Profile, Registry},
};

use server::{
    HANG, Server,
    node::{Node, Program, USER},
    open_api,
};

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

fn instance() -> Instance {
    Instance::parse("127.0.0.1:1001").unwrap()
}

/// Creates or updates a service as an operator does, once the server is up to it.
async fn operate(server: &str, method: &str, threshold: f64, owner: &str) {
    let query = format!(
        "serviceName=detailed&groupName=DEFAULT_GROUP&namespaceId=public&ephemeral=true\
         &protectThreshold={threshold}&metadata=%7B%22owner%22%3A%22{owner}%22%7D"
    );
    let paths = ["v3/admin/ns/service", "v1/ns/service"];
    soon("an operator", async {
        loop {
            // Genuine servers cannot store it in their first seconds.
            match open_api(server, method, paths, &query).await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
}

fn explain(orders: &Subscription) -> SubscriptionExplanation {
    orders.explain(instance().address())
}

async fn explained(orders: &Subscription) -> SubscriptionExplanation {
    soon("details", async {
        loop {
            let explained = explain(orders);
            if explained.details.is_some() {
                return explained;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

async fn what_an_operator_set_is_explained(server: Server) {
    let client = server.client().await;
    let missing = soon("missing", client.service_details("not-there")).await;
    let error = missing.unwrap_err();
    assert!(
        !error.is_denied() && error.to_string().contains("not"),
        "{error}"
    );
    operate(&server.addr(), "POST", 0.5, "team-a").await;
    soon("register", client.register("detailed", instance()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("detailed"))
        .await
        .unwrap();
    soon("listed", orders.wait_for(1, HANG)).await.unwrap();
    let first = explain(&orders);
    assert!(first.details.is_none(), "nobody asked before: {first}");
    let text = explained(&orders).await.to_string();
    for part in [
        "callable",
        "the service has protection threshold 0.5",
        "owner=team-a",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Many explanations ask no second time.
    operate(&server.addr(), "PUT", 0.25, "team-b").await;
    for _ in 0..100 {
        explain(&orders);
    }
    let another = soon("in order", client.service_details("not-there")).await;
    another.unwrap_err();
    let text = explain(&orders).to_string();
    assert!(text.contains("threshold 0.5"), "{text}");
    // Who asks outright is told, and so is whoever has it explained from then on.
    let details = soon("details", client.service_details("detailed")).await;
    let details = details.unwrap();
    assert_eq!(details.protection_threshold, Some(0.25));
    assert_eq!(details.metadata.get("owner"), Some("team-b"));
    let text = explain(&orders).to_string();
    assert!(text.contains("threshold 0.25"), "{text}");
    soon("close", client.close(HANG)).await.unwrap();
    let closed = soon("closed", client.service_details("detailed")).await;
    assert!(closed.unwrap_err().is_closed());
}

#[tokio::test]
async fn of_the_embedded_registry() {
    for profile in [Profile::V2_5, Profile::V3_1] {
        let builder = Registry::builder().profile(profile).push_delay(None);
        let registry = soon("start", builder.start()).await.unwrap();
        what_an_operator_set_is_explained(Server::Embedded(registry)).await;
    }
}

#[tokio::test]
async fn of_rnacos() {
    if let Some(server) = Server::rnacos().await {
        what_an_operator_set_is_explained(server).await;
    }
}

#[tokio::test]
async fn of_nacos_3_1_0() {
    if let Some(server) = Server::nacos("3.1.0").await {
        what_an_operator_set_is_explained(server).await;
    }
}

/// As it is packaged for these tests it stores nothing that an operator sets of a service: what it
/// tells is that nothing is set.
#[tokio::test]
async fn of_nacos_2_2_4() {
    let Some(server) = Server::shared_nacos("2.2.4").await else {
        return;
    };
    let client = server.client().await;
    soon("register", client.register("unset", instance()))
        .await
        .unwrap();
    let details = soon("details", client.service_details("unset")).await;
    let details = details.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(details.protection_threshold, Some(0.0));
    assert!(details.is_unset() && details.ephemeral.is_none());
    let orders = soon("subscribe", client.subscribe("unset")).await.unwrap();
    let text = explained(&orders).await.to_string();
    assert!(!text.contains("threshold"), "nothing to say: {text}");
}

/// With logins, whoever looks needs a token, and the client has one.
async fn the_login_is_used(program: Option<Program>) {
    let Some(program) = program else { return };
    let node = Node::alone(&program.with_auth()).await;
    let builder = Client::builder().servers(node.addr()).login(USER, USER);
    let client = soon("connect", builder.connect_timeout(HANG).connect())
        .await
        .unwrap();
    soon("register", client.register("detailed", instance()))
        .await
        .unwrap();
    let details = soon("details", client.service_details("detailed")).await;
    let details = details.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(details.protection_threshold, Some(0.0));
    // Without one the server says nothing.
    let path = "/nacos/v3/admin/ns/service?serviceName=detailed&groupName=DEFAULT_GROUP&namespaceId=public";
    for path in [path, &path.replace("v3/admin", "v1")] {
        let answer = server::http(&node.addr(), "GET", path).await.unwrap();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn the_login_is_used_on_nacos_3_1_0() {
    the_login_is_used(Program::nacos("3.1.0")).await;
}

#[tokio::test]
async fn the_login_is_used_on_rnacos() {
    the_login_is_used(Program::rnacos()).await;
}

/// Where the main port is shut, nothing is missing but this.
#[tokio::test]
async fn a_main_port_that_is_shut_costs_an_explanation_nothing() {
    let registry = soon("start", Registry::start()).await.unwrap();
    let grpc = registry.grpc_addr().port();
    let shut = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let main = shut.local_addr().unwrap().port();
    drop(shut);
    let client = Client::connect(format!("127.0.0.1:{main}/{grpc}"));
    let client = soon("connect", client).await.unwrap();
    registry.register("detailed", &instance());
    let orders = soon("subscribe", client.subscribe("detailed"))
        .await
        .unwrap();
    soon("listed", orders.wait_for(1, HANG)).await.unwrap();
    explain(&orders);
    let error = soon("details", client.service_details("detailed")).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains(&format!("http://127.0.0.1:{main}/nacos")),
        "{text}"
    );
    let explained = explain(&orders);
    assert!(
        explained.is_callable() && explained.details.is_none(),
        "{explained}"
    );
    // Nor is there anything to ask without a connection.
    registry.stop().await;
    explain(&orders);
    let dropped = client.service_details("detailed").now_or_never();
    assert!(dropped.is_none());
    soon("resume", registry.resume()).await.unwrap();
    let answered = soon("after the reconnect", client.service_details("detailed")).await;
    assert!(!answered.unwrap_err().is_timeout(), "the next is asked");
}

/// A main port that answers when it may, one at a time, and keeps which service each was about.
struct MainPort {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    may_answer: Arc<Semaphore>,
}

impl MainPort {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let started = Self {
            port: listener.local_addr().unwrap().port(),
            asked: Arc::default(),
            may_answer: Arc::new(Semaphore::new(0)),
        };
        let (asked, may_answer) = (Arc::clone(&started.asked), Arc::clone(&started.may_answer));
        #[expect(clippy::disallowed_methods, reason = "the scripted peer of a test")]
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n\r\n") {
                    if socket.read_buf(&mut text).await.unwrap() == 0 {
                        break;
                    }
                }
                let text = String::from_utf8(text).unwrap();
                let (_, name) = text.split_once("serviceName=").unwrap();
                let (name, _) = name.split_once(' ').unwrap();
                asked.lock().unwrap().push(name.to_owned());
                may_answer.acquire().await.unwrap().forget();
                let body = r#"{"data":{"protectThreshold":0.5}}"#;
                let length = body.len();
                let answer = format!("HTTP/1.1 200 \r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await; // it may have gone
            }
        });
        started
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn asked_times(&self, times: usize) {
        while self.asked().len() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Explanations of many services ask one after the other. Who asks outright does not wait for them,
/// and neither a service that was asked about meanwhile nor one that was left is asked about.
#[tokio::test]
async fn who_asks_outright_does_not_wait_for_explanations() {
    let registry = soon("start", Registry::start()).await.unwrap();
    let main = MainPort::start().await;
    let server = format!("127.0.0.1:{}/{}", main.port, registry.grpc_addr().port());
    let client = soon("connect", Client::connect(server)).await.unwrap();
    let mut all = Vec::new();
    for n in 0..10 {
        registry.register(format!("service-{n}"), &instance());
        let one = client.subscribe(format!("service-{n}"));
        all.push(soon("subscribe", one).await.unwrap());
    }
    for service in &all {
        explain(service);
    }
    soon("the first", main.asked_times(1)).await;
    let outright = client.service_details("service-9");
    let mut outright = std::pin::pin!(outright);
    assert!(outright.as_mut().now_or_never().is_none());
    drop(all.remove(5));
    // When this is done, so is all that came before: the client has one queue.
    let behind = client.register("behind", instance());
    soon("behind", behind).await.unwrap();
    main.may_answer.add_permits(100);
    soon("outright", outright).await.unwrap();
    for service in &all {
        explained(service).await;
    }
    let wanted = [0, 9, 1, 2, 3, 4, 6, 7, 8].map(|n| format!("service-{n}"));
    assert_eq!(main.asked(), wanted);
}

/// What was under way when the connection was lost is asked on the next one.
#[tokio::test]
async fn an_explanation_that_lost_its_connection_is_asked_for_on_the_next() {
    let registry = soon("start", Registry::start()).await.unwrap();
    let main = MainPort::start().await;
    let server = format!("127.0.0.1:{}/{}", main.port, registry.grpc_addr().port());
    let client = soon("connect", Client::connect(server)).await.unwrap();
    registry.register("detailed", &instance());
    let orders = soon("subscribe", client.subscribe("detailed")).await;
    let orders = orders.unwrap();
    explain(&orders);
    soon("asked", main.asked_times(1)).await;
    registry.kill_all();
    let moved = registry.wait_until(|view| view.count("SubscribeServiceRequest") == 2);
    soon("moved", moved).await;
    main.may_answer.add_permits(1); // into the void
    soon("asked again", main.asked_times(2)).await;
    main.may_answer.add_permits(100);
    explained(&orders).await;
}
