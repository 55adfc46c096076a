use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    time::Duration,
};

use super::machine::{LimitRules, Machine, Window};
use crate::endpoint::latency::Mark;

/// The calls that an instance has and has not answered, and how many it may have. Atomics only: calls count, and
/// who finds a window over closes it.
#[derive(Debug)]
pub(in crate::endpoint) struct Gauge {
    rules: LimitRules,
    unanswered: AtomicU32,
    in_force: AtomicU32,
    /// Calls that wait for one of those to be answered.
    waiting: AtomicU32,
    /// Of this window.
    most: AtomicU32,
    refusals: AtomicU32,
    /// Of this window: how many answers, and how many µs they took in all, in the bits above.
    answers: AtomicU64,
    /// When the window may be closed, in ns; [`CLOSING`] while somebody does.
    until: AtomicU64,
    /// Until when others are preferred to it, in ns.
    rests_until: AtomicU64,
    machine: [AtomicU64; 2],
}

impl Gauge {
    pub(in crate::endpoint) fn new(rules: LimitRules) -> Self {
        let machine = Machine::new(&rules);
        Self {
            unanswered: AtomicU32::new(0),
            in_force: AtomicU32::new(machine.in_force(&rules)),
            waiting: AtomicU32::new(0),
            most: AtomicU32::new(0),
            refusals: AtomicU32::new(0),
            answers: AtomicU64::new(0),
            until: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
            machine: machine.packed().map(AtomicU64::new),
            rules,
        }
    }

    /// Takes room for a call, if there is some.
    #[inline]
    pub(in crate::endpoint) fn try_take(&self) -> bool {
        let limit = self.in_force.load(Ordering::Relaxed);
        let one_more = |calls: u32| (calls < limit).then_some(calls + 1);
        let before = self
            .unanswered
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        before.is_ok_and(|before| {
            self.note_most(before + 1);
            true
        })
    }

    /// Takes it whether there is some or not: for a probe, and for who cannot wait.
    pub(in crate::endpoint) fn take(&self) {
        let before = self.unanswered.fetch_add(1, Ordering::SeqCst);
        self.note_most(before.saturating_add(1));
    }

    fn note_most(&self, calls: u32) {
        if calls > self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(calls, Ordering::Relaxed);
        }
    }

    /// Gives it back. True if somebody waits who may have it.
    #[inline]
    pub(in crate::endpoint) fn give_back(&self) -> bool {
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        self.owes()
    }

    /// Whether there is room, and somebody who waits for it.
    ///
    /// Who waits says so, and then looks for room once more; who gives room back does that, and then looks who
    /// waits. All of it is in one order, so that one of them sees the other.
    pub(in crate::endpoint) fn owes(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::SeqCst) > 0 && self.is_below()
    }

    pub(in crate::endpoint) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(in crate::endpoint) fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_below(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) < self.in_force.load(Ordering::Relaxed)
    }

    /// Whether it is one to be chosen: it has room, and refused nothing just now.
    #[inline]
    pub(in crate::endpoint) fn is_open(&self, now: Mark) -> bool {
        self.is_below() && self.rests_until.load(Ordering::Relaxed) <= now.ns()
    }

    /// How many calls it gets at once now, and how many it has.
    pub(in crate::endpoint) fn told(&self) -> [u32; 2] {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        [read(&self.in_force), read(&self.unanswered)]
    }

    /// It answered after so long.
    #[inline]
    pub(in crate::endpoint) fn answered(&self, took: Duration, now: Mark) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let one = us.min(LONGEST) << COUNT_BITS | 1;
        let mut answers = self.answers.load(Ordering::Relaxed);
        if answers & COUNT < FULL {
            let before = self.answers.fetch_add(one, Ordering::Relaxed);
            answers = before.wrapping_add(one);
        }
        self.close_if_over((answers & COUNT) as u32, now);
    }

    /// It said that it has too much to do, or did not answer in time.
    #[cold]
    pub(in crate::endpoint) fn refused(&self, now: Mark) {
        // What is refused at once would else be what is asked for most: nobody has fewer calls.
        let usual = Duration::from_secs_f32(self.machine().usual().min(1.0));
        let rest = usual.max(SHORTEST_REST).as_nanos() as u64;
        self.rests_until
            .fetch_max(now.ns().saturating_add(rest), Ordering::Relaxed);
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let answers = self.answers.load(Ordering::Relaxed) & COUNT;
        self.close_if_over(answers as u32, now);
    }

    /// Whether a call that was given up after so long was out of time, by what is usual here.
    pub(in crate::endpoint) fn is_overdue(&self, age: Duration) -> bool {
        let usual = self.machine().usual();
        usual > 0.0 && age >= PATIENCE && age.as_secs_f32() >= usual * 3.0
    }

    #[inline]
    fn close_if_over(&self, answers: u32, now: Mark) {
        let until = self.until.load(Ordering::Relaxed);
        if now.ns() < until {
            return;
        }
        // As many as it has at once: whose queue has changed has answered that many.
        let enough = self.most.load(Ordering::Relaxed).clamp(FEWEST, MOST);
        if answers.saturating_add(self.refusals.load(Ordering::Relaxed)) >= enough {
            self.close(until, now);
        }
    }

    #[cold]
    fn close(&self, until: u64, now: Mark) {
        let claimed =
            self.until
                .compare_exchange(until, CLOSING, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        let word = self.answers.swap(0, Ordering::Relaxed);
        let answers = (word & COUNT) as u32;
        let sum = Duration::from_micros(word >> COUNT_BITS);
        let window = Window {
            average: sum.as_secs_f32() / answers.max(1) as f32,
            answers,
            refusals: self.refusals.swap(0, Ordering::Relaxed),
            most: self
                .most
                .swap(self.unanswered.load(Ordering::Relaxed), Ordering::Relaxed),
        };
        let machine = self.machine().step(window, &self.rules);
        for (kept, word) in self.machine.iter().zip(machine.packed()) {
            kept.store(word, Ordering::Relaxed);
        }
        self.in_force
            .store(machine.in_force(&self.rules), Ordering::Relaxed);
        let next = now.ns().saturating_add(LENGTH).min(CLOSING - 1);
        self.until.store(next, Ordering::Release);
    }

    /// As it was when a window was closed last. Half of the next, at worst, for who looks meanwhile.
    fn machine(&self) -> Machine {
        let [halves, phase] = &self.machine;
        Machine::unpack([
            halves.load(Ordering::Relaxed),
            phase.load(Ordering::Relaxed),
        ])
    }
}

/// In ns: how long a window is at least, as Envoy's.
const LENGTH: u64 = 100_000_000;
/// How many answers it has at least, as in Gradient2.
const FEWEST: u32 = 10;
/// And how many are enough whatever it has: fewer than can be counted.
const MOST: u32 = 10_000;
const CLOSING: u64 = u64::MAX;
/// In the word of answers: their count.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// More than these are not counted in one window, so that neither part overflows while the clock stands still.
const FULL: u64 = 1 << 18;
/// In µs, a minute: what a jump of the clock may do to a sum is bounded.
const LONGEST: u64 = 60_000_000;
const SHORTEST_REST: Duration = Duration::from_millis(10);
/// Who gives up sooner says nothing about the instance.
const PATIENCE: Duration = Duration::from_millis(100);
