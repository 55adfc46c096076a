//! One round: so many callers, each with one call at a time, for so long.

use std::{
    fs,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::Error;

/// Makes a caller; a caller's turn makes one call.
pub(crate) type Call = Arc<dyn Fn() -> Caller + Send + Sync>;
pub(crate) type Caller = Box<dyn FnMut() -> Turn + Send>;
pub(crate) type Turn = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

pub(crate) struct Round {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) first_error: Option<String>,
    took: Duration,
    /// Of this process, all threads.
    cpu: Duration,
    /// ns, sorted.
    latencies: Vec<u64>,
}

struct Counted {
    failed: u64,
    first_error: Option<String>,
    latencies: Vec<u64>,
}

pub(crate) fn round(runtime: &Runtime, callers: usize, each: Duration, call: &Call) -> Round {
    let cpu = cpu_time();
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| runtime.spawn(call_until(start + each, call())))
        .collect();
    let mut round = Round {
        calls: 0,
        failed: 0,
        first_error: None,
        took: Duration::ZERO,
        cpu: Duration::ZERO,
        latencies: Vec::new(),
    };
    runtime.block_on(async {
        for task in tasks {
            let counted = task.await.expect("a caller does not panic");
            round.calls += counted.latencies.len() as u64;
            round.failed += counted.failed;
            round.first_error = round.first_error.take().or(counted.first_error);
            round.latencies.extend(counted.latencies);
        }
    });
    round.took = start.elapsed();
    round.cpu = cpu_time().saturating_sub(cpu);
    round.latencies.sort_unstable();
    round
}

async fn call_until(end: Instant, mut call: Caller) -> Counted {
    let mut counted = Counted {
        failed: 0,
        first_error: None,
        latencies: Vec::new(),
    };
    let mut before = Instant::now();
    while before < end {
        let result = call().await;
        let now = Instant::now();
        match result {
            Ok(()) => counted.latencies.push((now - before).as_nanos() as u64),
            Err(error) => {
                counted.failed += 1;
                counted.first_error.get_or_insert_with(|| chain(&*error));
                tokio::task::yield_now().await;
            }
        }
        before = now;
    }
    counted
}

impl Round {
    /// Per call.
    pub(crate) fn ns(&self) -> f64 {
        self.took.as_nanos() as f64 / self.calls.max(1) as f64
    }

    pub(crate) fn p99_us(&self) -> f64 {
        let at = self.latencies.len() * 99 / 100;
        self.latencies
            .get(at)
            .map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    }

    /// Per call.
    pub(crate) fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.calls.max(1) as f64
    }
}

/// What all threads of this process ran, to the nanosecond; nothing where there is no Linux.
fn cpu_time() -> Duration {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    let ran = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(ran).sum())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
