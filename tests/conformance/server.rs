//! The servers that the suite runs against: the embedded registry, and rnacos as a child process.

use std::{
    env,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Once,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_nacos::{
    client::{Builder, Client},
    model::Address,
    testing::Registry,
};

/// Nothing that works takes this long; a promise that does not hold shows as this time-out.
pub(crate) const HANG: Duration = Duration::from_secs(20);

pub(crate) enum Server {
    Embedded(Registry),
    Rnacos(Rnacos),
}

/// An rnacos of our own: a directory and ports that nobody else uses.
pub(crate) struct Rnacos {
    process: Option<Child>,
    program: PathBuf,
    data: PathBuf,
    port: u16,
    settings: &'static [(&'static str, &'static str)],
}

impl Server {
    /// The embedded registry, pushing at once.
    pub(crate) async fn embedded() -> Self {
        let registry = Registry::builder().push_delay(None).start().await;
        Self::Embedded(registry.expect("the embedded registry starts"))
    }

    /// rnacos, if it is installed.
    pub(crate) async fn rnacos() -> Option<Self> {
        Self::rnacos_with(&[]).await
    }

    /// The same with more settings, as variables of its environment.
    pub(crate) async fn rnacos_with(
        settings: &'static [(&'static str, &'static str)],
    ) -> Option<Self> {
        let rnacos = Rnacos::start(rnacos_program()?, settings);
        Some(Self::Rnacos(rnacos.await))
    }

    /// `host:port` of the main port.
    pub(crate) fn addr(&self) -> String {
        match self {
            Self::Embedded(registry) => registry.addr(),
            Self::Rnacos(rnacos) => format!("127.0.0.1:{}", rnacos.port),
        }
    }

    pub(crate) fn builder(&self) -> Builder {
        Client::builder().servers(self.addr())
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.expect("the server is up")
    }

    pub(crate) fn registry(&self) -> &Registry {
        match self {
            Self::Embedded(registry) => registry,
            Self::Rnacos(_) => panic!("this part of the suite scripts the embedded registry"),
        }
    }

    /// An operator's edit through the Open API, the same call on either server.
    pub(crate) async fn operate(&self, service: &str, instance: &Address, change: &str) {
        let (ip, port) = (instance.host(), instance.port());
        let path =
            format!("/nacos/v1/ns/instance?serviceName={service}&ip={ip}&port={port}&{change}");
        let answer = http(&self.addr(), "PUT", &path)
            .await
            .expect("the Open API answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Ends the server as `kill -9` does and starts it without what it knew.
    pub(crate) async fn restart_empty(&mut self) {
        match self {
            Self::Embedded(registry) => registry.restart().await.expect("it starts again"),
            Self::Rnacos(rnacos) => {
                rnacos.kill();
                let _ = std::fs::remove_dir_all(&rnacos.data);
                rnacos.spawn().await;
            }
        }
    }
}

impl Rnacos {
    async fn start(program: PathBuf, settings: &'static [(&'static str, &'static str)]) -> Self {
        // A port is free until somebody else takes it: try another pair if the server dies.
        for _ in 0..10 {
            let port = free_port();
            let data = env::temp_dir().join(format!("tower-nacos-{}-{port}", std::process::id()));
            let mut this = Self {
                process: None,
                program: program.clone(),
                data,
                port,
                settings,
            };
            if this.spawn().await {
                return this;
            }
        }
        panic!("rnacos does not start");
    }

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
            .envs(self.settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rnacos can be run");
        self.process = Some(process);
        let grpc = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + 1000));
        for _ in 0..400 {
            let main = format!("127.0.0.1:{}", self.port);
            let list = "/nacos/v1/ns/service/list?pageNo=1&pageSize=1";
            let up = http(&main, "GET", list)
                .await
                .is_ok_and(|a| a.starts_with("HTTP/1.1 200") || a.starts_with("HTTP/1.1 403"));
            if up && TcpStream::connect(grpc).await.is_ok() {
                return true;
            }
            if self
                .process
                .as_mut()
                .is_some_and(|p| !matches!(p.try_wait(), Ok(None)))
            {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(25)).await; // between looks at a process
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Rnacos {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// rnacos, if it is installed; one line says so if it is not. `RNACOS` names the program;
/// `RNACOS_REQUIRED` makes its absence a failure.
pub(crate) fn rnacos_program() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let program = find_rnacos();
    if program.is_none() {
        assert!(
            env::var_os("RNACOS_REQUIRED").is_none(),
            "RNACOS_REQUIRED, but no rnacos"
        );
        SAID.call_once(|| {
            // Past the harness, which keeps what a passing test prints to itself.
            let _ = writeln!(
                std::io::stderr(),
                "rnacos suite: SKIPPED, no rnacos in PATH; `cargo install --locked rnacos \
                 --version 0.8.8` and run the tests again (or set RNACOS=/path/to/rnacos)"
            );
        });
    }
    program
}

fn find_rnacos() -> Option<PathBuf> {
    if let Some(named) = env::var_os("RNACOS") {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("rnacos"))
        .find(|program| program.is_file())
}

/// A port that is free, and so is the one 1000 above it.
fn free_port() -> u16 {
    loop {
        let main = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = main.local_addr().unwrap().port();
        let fits = port < 64_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1000)).is_ok();
        if fits {
            return port;
        }
    }
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
