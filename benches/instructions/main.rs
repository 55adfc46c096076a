//! What an operation costs in instructions, which do not depend on who else uses the machine.
//!
//! `tools/instructions/check` runs each line here under valgrind and compares what it counts with
//! `benches/instructions.txt`. By itself this program does the operations and tells nothing:
//! `-- <line>` for one of them, `-- --list` for their names.
//!
//! Everything that is counted runs on one thread. Draws are seeded; the servers of requests are a process
//! of their own, registry and its client threads of their own, and none of these is counted.

#![expect(
    clippy::disallowed_methods,
    reason = "the server of the requests' bench spawns, and a push has a time"
)]

mod calls;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../../examples/greeter/greeter.rs"]
mod greeter;
mod pushes;
mod rebuilds;
mod requests;
#[expect(dead_code, reason = "the requests' bench kills its servers itself")]
#[path = "../requests/server.rs"]
mod server;

use std::{hint::black_box, process::ExitCode};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Does so many operations, one after the other.
type Operations = Box<dyn FnMut(u64)>;

/// One line of the table.
struct Line {
    name: String,
    /// How many operations it takes until everything is made and in its place.
    first: u64,
    /// How many are counted.
    counted: u64,
    make: Box<dyn FnOnce() -> Operations>,
}

impl Line {
    fn new(
        name: impl Into<String>,
        first: u64,
        counted: u64,
        make: impl FnOnce() -> Operations + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            first,
            counted,
            make: Box::new(make),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == server::AS_SERVER) {
        return server::run();
    }
    let mut lines = calls::lines();
    lines.extend(pushes::lines());
    lines.extend(rebuilds::lines());
    lines.extend(requests::lines());
    if args.iter().any(|arg| arg == "--list") {
        for line in lines {
            println!("{} {}", line.name, 2 * line.counted);
        }
        return ExitCode::SUCCESS;
    }
    let Some(name) = args.into_iter().find(|arg| !arg.starts_with("--")) else {
        println!("tools/instructions/check counts what these cost");
        return ExitCode::SUCCESS;
    };
    let Some(line) = lines.into_iter().find(|line| line.name == name) else {
        eprintln!("no line is called {name}; --list names them");
        return ExitCode::FAILURE;
    };
    // A core would be a thread for each, and hash maps' seeds are what is left to chance.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime of one thread can be had");
    let _entered = runtime.enter();
    let mut operations = (line.make)();
    operations(line.first);
    // What both have in common falls out of the difference.
    counted_by_callgrind(&mut operations, line.counted);
    counted_by_callgrind(&mut operations, 3 * line.counted);
    ExitCode::SUCCESS
}

/// Valgrind is told to count from here until it returns, and to say what it counted.
#[inline(never)]
fn counted_by_callgrind(operations: &mut Operations, count: u64) {
    operations(black_box(count));
}
