//! One server process that nobody here wrote, with a directory and ports of its own: rnacos, or
//! genuine Nacos. Shared with the other suites and `benches/peers`.

use std::{
    env, fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::http;

/// How many genuine servers run at once: each takes half a gigabyte and, while it starts, a core.
static ROOM: Semaphore = Semaphore::const_new(3);

/// User and password of whom a genuine server with logins knows.
pub(crate) const USER: &str = "nacos";

/// What is started.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// With these as variables of its environment.
    Rnacos {
        path: PathBuf,
        settings: &'static [(&'static str, &'static str)],
    },
    /// Alibaba's server, see `tools/nacos`.
    Nacos { version: &'static str, auth: bool },
}

/// A server that runs, or is down for the moment; its end takes the process along.
pub(crate) struct Node {
    process: Option<Child>,
    program: Program,
    data: PathBuf,
    port: u16,
    /// What makes it a member of a cluster.
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) members: String,
    /// Whether its data know the one user.
    has_user: bool,
    _room: Option<SemaphorePermit<'static>>,
}

impl Program {
    /// rnacos, if it is installed; one line says so if it is not. `RNACOS` names the program;
    /// `RNACOS_REQUIRED` makes its absence a failure.
    pub(crate) fn rnacos() -> Option<Self> {
        static SAID: Once = Once::new();
        let Some(path) = find_rnacos() else {
            let how = "rnacos suite: SKIPPED, no rnacos in PATH; `cargo install --locked rnacos \
                       --version 0.8.8` and run the tests again (or set RNACOS=/path/to/rnacos)";
            absent("RNACOS_REQUIRED", how, &SAID);
            return None;
        };
        let settings = &[];
        Some(Self::Rnacos { path, settings })
    }

    /// Genuine Nacos of this version without logins, if it was prepared; one line says so if it was
    /// not. `NACOS_REQUIRED` makes its absence a failure.
    pub(crate) fn nacos(version: &'static str) -> Option<Self> {
        static SAID: Once = Once::new();
        // The last thing that `prepare` writes.
        if !cache().join(format!("nacos-{version}/sources")).is_file() {
            let how = "genuine Nacos suite: SKIPPED, no server is prepared; `tools/nacos/prepare` \
                       (Java 17, Maven) and run the tests again";
            absent("NACOS_REQUIRED", how, &SAID);
            return None;
        }
        let auth = false;
        Some(Self::Nacos { version, auth })
    }

    /// The same, and logins are wanted.
    pub(crate) fn with_auth(self) -> Self {
        match self {
            Self::Nacos { version, .. } => Self::Nacos {
                version,
                auth: true,
            },
            Self::Rnacos { path, .. } => Self::Rnacos {
                path,
                settings: &[
                    ("RNACOS_ENABLE_OPEN_API_AUTH", "true"),
                    ("RNACOS_INIT_ADMIN_USERNAME", USER),
                    ("RNACOS_INIT_ADMIN_PASSWORD", USER),
                ],
            },
        }
    }

    pub(crate) fn wants_a_login(&self) -> bool {
        match self {
            Self::Rnacos { settings, .. } => !settings.is_empty(),
            Self::Nacos { auth, .. } => *auth,
        }
    }

    /// Longer than a start takes on a busy machine.
    pub(crate) const fn start(&self) -> Duration {
        match self {
            Self::Rnacos { .. } => Duration::from_secs(15),
            Self::Nacos { .. } => Duration::from_secs(240),
        }
    }

    /// Which ports beside the main one must be free, as distances from it.
    const fn ports(&self) -> &'static [i32] {
        match self {
            Self::Rnacos { .. } => &[1000],
            Self::Nacos { .. } => &[1000, 1001, -1000],
        }
    }
}

impl Node {
    /// A server that knows no others.
    pub(crate) async fn alone(program: &Program) -> Self {
        let room = Self::room(program, 1).await;
        let mut node = Self::new(program, free_port(program), room);
        let mut said = String::new();
        // A port is free until somebody else takes it: then another.
        for _ in 0..10 {
            if node.spawn().await {
                return node;
            }
            // What a start that was broken off leaves behind no start can use.
            said = node.said();
            node.kill();
            node.forget();
            node.port = free_port(program);
        }
        panic!("{program:?} does not start: {said}");
    }

