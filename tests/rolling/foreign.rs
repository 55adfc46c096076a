//! Callers of other makes: official SDKs choose an instance for a plain HTTP client that repeats
//! nothing. `INTEROP` names the folder that `tools/rolling/build` has prepared; without it they are
//! skipped.
//!
//! Each is a process: `PROGRAM host:port service`, which calls until its standard input ends, tells
//! failures on its standard error, and ends with a line `calls=N failed=M`.

use std::{env, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{server::Server, within};

pub(crate) struct Foreign(Vec<Caller>);

struct Caller {
    name: &'static str,
    process: Child,
    input: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
}

/// What they counted.
pub(crate) struct Said(Vec<(&'static str, u64, u64)>);

impl Foreign {
    pub(crate) async fn start(server: &Server, service: &str) -> Self {
        let Some(folder) = env::var_os("INTEROP").map(PathBuf::from) else {
            println!("rolling: other SDKs are skipped: INTEROP names no folder");
            return Self(Vec::new());
        };
        let python = folder.join("python/bin/python");
        let java = folder.join("java");
        let mut commands = Vec::new();
        for (name, program) in [("go", "go/rolling"), ("rust", "rust/rolling")] {
            let program = folder.join(program);
            if program.exists() {
                commands.push((name, Command::new(program)));
            }
        }
        if python.exists() {
            let mut command = Command::new(python);
            command.arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tools/rolling/rolling.py"
            ));
            commands.push(("python", command));
        }
        if let Ok(class_path) = std::fs::read_to_string(java.join("classpath")) {
            let mut command = Command::new("java");
            let class_path = format!("{}:{}", java.display(), class_path.trim());
            let folder = format!("-Duser.home={}", java.display());
            command.args([&*folder, "-cp", &*class_path, "Rolling"]);
            commands.push(("java", command));
        }
        assert!(!commands.is_empty(), "nothing is prepared in {folder:?}");
        for name in ["go", "java", "python", "rust"] {
            if commands.iter().all(|(prepared, _)| *prepared != name) {
                println!("rolling: the SDK in {name} is skipped: it is not prepared in INTEROP");
            }
        }
        let mut callers = Vec::new();
        for (name, mut command) in commands {
            let mut process = command
                .args([&*server.addr(), service])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            callers.push(Caller {
                name,
                input: process.stdin.take(),
                said: BufReader::new(process.stdout.take().unwrap()).lines(),
                process,
            });
        }
        Self(callers)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|caller| caller.name)
    }

    /// Lets the calls that are under way end.
    pub(crate) async fn stop(self) -> Said {
        let mut counted = Vec::new();
        for mut caller in self.0 {
            let name = caller.name;
            drop(caller.input.take());
            let last = async {
                let mut last = String::new();
                while let Ok(Some(line)) = caller.said.next_line().await {
                    last = line;
                }
                last
            };
            let last = within(&format!("{name} ends"), last).await;
            let numbers: Vec<u64> = last
                .split(['=', ' '])
                .filter_map(|word| word.parse().ok())
                .collect();
            let [calls, failed] = *numbers else {
                panic!("{name} says {last:?} in place of what it counted");
            };
            counted.push((name, calls, failed));
            let _ = caller.process.kill().await;
        }
        Said(counted)
    }
}

impl Said {
    pub(crate) fn check(&self) {
        for (name, calls, failed) in &self.0 {
            assert_eq!(*failed, 0, "of {calls} calls of {name}");
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, calls, failed) in &self.0 {
            write!(f, " {name}={calls} {name}_failed={failed}")?;
        }
        Ok(())
    }
}
