//! What the next pick costs after a push that changed one of 10,000: roster and table are made anew.
//!
//! The push itself is a thread's of its own, and not counted.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use tower_nacos::{
    Balance, Instance, ServiceKey,
    balance::{Hints, Maglev, P2c, PeakEwma, Policy, Random, WeightedRandom, WeightedRoundRobin},
    push_path::PushPath,
};

use crate::{
    Line, Operations,
    pushes::{Idle, json},
};

pub(crate) fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for change in [Change::Weight, Change::Removed, Change::RemovedOfEqual] {
        lines.push(line("p2c", change, P2c::new));
        lines.push(line("random", change, WeightedRandom::new));
        lines.push(line("round_robin", change, WeightedRoundRobin::new));
        lines.push(line("peak_ewma", change, PeakEwma::new));
        lines.push(line("maglev", change, Maglev::new));
    }
    lines
}

/// What each second push takes back.
#[derive(Clone, Copy)]
enum Change {
    /// One has another weight, of weights from 1 to 3.
    Weight,
    /// One is gone.
    Removed,
    /// One is gone, and all weights are equal.
    RemovedOfEqual,
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Removed => "removed",
            Self::RemovedOfEqual => "removed_of_equal",
        }
    }

    /// As which one is listed.
    fn weight(self, at: usize, changed: bool) -> Option<f64> {
        match (self, changed && at == N / 2) {
            (Self::Weight, true) => Some(7.0),
            (Self::Removed | Self::RemovedOfEqual, true) => None,
            (Self::RemovedOfEqual, false) => Some(1.0),
            (_, false) => Some((at % 3 + 1) as f64),
        }
    }
}

fn line<P: Policy>(what: &str, change: Change, policy: impl FnOnce() -> P + 'static) -> Line {
    let name = format!("rebuild_{what}_{N}_{}", change.name());
    Line::new(name, 4, 4, move || rebuilding(change, policy()))
}

fn rebuilding<P: Policy>(change: Change, policy: P) -> Operations {
    Random::seed_thread(16);
    let key = ServiceKey::new("public", "bench".parse().unwrap()).unwrap();
    let path = PushPath::new(key, Instant::now());
    // Its own task does not run, since nobody waits: the next pick takes the set over.
    let balance = Balance::builder(path.subscription())
        .policy(policy)
        .build(|_: &Instance| Idle);
    let (turn, turns) = sync_channel(0);
    let (done, pushed) = sync_channel(0);
    thread::spawn(move || push(path, change, &turns, &done));
    Box::new(move |count| {
        for _ in 0..count {
            turn.send(()).unwrap();
            pushed.recv().unwrap();
            assert!(balance.pass(&Hints::new().hash_key(7)));
        }
    })
}

fn push(mut path: PushPath, change: Change, turns: &Receiver<()>, done: &SyncSender<()>) {
    let listed = [false, true].map(|changed| json(N, 0, |at| change.weight(at, changed)));
    let frames = listed.map(PushPath::frame);
    for at in 0.. {
        if turns.recv().is_err() {
            return;
        }
        path.push(frames[at % 2].clone());
        if done.send(()).is_err() {
            return;
        }
    }
}

const N: usize = 10_000;
