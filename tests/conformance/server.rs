//! The servers that the suite runs against: the embedded registry, rnacos and genuine Nacos as child
//! processes, and any other that `NACOS_TEST_SERVER` names.

use std::{
    env,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};
use tower_nacos::{
    client::{Client, ClientBuilder},
    model::Address,
    testing::Registry,
};

use node::{Node, Program};

#[path = "node.rs"]
pub(crate) mod node;

/// Nothing that works takes this long; a promise that does not hold shows as this time-out.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) enum Server {
    Embedded(Registry),
    /// One of our own, to be killed at will.
    Own(Node),
    /// A genuine one, which takes ten seconds to start: one for all tests that leave it alone.
    Shared(&'static Node),
    /// One that somebody else runs.
    Named(Named),
}

/// The server that `NACOS_TEST_SERVER` names, with `NACOS_TEST_USER` and `NACOS_TEST_PASSWORD` if it
/// wants a login. A namespace for each run: what an operator set outlives registrations.
pub(crate) struct Named {
    server: String,
    namespace: String,
    login: Option<(String, String)>,
}

impl Server {
    /// The embedded registry, pushing at once.
    pub(crate) async fn embedded() -> Self {
        let registry = Registry::builder().push_delay(None).start().await;
        Self::Embedded(registry.expect("the embedded registry starts"))
    }

    /// rnacos, if it is installed.
    pub(crate) async fn rnacos() -> Option<Self> {
        Some(Self::Own(Node::alone(&Program::rnacos()?).await))
    }

    /// The same with more settings, as variables of its environment.
    pub(crate) async fn rnacos_with(
        settings: &'static [(&'static str, &'static str)],
    ) -> Option<Self> {
        let Program::Rnacos { path, .. } = Program::rnacos()? else {
            unreachable!("it is rnacos")
        };
        let program = Program::Rnacos { path, settings };
        Some(Self::Own(Node::alone(&program).await))
    }

    /// A genuine Nacos of our own, if that version is prepared.
    pub(crate) async fn nacos(version: &'static str) -> Option<Self> {
        Some(Self::Own(Node::alone(&Program::nacos(version)?).await))
    }

    /// The one genuine Nacos of that version that this process shares.
    pub(crate) async fn shared_nacos(version: &'static str) -> Option<Self> {
        static SHARED: [OnceCell<Node>; 2] = [const { OnceCell::const_new() }; 2];
        let program = Program::nacos(version)?;
        let node = SHARED[usize::from(version.starts_with('2'))]
            .get_or_init(|| async { Node::alone(&program).await });
        Some(Self::Shared(node.await))
    }

    /// The server that somebody named, if anybody did.
    pub(crate) fn named() -> Option<Self> {
        let server = env::var("NACOS_TEST_SERVER").ok()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "a name that no other run has used on that server"
        )]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let login = env::var("NACOS_TEST_USER").ok();
        Some(Self::Named(Named {
            server,
            namespace: format!("conformance-{}", now.map_or(0, |now| now.as_nanos())),
            login: login.map(|user| {
                let password = env::var("NACOS_TEST_PASSWORD").unwrap_or_default();
                (user, password)
            }),
        }))
    }

    /// `host:port` of the main port.
    pub(crate) fn addr(&self) -> String {
        match self {
            Self::Embedded(registry) => registry.addr(),
            Self::Own(node) => node.addr(),
            Self::Shared(node) => node.addr(),
            Self::Named(named) => named.server.clone(),
        }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        let builder = Client::builder().servers(self.addr());
        let Self::Named(named) = self else {
            return builder;
        };
        let builder = builder.namespace(&named.namespace);
        match &named.login {
            Some((user, password)) => builder.login(user, password),
            None => builder,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.expect("the server is up")
    }

    pub(crate) fn registry(&self) -> &Registry {
        match self {
            Self::Embedded(registry) => registry,
            _ => panic!("this part of the suite scripts the embedded registry"),
        }
    }

    /// An operator's edit through the Open API, the same call on each server.
    pub(crate) async fn operate(&self, service: &str, instance: &Address, change: &str) {
        let (ip, port) = (instance.host(), instance.port());
        let mut query = format!("serviceName={service}&ip={ip}&port={port}&{change}");
        if let Self::Named(named) = self {
            query += &format!("&namespaceId={}", named.namespace);
            if let Some((user, password)) = &named.login {
                query += &format!("&accessToken={}", token(&self.addr(), user, password).await);
            }
        }
        let paths = ["v3/admin/ns/instance", "v1/ns/instance"];
        let answer = open_api(&self.addr(), "PUT", paths, &query)
            .await
            .expect("the Open API answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Ends the server as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Embedded(registry) => registry.stop().await,
            Self::Own(node) => node.kill(),
            _ => panic!("a server that others use is left alone"),
        }
    }

    /// The same, and starts it without what it knew.
    pub(crate) async fn restart_empty(&mut self) {
        match self {
            Self::Embedded(registry) => registry.restart().await.expect("it starts again"),
            Self::Own(node) => {
                node.kill();
                node.forget();
                node.start().await;
            }
            _ => panic!("a server that others use is left alone"),
        }
    }
}

/// What an operator's tool does on servers of every age: the path of 3.x, and that of 1.x and 2.x
/// where the former is unknown (404) or was put away (410).
pub(crate) async fn open_api(
    addr: &str,
    method: &str,
    paths: [&str; 2],
    query: &str,
) -> std::io::Result<String> {
    let [newer, older] = paths.map(|path| format!("/nacos/{path}?{query}"));
    let answer = http(addr, method, &newer).await?;
    match answer.get(..12) {
        Some("HTTP/1.1 404" | "HTTP/1.1 410") => http(addr, method, &older).await,
        _ => Ok(answer),
    }
}

/// What an operator's tool logs in for.
async fn token(addr: &str, user: &str, password: &str) -> String {
    let paths = ["v3/auth/user/login", "v1/auth/login"];
    let query = format!("username={user}&password={password}");
    let answer = open_api(addr, "POST", paths, &query).await.unwrap();
    let token = answer.split_once("\"accessToken\":\"");
    let token = token.and_then(|(_, rest)| rest.split_once('"'));
    token
        .unwrap_or_else(|| panic!("a token in {answer}"))
        .0
        .to_owned()
}

/// One HTTP/1.1 exchange; the whole answer as text.
pub(crate) async fn http(addr: &str, method: &str, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(addr).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
