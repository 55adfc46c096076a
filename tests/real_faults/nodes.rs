//! rnacos processes that faults are done to: one alone, or three that form a cluster. Shared with
//! `benches/peers`.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use crate::server::http;

/// A server that has not started by then will not.
const START: Duration = Duration::from_secs(15);

/// One rnacos, with a directory and ports of its own.
pub(crate) struct Node {
    process: Option<Child>,
    program: PathBuf,
    data: PathBuf,
    port: u16,
    cluster: Vec<(&'static str, String)>,
}

impl Node {
    /// A server that knows no others.
    pub(crate) async fn alone(program: &Path) -> Self {
        for _ in 0..10 {
            let mut node = Self::new(program, free_port());
            if node.spawn().await {
                return node;
            }
        }
        panic!("rnacos does not start");
    }

    /// Three servers that share what they know.
    pub(crate) async fn three(program: &Path) -> Vec<Self> {
        let ports = [free_port(), free_port(), free_port()];
        let first = format!("127.0.0.1:{}", ports[0] + 1000);
        let mut nodes = Vec::new();
        for (id, port) in (1..).zip(ports) {
            let mut node = Self::new(program, port);
            node.cluster = vec![
                ("RNACOS_RAFT_NODE_ID", id.to_string()),
                (
                    "RNACOS_RAFT_NODE_ADDR",
                    format!("127.0.0.1:{}", port + 1000),
                ),
                ("RNACOS_RAFT_AUTO_INIT", (id == 1).to_string()),
            ];
            if id > 1 {
                node.cluster.push(("RNACOS_RAFT_JOIN_ADDR", first.clone()));
            }
            assert!(node.spawn().await, "node {id} starts");
            nodes.push(node);
            // One at a time: who comes while the membership changes is asked to wait for seconds.
            members(&nodes[0], id).await;
        }
        share(&nodes.iter().collect::<Vec<_>>()).await;
        nodes
    }

    fn new(program: &Path, port: u16) -> Self {
        let name = format!("tower-nacos-faults-{}-{port}", std::process::id());
        Self {
            process: None,
            program: program.to_owned(),
            data: env::temp_dir().join(name),
            port,
            cluster: Vec::new(),
        }
    }

    /// `host:port` of the main port.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where clients connect to.
    pub(crate) fn grpc(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + 1000).into()
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the process again, on the data that it left.
    pub(crate) async fn start(&mut self) {
        assert!(self.spawn().await, "rnacos starts again");
    }

    /// Removes the data of a server that is down.
    pub(crate) fn forget(&self) {
        assert!(self.process.is_none(), "it is down");
        let _ = fs::remove_dir_all(&self.data);
    }

    /// The process runs no more; its sockets stay as they are.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    /// The process runs on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        let pid = process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|s| s.success()), "kill {signal} {pid}");
    }

    /// Starts the process; `false` if it ended instead of answering.
    async fn spawn(&mut self) -> bool {
        let process = Command::new(&self.program)
            .env("RNACOS_SDK_HOST", "127.0.0.1")
            .env("RNACOS_HTTP_PORT", self.port.to_string())
            .env("RNACOS_HTTP_CONSOLE_PORT", "0")
            .env("RNACOS_DATA_DIR", &self.data)
            // Else the metadata first seen for an address outlives its registrations.
            .env(
                "RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE",
                "false",
            )
            .env("RUST_LOG", "warn")
            .envs(self.cluster.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rnacos can be run");
        let process = self.process.insert(process);
        let main = format!("127.0.0.1:{}", self.port);
        let grpc = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + 1000));
        let up = async {
            loop {
                let list = "/nacos/v1/ns/service/list?pageNo=1&pageSize=1";
                let answer = http(&main, "GET", list).await;
                let answers = answer.is_ok_and(|a| a.starts_with("HTTP/1.1 200"));
                if answers && TcpStream::connect(grpc).await.is_ok() {
                    return true;
                }
                if !matches!(process.try_wait(), Ok(None)) {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(2)).await; // between looks at a process
            }
        };
        timeout(START, up).await.unwrap_or(false)
    }
}

/// Waits until the cluster has so many members, and all agree.
async fn members(node: &Node, count: usize) {
    let agreed = async {
        loop {
            let metrics = http(&node.addr(), "GET", "/nacos/v1/raft/metrics").await;
            let metrics = metrics.unwrap_or_default();
            let members = metrics.split_once("\"members\":[").map(|(_, rest)| rest);
            let members = members.and_then(|rest| rest.split_once(']'));
            let agreed = metrics.contains("\"members_after_consensus\":null");
            if agreed && members.is_some_and(|(list, _)| list.split(',').count() == count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // the nodes' own pace
        }
    };
    timeout(START, agreed)
        .await
        .expect("the nodes form a cluster");
}

/// Waits until what is registered at any of these nodes is seen at all of them.
pub(crate) async fn share(nodes: &[&Node]) {
    let probe = "serviceName=cluster-probe";
    let shared = async {
        for (port, at) in (1..).zip(nodes) {
            let register =
                format!("/nacos/v1/ns/instance?{probe}&ip=127.0.0.1&port={port}&ephemeral=true");
            let read = format!("/nacos/v1/ns/instance/list?{probe}");
            for node in nodes {
                while !http(&node.addr(), "GET", &read)
                    .await
                    .is_ok_and(|list| list.contains(&format!("\"port\":{port},")))
                {
                    let _ = http(&at.addr(), "POST", &register).await;
                    tokio::time::sleep(Duration::from_millis(100)).await; // the nodes' own pace
                }
            }
        }
    };
    timeout(START, shared)
        .await
        .expect("the nodes share what they know");
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// A port that is free, with the one 1000 above it. Not one that the system gives to outgoing
/// connections: a client that dials a server which is down could meet itself there, and a server
/// that comes back could find its port taken.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + start.wrapping_mul(7).wrapping_add(step) % 18_000;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 1000) {
            return port;
        }
    }
}
