//! Models of the gate. Run with `cargo test --release`.

use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, Notify},
    thread,
};
use tower_nacos_loom::{
    gate::Gate,
    sync::atomic::{Site, weaken},
};

/// One endpoint, what is published, and what `Service::call` reads.
struct World {
    gate: Gate,
    /// Whether the newest snapshot lists it; `Published` with a mutex in the place of arc-swap.
    published: Mutex<bool>,
    /// Read by `Service::call`; written while the gate is closed and quiet.
    cell: UnsafeCell<u32>,
    /// Rung by whoever leaves a closed gate quiet.
    bell: Notify,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(true),
            published: Mutex::new(true),
            cell: UnsafeCell::new(0),
            bell: Notify::new(),
        })
    }

    fn admit(&self) -> bool {
        match self.gate.admit() {
            Ok(()) => true,
            Err(quieted) => {
                if quieted {
                    self.bell.notify();
                }
                false
            }
        }
    }

    fn leave(&self) {
        if self.gate.leave() {
            self.bell.notify();
        }
    }

    /// A caller: look at the snapshot, admit, `Service::call`. What the call read, if it came in.
    fn call(&self) -> Option<u32> {
        if !*self.published.lock().unwrap() {
            return None;
        }
        if !self.admit() {
            return None;
        }
        let read = self.read();
        self.leave();
        self.gate.finish();
        Some(read)
    }

    /// `Service::call` itself.
    fn read(&self) -> u32 {
        self.cell.with(|cell| unsafe { *cell })
    }

    fn publish(&self, listed: bool) {
        *self.published.lock().unwrap() = listed;
    }

    /// Waits until the gate, which is closed, is quiet. Woken, never spinning: a wake-up that got
    /// lost shows as a deadlock.
    fn wait_until_quiet(&self) {
        while !self.gate.is_quiet() {
            self.bell.wait();
        }
    }

    /// What a writer does after it reported the eviction as applied.
    fn write(&self, value: u32) {
        self.cell.with_mut(|cell| unsafe { *cell = value });
    }
}

/// Explores every execution.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_within(None, model);
}

/// Explores every execution with at most so many preemptions, where all would take hours.
fn explore_within(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// One caller and an eviction: afterwards nothing of the call may be left to see.
fn admit_and_evict() {
    explore(|| {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.call())
        };
        let quiet = world.gate.evict();
        world.publish(false);
        if !quiet {
            world.wait_until_quiet();
        }
        world.write(1); // applied: races with a call that is still inside
        assert_ne!(
            caller.join().unwrap(),
            Some(1),
            "a call came in after applied"
        );
        assert!(world.gate.admit().is_err());
    });
}

/// One caller, closed and open again: what was written in between is what a later call reads.
fn close_and_reopen() {
    explore(|| {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                // Decided on an old snapshot, so that only the gate stands between.
                let first = world.admit().then(|| {
                    let read = world.read();
                    world.leave();
                    world.gate.finish();
                    read
                });
                let second = world.admit().then(|| {
                    let read = world.read();
                    world.leave();
                    world.gate.finish();
                    read
                });
                (first, second)
            })
        };
        if !world.gate.close() {
            world.wait_until_quiet();
        }
        world.write(1);
        world.gate.reopen();
        let (first, second) = caller.join().unwrap();
        if first == Some(1) {
            assert_eq!(second, Some(1), "a call read the past");
        }
    });
}

/// An eviction while a call is in flight: who finds none in flight sees all that they did.
fn drain() {
    explore(|| {
        let world = World::new();
        let ended = Arc::new(UnsafeCell::new(false));
        let caller = {
            let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
            thread::spawn(move || {
                if world.admit() {
                    world.read();
                    world.leave();
                    ended.with_mut(|ended| unsafe { *ended = true }); // the response is in
                    world.gate.finish();
                }
            })
        };
        let quiet = world.gate.evict();
        if !quiet {
            world.wait_until_quiet();
        }
        world.write(1);
        if world.gate.is_drained() {
            ended.with(|ended| unsafe { *ended }); // races with a call that is still in flight
        }
        caller.join().unwrap();
        assert!(world.gate.is_drained());
    });
}

/// Two callers and a writer that closes, writes, reopens, and evicts.
fn two_readers_and_a_writer() {
    explore_within(Some(5), || {
        let world = World::new();
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.call())
            })
            .collect();
        if !world.gate.close() {
            world.wait_until_quiet();
        }
        world.write(1);
        world.gate.reopen();
        if !world.gate.evict() {
            world.wait_until_quiet();
        }
        world.publish(false);
        world.write(2);
        for caller in callers {
            let read = caller.join().unwrap();
            assert!(
                matches!(read, None | Some(0 | 1)),
                "a call came in after applied"
            );
        }
    });
}

#[test]
fn nothing_of_a_call_is_left_when_an_eviction_is_applied() {
    admit_and_evict();
}

#[test]
fn a_call_after_a_reopening_sees_what_was_written_before_it() {
    close_and_reopen();
}

#[test]
fn who_finds_none_in_flight_sees_what_they_did() {
    drain();
}

#[test]
fn two_readers_and_a_writer_agree() {
    two_readers_and_a_writer();
}

mod weakened {
    //! Each ordering of the gate is needed: without it a model fails.

    use super::*;

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn admission_needs_acquire() {
        weaken(Site::Admit);
        close_and_reopen();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn leaving_needs_release() {
        weaken(Site::Leave);
        admit_and_evict();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn closing_needs_acquire() {
        weaken(Site::Close);
        admit_and_evict();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn reopening_needs_release() {
        weaken(Site::Reopen);
        close_and_reopen();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn finding_none_in_flight_needs_acquire() {
        weaken(Site::State);
        drain();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn finishing_needs_release() {
        weaken(Site::Finish);
        drain();
    }
}
