//! A gauge beside a model of a queue, in virtual time by steps of 1 ms.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::{
    gauge::Gauge,
    machine::{LimitRules, Machine, Window},
};
use crate::endpoint::{clock, latency::Mark};

const RULES: LimitRules = LimitRules {
    initial: 20,
    min: 1,
    max: 1_000,
    tolerance: 1.5,
};

/// An instance with a queue and some workers, and as many callers as are said.
struct World {
    gauge: Gauge,
    epoch: Instant,
    ms: u64,
    /// What the clock has jumped by.
    jumped: u64,
    workers: usize,
    takes: f64,
    /// Whether that is the mean of an exponential distribution, or always so.
    varies: bool,
    /// So many wait in the queue; more are refused.
    room: usize,
    queue: VecDeque<u64>,
    /// When they are done, a number to tell them apart, and when they came.
    busy: BTreeSet<(u64, u64, u64)>,
    came: u64,
    random: StdRng,
    answered: u64,
    refused: u64,
    took: u64,
}

impl World {
    fn new(workers: usize, varies: bool) -> Self {
        Self {
            gauge: Gauge::new(RULES),
            epoch: clock::now(),
            ms: 0,
            jumped: 0,
            workers,
            takes: 50.0,
            varies,
            room: usize::MAX,
            queue: VecDeque::new(),
            busy: BTreeSet::new(),
            came: 0,
            random: StdRng::seed_from_u64(4),
            answered: 0,
            refused: 0,
            took: 0,
        }
    }

    fn at(&self, ms: u64) -> Mark {
        Mark::new(self.epoch, self.epoch + Duration::from_millis(ms))
    }

    fn limit(&self) -> u32 {
        self.gauge.told()[0]
    }

    /// The highest in so long: lower ones are there to measure what is usual.
    fn highest(&mut self, seconds: f64, callers: usize) -> u32 {
        let tenths = 0..(seconds * 10.0) as u64;
        let limits = tenths.map(|_| {
            self.run(0.1, callers);
            self.limit()
        });
        limits.max().unwrap_or(0)
    }

    /// For so long, with so many callers who want an answer each.
    fn run(&mut self, seconds: f64, callers: usize) {
        for _ in 0..(seconds * 1_000.0) as u64 {
            self.step(callers);
        }
    }

    /// The same, from which on it counts anew; answers a second, and how long they took in ms.
    fn measure(&mut self, seconds: f64, callers: usize) -> [f64; 2] {
        (self.answered, self.refused, self.took) = (0, 0, 0);
        self.run(seconds, callers);
        let answered = self.answered as f64;
        [answered / seconds, self.took as f64 / answered]
    }

    fn step(&mut self, callers: usize) {
        self.ms += 1;
        let now = self.ms + self.jumped;
        while let Some((done, _, since)) = self.busy.first().copied()
            && done <= self.ms
        {
            self.busy.pop_first();
            // What was begun before a jump took as long as the clock says.
            let took = now.saturating_sub(since);
            self.gauge
                .answered(Duration::from_millis(took), self.at(now));
            let _ = self.gauge.give_back();
            self.answered += 1;
            self.took += took;
        }
        while self.queue.len() + self.busy.len() < callers && self.gauge.try_take() {
            if self.queue.len() >= self.room && self.busy.len() >= self.workers {
                self.gauge.refused(self.at(now));
                let _ = self.gauge.give_back();
                self.refused += 1;
                break; // one a ms, or it would never end
            }
            self.queue.push_back(now);
        }
        while self.busy.len() < self.workers
            && let Some(since) = self.queue.pop_front()
        {
            let unit: f64 = self.random.random();
            let takes = match self.varies {
                true => -(1.0 - unit).ln() * self.takes,
                false => self.takes,
            };
            self.came += 1;
            let done = self.ms + (takes as u64).max(1);
            self.busy.insert((done, self.came, since));
        }
    }
}

#[test]
fn it_finds_what_an_instance_can_do_and_keeps_it_busy() {
    for (workers, varies) in [(1, false), (4, false), (4, true), (32, false), (32, true)] {
        let mut world = World::new(workers, varies);
        let without = 300.0 * 50.0 / workers as f64; // ms in the queue of 300 callers
        world.run(60.0, 300);
        let [answers, took] = world.measure(120.0, 300);
        let limit = world.highest(10.0, 300);
        let most = workers as f64 * 1_000.0 / 50.0;
        println!(
            "{workers:2} workers, varies: {varies:5}: limit {:3}, {:3.0} % of what it can do, {took:5.0} ms (without: {without:.0} ms)",
            limit,
            answers / most * 100.0
        );
        assert!(answers > most * 0.93, "{answers} of {most}");
        let [few, many] = [workers as u32, workers as u32 * 3 + 6];
        assert!((few..=many).contains(&limit), "{limit}");
        assert!(took < without / 3.0 && took < 400.0, "{took} ms");
    }
}

#[test]
fn a_queue_that_lasts_is_not_taken_for_what_is_usual() {
    let mut world = World::new(8, true);
    world.run(1_800.0, 500);
    let [_, took] = world.measure(60.0, 500);
    let limit = world.highest(10.0, 500);
    assert!(limit <= 30, "after half an hour {limit}");
    assert!(took < 50.0 * 4.0, "{took} ms");
}

#[test]
fn it_is_in_nobody_s_way_where_there_is_no_queue() {
    for varies in [false, true] {
        let mut world = World::new(usize::MAX, varies);
        world.run(10.0, 400);
        let [answers, took] = world.measure(60.0, 400);
        println!(
            "no queue, varies: {varies}: limit {}, {took:.0} ms",
            world.limit()
        );
        assert!(answers > 400.0 / 0.05 * 0.9, "{answers} a second");
        assert!(took < 60.0, "{took} ms");
    }
}

