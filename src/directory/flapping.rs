//! Instances that come and go again and again: told as such, and not each time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    directory::{Transition, TransitionKind},
    model::Address,
};

/// So many times gone, with less than [`CALM`] between one change and the next: it flaps.
const MANY: u32 = 3;
/// Without a change for so long, whatever it was is over.
const CALM: Duration = Duration::from_secs(60);
/// More are not followed; their changes are told as they come.
const MOST: usize = 1_024;

/// What became of each instance that was gone of late. A departure is the end of being callable, for
/// whatever reason.
#[derive(Debug, Default)]
pub(super) struct Flapping(BTreeMap<Address, Seen>);

#[derive(Debug)]
struct Seen {
    gone: u32,
    here: bool,
    since: Instant,
    last: Instant,
}

/// Instances of which one line says all: which they are, and how often they were gone since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) instances: Vec<Address>,
    pub(super) times: u32,
    pub(super) lasted: Duration,
}

impl Flapping {
    /// What one list did. Returns those that are found to flap by it.
    pub(super) fn note(&mut self, transitions: &[Transition], now: Instant) -> Sum {
        self.0.retain(|_, seen| !seen.is_over(now) || seen.flaps());
        let mut begun = Sum::default();
        for transition in transitions {
            let address = &transition.address;
            match transition.kind {
                TransitionKind::Evicted | TransitionKind::Closed => {
                    if !self.0.contains_key(address) && self.0.len() >= MOST {
                        continue;
                    }
                    let seen = self
                        .0
                        .entry(address.clone())
                        .or_insert_with(|| Seen::new(now));
                    if !seen.here {
                        continue; // closed before, and now evicted
                    }
                    seen.here = false;
                    seen.gone += 1;
                    seen.last = now;
                    if seen.gone == MANY {
                        begun.add(address, seen);
                    }
                }
                TransitionKind::Opened => {
                    if let Some(seen) = self.0.get_mut(address) {
                        seen.here = true;
                        seen.last = now;
                    }
                }
                TransitionKind::Updated => {}
            }
        }
        begun
    }

    /// Whether its single changes are not told.
    pub(super) fn has(&self, address: &Address) -> bool {
        self.0.get(address).is_some_and(Seen::flaps)
    }

    /// All that flap now.
    pub(super) fn all(&self) -> Sum {
        let mut sum = Sum::default();
        for (address, seen) in self.0.iter().filter(|(_, seen)| seen.flaps()) {
            sum.add(address, seen);
        }
        sum
    }

    /// When the next one is calm again.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let flapping = self.0.values().filter(|seen| seen.flaps());
        flapping.map(|seen| seen.last).min()?.checked_add(CALM)
    }

    /// Forgets those that are calm by now: the ones that are here, and the ones that are gone.
    pub(super) fn take_calm(&mut self, now: Instant) -> [Sum; 2] {
        let mut calm = [Sum::default(), Sum::default()];
        self.0.retain(|address, seen| {
            let over = seen.is_over(now);
            if over && seen.flaps() {
                calm[usize::from(!seen.here)].add(address, seen);
            }
            !over
        });
        calm
    }
}

impl Seen {
    const fn new(now: Instant) -> Self {
        Self {
            gone: 0,
            here: true,
            since: now,
            last: now,
        }
    }

    const fn flaps(&self) -> bool {
        self.gone >= MANY
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= CALM
    }
}

impl Sum {
    fn add(&mut self, address: &Address, seen: &Seen) {
        self.instances.push(address.clone());
        self.times = self.times.max(seen.gone);
        let lasted = seen.last.saturating_duration_since(seen.since);
        self.lasted = self.lasted.max(lasted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}
