//! A deterministic simulation: clients (the session's machine and their local copies) and scripted
//! registries in virtual time, on a network that delays, breaks, partitions and lies.
//!
//! After every step it is checked what must always hold, and in the end, when nothing goes wrong
//! any more, that everything is as it should be. A seed decides everything:
//!
//! ```text
//! cargo test --test simulation                                     # 500 seeds
//! SIM_SEED=7 cargo test --test simulation -- --nocapture           # one, with its story
//! SIM_SEEDS=100000 cargo test --release --test simulation          # many
//! ```
//!
//! What is going to happen is drawn before it begins. Of a life that fails so much is left out as can
//! be while it still does; the rest is printed, and replayed with `SIM_STEPS=3,17,22` beside the seed.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/delivery.rs"]
mod delivery;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/gates.rs"]
mod gates;
#[path = "simulation/lists.rs"]
mod lists;
#[path = "simulation/meddling.rs"]
mod meddling;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/providers.rs"]
mod providers;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/settled.rs"]
mod settled;
#[path = "simulation/shrink.rs"]
mod shrink;
#[path = "simulation/tokens.rs"]
mod tokens;
#[path = "simulation/truth.rs"]
mod truth;
#[path = "simulation/users.rs"]
mod users;
#[path = "simulation/world.rs"]
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{plan::Plan, shrink::shrink, world::World};

const SEEDS: u64 = 500;

/// How often a failing life is lived again to find out what it needs.
const TRIES: u32 = 400;
/// Of so many of them, since each takes a while.
const SHRUNK: usize = 3;

/// Runs one seed: its steps and what went wrong, with the story if that is asked for.
fn run(seed: u64, plan: &Plan, trace: bool) -> (Result<u64, String>, Vec<String>) {
    let mut world = World::new(seed, plan, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    let at = (world.now - world.start).as_secs_f64();
    let result = match result {
        Ok(()) => Ok(world.steps),
        Err(error) => Err(format!("at {at:.3} s: {error}")),
    };
    (result, world.take_trace())
}

/// What a failing life needs to fail, and how it is lived again.
fn tell(seed: u64, error: &str, is_shrunk: bool) -> String {
    let plan = Plan::draw(seed);
    let command = "cargo test --test simulation whatever -- --nocapture";
    if !is_shrunk {
        return format!("seed {seed}, {error}\n    SIM_SEED={seed} {command}");
    }
    let kept = shrink(plan.steps.len(), TRIES, |kept| {
        run(seed, &plan.only(kept), false).0.is_err()
    });
    let rest = plan.only(&kept);
    let error = run(seed, &rest, false).0.err().unwrap_or_default();
    let numbers: Vec<String> = kept.iter().map(usize::to_string).collect();
    let steps = rest.steps.iter();
    let steps =
        steps.map(|step| format!("\n    at {:.3} s: {:?}", step.at.as_secs_f64(), step.what));
    format!(
        "seed {seed}, of {} steps {} are enough, {error}{}\n    SIM_SEED={seed} SIM_STEPS={} {command}",
        plan.steps.len(),
        kept.len(),
        steps.collect::<String>(),
        numbers.join(",")
    )
}

#[test]
fn whatever_happens_the_rules_hold_and_in_the_end_all_is_well() {
    if let Some(seed) = number("SIM_SEED") {
        let mut plan = Plan::draw(seed);
        if let Ok(steps) = env::var("SIM_STEPS") {
            let numbers = steps.split(',').filter(|n| !n.is_empty());
            let numbers: Vec<usize> = numbers.map(|n| n.parse().expect("a number")).collect();
            plan = plan.only(&numbers);
        }
        let (result, story) = run(seed, &plan, true);
        println!("{}", story.join("\n"));
        return match result {
            Ok(steps) => println!("seed {seed}, {steps} steps"),
            Err(error) if env::var("SIM_STEPS").is_ok() => panic!("seed {seed}, {error}"),
            Err(error) => panic!("{}", tell(seed, &error, true)),
        };
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let (next, stop, steps) = (
        AtomicU64::new(first),
        AtomicBool::new(false),
        AtomicU64::new(0),
    );
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match run(seed, &Plan::draw(seed), false).0 {
                        Ok(n) => {
                            steps.fetch_add(n, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let mut failures = failures.lock().unwrap();
                            failures.push((seed, error));
                            stop.store(failures.len() >= 20, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    println!("{seeds} seeds, {} steps", steps.into_inner());
    let failed: Vec<String> = failures
        .iter()
        .enumerate()
        .map(|(n, (seed, error))| tell(*seed, error, n < SHRUNK))
        .collect();
    assert!(failed.is_empty(), "\n{}\n", failed.join("\n"));
}

#[test]
fn a_hold_ends_only_after_a_read_when_every_push_of_a_restarted_registry_is_lost() {
    scenes::restart_without_pushes().unwrap();
}

#[test]
fn nobody_is_evicted_by_a_restart_though_it_alone_is_missing_from_the_first_answer() {
    scenes::restart_with_one_late().unwrap();
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..10 {
        let plan = Plan::draw(seed);
        assert_eq!(run(seed, &plan, true), run(seed, &plan, true));
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}
