//! Alibaba's own client, a process beside this one: `tools/nacos/client`.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    Error,
    observer::Observer,
    option,
    server::node::{USER, cache},
};

/// A provider and consumer of one service. Its end takes the process along.
pub(crate) struct Java {
    process: Child,
    pub(crate) seen: Observer,
}

impl Java {
    /// Registers 127.0.0.1:`port`, and subscribes.
    pub(crate) async fn start(server: &str, service: &str, port: u16) -> Result<Self, Error> {
        let made = cache().join("nacos-client");
        let class_path = fs::read_to_string(made.join("classpath"))
            .map_err(|_| "`tools/nacos/prepare client` was not run")?;
        let home = env::temp_dir().join(format!("peers-java-{}", std::process::id()));
        fs::create_dir_all(&home)?;
        let mut command = Command::new("java");
        command
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg(format!("-Duser.home={}", home.display()))
            .arg(format!("-DJM.LOG.PATH={}", home.display()))
            .arg("-cp")
            .arg(format!("{}:{class_path}", made.join("classes").display()))
            .args(["Launch", server, service, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if option("--auth", 0)? != 0 {
            command.args([USER, USER]);
        }
        let mut process = command.spawn()?;
        let seen = Observer::new();
        let output = process.stdout.take().expect("it is piped");
        let observer = seen.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(ports) = line.strip_prefix("set") {
                    let ports = ports.split_whitespace();
                    observer.see(ports.filter_map(|port| port.parse().ok()).collect());
                }
            }
        });
        Ok(Self { process, seen })
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let home = env::temp_dir().join(format!("peers-java-{}", std::process::id()));
        let _ = fs::remove_dir_all(home);
    }
}