#[test]
fn after_an_overload_it_finds_back() {
    let mut world = World::new(16, true);
    world.run(30.0, 200);
    let before = world.highest(5.0, 200);
    world.workers = 1;
    world.run(20.0, 200);
    let meanwhile = world.highest(5.0, 200);
    assert!(meanwhile < before / 2, "{meanwhile} of {before}");
    world.workers = 16;
    world.run(30.0, 200);
    let [answers, _] = world.measure(30.0, 200);
    assert!(answers > 16.0 / 0.05 * 0.9, "{answers} a second");
}

#[test]
fn who_has_become_slower_for_good_gets_its_calls_back() {
    let mut world = World::new(16, true);
    world.run(30.0, 200);
    world.takes = 500.0;
    world.run(300.0, 200);
    let [answers, _] = world.measure(300.0, 200);
    assert!(answers > 16.0 / 0.5 * 0.8, "{answers} a second");
    let limit = world.highest(60.0, 200);
    assert!(limit < 60, "{limit}");
}

#[test]
fn refusals_lower_it_by_half_of_their_part() {
    let rules = LimitRules {
        initial: 100,
        ..RULES
    };
    let of = |answers, refusals| {
        let window = Window {
            average: 0.05,
            answers,
            refusals,
            most: 100,
        };
        Machine::new(&rules).step(window, &rules).in_force(&rules)
    };
    assert_eq!(of(90, 10), 95);
    assert_eq!(of(50, 50), 75);
    assert_eq!(of(0, 100), 50);
    assert_eq!(of(0, u32::MAX), 50);
    // A queue with room for 8: what is beyond is refused, and there is little of that.
    let mut world = World::new(4, true);
    world.room = 8;
    world.run(30.0, 100);
    let [answers, took] = world.measure(60.0, 100);
    assert!(answers > 80.0 * 0.9, "{answers} a second");
    let part = world.refused as f64 / (world.refused + world.answered) as f64;
    println!(
        "refused: {:.2} %, limit {}, {took:.0} ms",
        part * 100.0,
        world.limit()
    );
    assert!(part < 0.02, "{part}");
}

#[test]
fn it_stays_within_its_bounds_whatever_is_seen() {
    let rules = LimitRules {
        initial: 10,
        min: 5,
        max: 50,
        tolerance: 1.5,
    };
    let odd = [0.0, 1e-9, 0.05, 60.0, f32::MAX];
    let counts = [0, 1, 10, 1_000, u32::MAX];
    let mut random = StdRng::seed_from_u64(1);
    let mut machine = Machine::new(&rules);
    for step in 0..100_000 {
        let mut any = |of: [u32; 5]| of[random.random_range(0..5)];
        let [answers, refusals, most] = [any(counts), any(counts), any(counts)];
        let window = Window {
            average: odd[random.random_range(0..5)],
            answers,
            refusals: if step % 3 == 0 { refusals } else { 0 },
            most,
        };
        machine = machine.step(window, &rules);
        let limit = machine.in_force(&rules);
        assert!((5..=50).contains(&limit), "{limit} by {window:?}");
        assert!(machine.usual().is_finite() && machine.usual() >= 0.0);
        assert_eq!(Machine::unpack(machine.packed()), machine);
    }
    for (initial, limit) in [(0, 5), (7, 7), (99, 50)] {
        let rules = LimitRules { initial, ..rules };
        assert_eq!(Machine::new(&rules).in_force(&rules), limit);
    }
}

#[test]
fn a_clock_that_jumps_or_stands_still_costs_it_little() {
    let mut world = World::new(16, true);
    world.run(60.0, 200);
    let before = world.highest(5.0, 200);
    for jump in [60_000, 3_600_000, 86_400_000 * 365] {
        world.jumped += jump;
        let after = world.highest(5.0, 200);
        assert!(after > before / 2, "{after} of {before}");
        let [answers, _] = world.measure(30.0, 200);
        assert!(answers > 16.0 / 0.05 * 0.9, "{answers} a second");
    }
    // Back, which a monotonic clock does not go: nothing is measured until it has caught up.
    world.jumped -= 5_000;
    let after = world.highest(15.0, 200);
    assert!(after > before / 2, "{after} of {before}");
    let [answers, _] = world.measure(30.0, 200);
    assert!(answers > 16.0 / 0.05 * 0.9, "{answers} a second");
    let still = World::new(1, false);
    for _ in 0..1_000_000 {
        still.gauge.answered(Duration::MAX, still.at(0));
    }
    assert!(still.limit() >= 1);
    let [_, calls] = still.gauge.told();
    assert_eq!(calls, 0);
}

#[test]
fn who_refuses_is_passed_over_for_a_moment_and_room_is_counted_to_the_last_call() {
    let world = World::new(1, false);
    let gauge = &world.gauge;
    assert!(gauge.is_open(world.at(0)));
    gauge.refused(world.at(5));
    assert!(!gauge.is_open(world.at(14)));
    assert!(
        gauge.is_open(world.at(15)),
        "10 ms, where nothing is usual yet"
    );
    let taken = (0..100).filter(|_| gauge.try_take()).count();
    assert_eq!(taken, 20);
    assert!(!gauge.is_open(world.at(20)));
    gauge.take();
    assert_eq!(gauge.told(), [20, 21], "a probe is let in");
    gauge.begin_waiting();
    assert!(!gauge.give_back(), "there is none to be had yet");
    assert!(gauge.give_back(), "now there is, and somebody waits");
    gauge.end_waiting();
    assert!(!gauge.owes());
}