    /// Room for so many genuine servers, when it is there.
    pub(crate) async fn room(program: &Program, count: u32) -> Option<SemaphorePermit<'static>> {
        match program {
            Program::Rnacos { .. } => None,
            Program::Nacos { .. } => ROOM.acquire_many(count).await.ok(),
        }
    }

    /// One that was not started yet.
    pub(crate) fn new(
        program: &Program,
        port: u16,
        room: Option<SemaphorePermit<'static>>,
    ) -> Self {
        let name = format!("tower-nacos-{}-{port}", std::process::id());
        Self {
            process: None,
            program: program.clone(),
            data: env::temp_dir().join(name),
            port,
            variables: Vec::new(),
            members: String::new(),
            has_user: false,
            _room: room,
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
        assert!(self.spawn().await, "it starts again: {}", self.said());
    }

    /// Removes the data of a server that is down.
    pub(crate) fn forget(&mut self) {
        self.has_user = false;
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

    /// The end of what the process wrote, for who has to find out why it ended.
    pub(crate) fn said(&self) -> String {
        let said = fs::read_to_string(self.data.join("out")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn command(&self) -> Command {
        match &self.program {
            Program::Rnacos { path, settings } => {
                let mut command = Command::new(path);
                command
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
                    .envs(settings.iter().copied())
                    .envs(self.variables.iter().map(|(name, value)| (name, value)))
                    .stdin(Stdio::null());
                command
            }
            Program::Nacos { version, auth } => {
                let mut command = Command::new(tools().join("start"));
                command
                    .arg(version)
                    .arg(&self.data)
                    .arg(self.port.to_string())
                    // It goes when this process does, however that ends.
                    .env("NACOS_UNTIL_EOF", "1")
                    .stdin(Stdio::piped());
                if *auth {
                    command.arg("auth");
                }
                if !self.members.is_empty() {
                    command.arg(format!("cluster={}", self.members));
                }
                command
            }
        }
    }

    /// Starts the process and waits until it serves; `false` if it ended instead.
    pub(crate) async fn spawn(&mut self) -> bool {
        self.spawn_without_waiting();
        let limit = self.program.start();
        timeout(limit, self.serves()).await.unwrap_or(false)
    }

    /// Starts the process: members of a cluster that has no leader yet wait for each other.
    pub(crate) fn spawn_without_waiting(&mut self) {
        let process = self
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be run");
        self.process = Some(process);
    }

    /// Waits until it answers on both ports; `false` if the process ended instead.
    pub(crate) async fn serves(&mut self) -> bool {
        let list = "/nacos/v1/ns/service/list?pageNo=1&pageSize=1";
        let (path, between) = match self.program {
            Program::Rnacos { .. } => (list, 2),
            Program::Nacos { version, .. } if version.starts_with('2') => (list, 20),
            Program::Nacos { .. } => ("/nacos/v3/admin/core/state/readiness", 20),
        };
        loop {
            let answers = http(&self.addr(), "GET", path)
                .await
                .is_ok_and(|a| a.starts_with("HTTP/1.1 200") || a.starts_with("HTTP/1.1 403"));
            if answers
                && TcpStream::connect(self.grpc()).await.is_ok()
                && self.knows_its_user().await
            {
                return true;
            }
            let process = self.process.as_mut().expect("it was started");
            if !matches!(process.try_wait(), Ok(None)) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(between)).await; // between looks at a process
        }
    }

    /// Makes the one user of a genuine server with logins, whose data then have it.
    async fn knows_its_user(&mut self) -> bool {
        if self.has_user || !matches!(self.program, Program::Nacos { auth: true, .. }) {
            return true;
        }
        let make = format!("/nacos/v3/auth/user/admin?password={USER}");
        let made = http(&self.addr(), "POST", &make).await;
        self.has_user =
            made.is_ok_and(|a| a.starts_with("HTTP/1.1 200") || a.starts_with("HTTP/1.1 409"));
        self.has_user
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.data);
    }
}

fn absent(required: &str, how: &str, said: &'static Once) {
    assert!(env::var_os(required).is_none(), "{required}, but {how}");
    // Past the harness, which keeps what a passing test prints to itself.
    said.call_once(|| drop(writeln!(std::io::stderr(), "{how}")));
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

/// Where `tools/nacos/prepare` puts what it made ready.
pub(crate) fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    let base = env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    base.join("tower-nacos-ci")
}

/// `tools/nacos`, seen from this crate or from one below it.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("tools/nacos"))
        .find(|dir| dir.join("start").is_file())
        .expect("the checkout is whole")
}

/// A port that is free, with those that belong to it. Not one that the system gives to outgoing
/// connections: a client that dials a server which is down could meet itself there, and a server
/// that comes back could find its port taken.
pub(crate) fn free_port(program: &Program) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    let free = |port: i32| {
        u16::try_from(port)
            .is_ok_and(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
    };
    loop {
        // Steps of two: a genuine server takes two ports side by side.
        let step = NEXT.fetch_add(2, Ordering::Relaxed);
        let port = 12_000 + start.wrapping_mul(7).wrapping_add(step) % 18_000;
        let beside = program.ports().iter();
        if free(port.into()) && beside.map(|beside| i32::from(port) + beside).all(free) {
            return port;
        }
    }
}
