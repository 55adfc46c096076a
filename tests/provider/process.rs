//! A provider that is a process of its own, and real signals.

use std::{future::IntoFuture, process::Stdio, time::Duration};

use axum::routing::get;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};
use tower_nacos::{
    Client, Instance,
    provider::{self, Provider, Stage},
    testing::Registry,
};

use crate::support::{HANG, Wire, call, within};

/// Names the registry to the process that is the provider.
const REGISTRY: &str = "PROVIDER_OF_REGISTRY";

/// What the process runs: this test, which is none when nobody names a registry.
#[tokio::test]
async fn a_process() {
    let Ok(registry) = std::env::var(REGISTRY) else {
        return;
    };
    let nacos = Client::connect(&*registry).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hour = Duration::from_secs(3_600);
    let provider = Provider::builder(&nacos, "orders")
        .instance(Instance::new(address.into()))
        .push_delay(hour)
        .max_linger(hour)
        .build();
    let app = axum::Router::new().route("/", get(async || "here"));
    let app = app.layer(provider.layer());
    let offline = provider.offline_on(provider::signal());
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = admin.local_addr().unwrap();
    let hooks = axum::Router::new().fallback_service(provider.hooks());
    tokio::spawn(async move { axum::serve(admin, hooks).await });
    tokio::spawn(async {
        provider::signal().await;
        println!("\nsignalled");
    });
    let telling = async {
        provider.reached(Stage::Online).await;
        println!("\nhooks {at}");
        println!("\nonline {address}");
        provider.reached(Stage::Lingering).await;
        println!("\nlingering");
    };
    let serving = async {
        axum::serve(listener, app)
            .with_graceful_shutdown(offline)
            .await
    };
    let (served, ()) = tokio::join!(serving, telling);
    served.unwrap();
    println!("\nover {}", provider.report());
}

struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(registry: &Registry) -> Self {
        Self::of("process::a_process", REGISTRY, &registry.addr())
    }

    /// This test program with that one test, which looks at the variable.
    fn of(test: &str, variable: &str, value: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, value)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// What it says after this word.
    async fn says(&mut self, word: &str) -> String {
        self.says_in(word, HANG).await
    }

    async fn says_in(&mut self, word: &str, limit: Duration) -> String {
        let wanted = async {
            loop {
                let line = self.said.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it ended before it said {word}"));
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
        };
        let said = tokio::time::timeout(limit, wanted).await;
        said.unwrap_or_else(|_| panic!("it does not say {word} for {limit:?}"))
    }

    async fn kill(&self, signal: &str) {
        let pid = self.child.id().unwrap();
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status()
            .await;
        assert!(killed.unwrap().success());
    }
}

#[tokio::test]
async fn a_signal_makes_it_linger_and_a_second_one_ends_that() {
    let registry = Registry::start().await.unwrap();
    for second in ["TERM", "INT"] {
        let mut process = Process::start(&registry);
        let address = process.says("online").await.parse().unwrap();
        assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
        process.kill("TERM").await;
        process.says("lingering").await;
        assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
        // Callers have an hour; it serves and says so.
        let (status, headers, _) = call(address, "/", &[]).await;
        assert!(status == 200 && headers.contains_key("x-nacos-offline"));
        process.kill(second).await;
        let report = process.says("over").await;
        assert!(report.contains("hastened by a second signal"), "{report}");
        let status = within("its end", process.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        assert!(Wire::dial(address).await.is_err());
    }
}

/// Kubernetes asks the hook (`preStop`), and sends SIGTERM when that has answered, or at the end of its
/// patience: the one is no hint to hurry that the other would repeat.
#[tokio::test]
async fn a_signal_after_a_hook_is_the_first_one() {
    let registry = Registry::start().await.unwrap();
    let mut process = Process::start(&registry);
    let hooks: std::net::SocketAddr = process.says("hooks").await.parse().unwrap();
    let address = process.says("online").await.parse().unwrap();
    let hook = tokio::spawn(async move {
        let mut socket = tokio::net::TcpStream::connect(hooks).await.unwrap();
        let request = b"POST /offline HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let _ = socket.read_u8().await; // an hour from now, or when it ends
    });
    process.says("lingering").await;
    process.kill("TERM").await;
    process.says("signalled").await;
    for _ in 0..20 {
        let (status, headers, _) = call(address, "/", &[]).await;
        assert!(status == 200 && headers.contains_key("x-nacos-offline"));
    }
    process.kill("TERM").await;
    let report = process.says("over").await;
    assert!(report.contains("hastened by a second signal"), "{report}");
    let status = within("its end", process.child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    within("it answers or ends", hook).await.unwrap();
}

/// Names the server, and how many are wanted, to the process that has the callers.
const IDLE: &str = "IDLE_CALLERS_OF";

/// What the process runs: callers that keep their connections and call once.
#[tokio::test]
async fn idle_callers() {
    let Ok(told) = std::env::var(IDLE) else {
        return;
    };
    let (address, many) = told.split_once(' ').unwrap();
    let mut callers = Vec::new();
    for _ in 0..many.parse().unwrap() {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"here") {
            assert_ne!(socket.read_buf(&mut heard).await.unwrap(), 0);
        }
        callers.push(socket);
    }
    println!("\nready");
    let mut closed = 0;
    for mut socket in callers {
        assert_eq!(socket.read(&mut [0; 64]).await.unwrap(), 0);
        closed += 1;
    }
    println!("\nclosed {closed}");
}

/// Callers in a process of their own, since both ends together are more than a process may open.
#[tokio::test]
async fn ten_thousand_idle_connections_hold_up_nothing() {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (signal, told) = tokio::sync::oneshot::channel::<()>();
    let serving = provider::serve(&nacos, "orders", listener, crate::support::app().0)
        .configure(|b| {
            b.push_delay(Duration::ZERO)
                .drain_timeout(Duration::from_secs(3_600))
        })
        .with_graceful_offline(async { drop(told.await) });
    let serving = tokio::spawn(serving.into_future());
    registry
        .wait_until(|view| view.addresses("orders").len() == 1)
        .await;
    let many = match soft_limit() {
        Some(limit) if limit < 11_000 => limit.saturating_sub(1_000),
        _ => 10_000,
    };
    println!("{many} idle connections");
    let told = format!("{address} {many}");
    let mut callers = Process::of("process::idle_callers", IDLE, &told);
    // They take their time to come, and an end that waits for one of them would take an hour.
    let limit = Duration::from_secs(300);
    callers.says_in("ready", limit).await;
    signal.send(()).unwrap();
    let report = tokio::time::timeout(limit, serving).await.unwrap();
    let report = report.unwrap().unwrap();
    let offline = report.offline.as_ref().unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (0, 0), "{report}");
    assert_eq!(callers.says_in("closed", limit).await, many.to_string());
}

/// How many files a process may open; `None` for any number, or if that cannot be told.
fn soft_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[tokio::test]
async fn one_that_is_killed_leaves_with_its_connection() {
    let registry = Registry::start().await.unwrap();
    let mut process = Process::start(&registry);
    process.says("online").await;
    process.kill("KILL").await;
    let gone = registry.wait_until(|view| view.addresses("orders").is_empty());
    within("the registry sees it", gone).await;
    // Killed in its linger nothing is left to be found out.
    let mut process = Process::start(&registry);
    process.says("online").await;
    process.kill("TERM").await;
    process.says("lingering").await;
    process.kill("KILL").await;
    within("its end", process.child.wait()).await.unwrap();
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
}
