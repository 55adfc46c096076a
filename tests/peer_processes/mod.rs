//! Servers of other makes, as processes of a test's own: `tools/peers`.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    unreachable_pub,
    reason = "a module of test crates, which nobody reaches into"
)]

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// For how long a peer may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// A server that nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Go,
    Node,
    NodeHttp2,
    Uvicorn,
    Nginx,
    NginxHttp2,
    GrpcGo,
    GrpcPython,
    GrpcJava,
}

/// A running one, which ends when this is dropped.
pub struct PeerProcess {
    pub addresses: Vec<SocketAddr>,
    child: Child,
    /// A folder of its own, for those that need one.
    pub home: Option<PathBuf>,
}

impl Make {
    /// With so many instances, which close what lies idle after `keep_alive`, in seconds.
    ///
    /// `None` if this machine has no such peer; then one line says so, unless it is required.
    pub async fn start(self, instances: usize, keep_alive: u64) -> Option<PeerProcess> {
        let (needs, command, home) = self.command(instances, keep_alive);
        let started = match command {
            Some(command) => run(command).await,
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let (child, ports) = match started {
            Ok(started) => started,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let required = format!("{needs}_REQUIRED");
                assert!(
                    env::var_os(&required).is_none(),
                    "{required} is set, and there is no {self:?}"
                );
                println!("skipped: there is no {self:?} (see tools/peers)");
                return None;
            }
            Err(error) => panic!("{self:?} does not start: {error}"),
        };
        let addresses = ports.into_iter().map(|port| ([127, 0, 0, 1], port).into());
        Some(PeerProcess {
            addresses: addresses.collect(),
            child,
            home,
        })
    }

    /// What requires it, and how it is started if it is there.
    fn command(
        self,
        n: usize,
        keep_alive: u64,
    ) -> (&'static str, Option<Command>, Option<PathBuf>) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peers");
        let built = env::var_os("PEERS").map(PathBuf::from);
        let in_built = |path: &str| built.as_ref().map(|built| built.join(path));
        let n = n.to_string();
        let ms = (keep_alive * 1000).to_string();
        let mut home = None;
        let (needs, command) = match self {
            Self::Go => {
                let command = in_built("http-go").map(Command::new);
                (
                    "GO",
                    command.map(|mut go| {
                        go.args([&n, &ms]);
                        go
                    }),
                )
            }
            Self::Node | Self::NodeHttp2 => {
                let mut node = Command::new("node");
                node.arg(sources.join("node.mjs")).args([&n, &ms]);
                if self == Self::NodeHttp2 {
                    node.arg("h2c");
                }
                ("NODE", Some(node))
            }
            Self::Uvicorn => {
                let python = in_built("venv/bin/python").map(Command::new);
                let args = [n, keep_alive.to_string()];
                (
                    "PYTHON",
                    python.map(|mut python| {
                        python.arg(sources.join("asgi.py")).args(args);
                        python
                    }),
                )
            }
            Self::Nginx | Self::NginxHttp2 => {
                let at = new_home();
                let http2 = self == Self::NginxHttp2;
                let command = nginx(&at, n.parse().unwrap(), keep_alive, http2);
                home = Some(at);
                ("NGINX", Some(command))
            }
            Self::GrpcGo => ("GO", in_built("grpc-go").map(Command::new)),
            Self::GrpcPython => {
                let python = in_built("venv/bin/python").map(Command::new);
                (
                    "PYTHON",
                    python.map(|mut python| {
                        python.arg(sources.join("grpc.py"));
                        python
                    }),
                )
            }
            Self::GrpcJava => {
                let jars = in_built("grpc-java").filter(|jars| jars.join("Peer.class").exists());
                let command = jars.map(|jars| {
                    let mut java = Command::new("java");
                    let path = format!("{0}:{0}/*", jars.display());
                    java.args(["-XX:TieredStopAtLevel=1", "-cp", &path, "Peer"]);
                    java
                });
                ("JAVA", command)
            }
        };
        (needs, command, home)
    }
}

impl PeerProcess {
    /// Stops the process where it is; its sockets stay.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn kill(&self) {
        self.signal("-KILL");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let told = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(told.unwrap().success());
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // A master that is killed leaves its workers behind.
            let id = self.child.id().map(|id| id.to_string());
            let _ = std::process::Command::new("kill").args(id).status();
            let _ = fs::remove_dir_all(home);
        }
    }
}

/// Runs it until it says `listening PORT...`.
async fn run(mut command: Command) -> io::Result<(Child, Vec<u16>)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = timeout(START, lines.next_line()).await;
    let said = said.map_err(|_| io::Error::other("it says nothing"))??;
    let Some(said) = said else {
        let status = child.wait().await?;
        return Err(match status.code() {
            Some(127) => io::ErrorKind::NotFound.into(), // a shell's word for it
            _ => io::Error::other(format!("it ends at once: {status}")),
        });
    };
    let ports = said.strip_prefix("listening ");
    let ports = ports.ok_or_else(|| io::Error::other(format!("it says {said}")))?;
    let ports = ports.split(' ').map(|port| port.parse().unwrap()).collect();
    Ok((child, ports))
}

fn new_home() -> PathBuf {
    static HOMES: AtomicU32 = AtomicU32::new(0);
    let number = HOMES.fetch_add(1, Ordering::Relaxed);
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("peer-{}-{number}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    home
}

/// nginx says nothing when it listens: a shell waits for its pid file and says it.
fn nginx(home: &Path, instances: usize, keep_alive: u64, http2: bool) -> Command {
    let at = home.display();
    let free: Vec<_> = (0..instances)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports: Vec<_> = free
        .iter()
        .map(|port| port.local_addr().unwrap().port())
        .collect();
    drop(free);
    let http2 = if http2 { "http2" } else { "" };
    let listen: String = ports
        .iter()
        .map(|port| format!("listen 127.0.0.1:{port} {http2};\n"))
        .collect();
    let config = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log crit;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n\
           log_format ids '$http_x_id'; access_log {at}/ids ids;\n\
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
           fastcgi_temp_path {at}/fcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
           keepalive_timeout {keep_alive}s; keepalive_requests 1000000; reset_timedout_connection off;\n\
           server {{ {listen}\n\
             location /good {{ return 200 \"good\"; }}\n\
             location /close {{ return 444; }}\n\
             location /panic {{ return 500; }}\n\
           }}\n\
         }}\n"
    );
    fs::write(home.join("conf"), config).unwrap();
    let said = ports
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let script = format!(
        "command -v nginx >/dev/null || exit 127\n\
         (for _ in $(seq 1000); do [ -s {at}/pid ] && exec echo listening {said}; sleep 0.02; done) &\n\
         exec nginx -p {at} -e {at}/error.log -c {at}/conf"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command
}
