use std::{mem, sync::Arc};

use crate::{
    balance::Candidate,
    directory::{Generation, Snapshot},
    endpoint::{Known, Roster},
};

/// The candidates of a roster, kept from one to the next: of what did not change nothing is touched, since
/// to count a reference up and down costs more, at 10,000 instances, than all else of a table.
pub(super) struct Candidates {
    /// Whose they are, in order.
    generations: Arc<[Generation]>,
    /// With the weights that they are listed with.
    listed: Vec<Candidate>,
}

/// What a table is made of.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    pub(super) all: &'a [Candidate],
    /// Whether some have another weight than the listed one.
    pub(super) reweighted: bool,
}

impl Candidates {
    pub(super) fn listed(&self) -> &[Candidate] {
        &self.listed
    }

    /// Brings them up to date with a roster. `snapshot` is as new as that, or newer.
    pub(super) fn follow<S>(&mut self, roster: &Roster<S>, snapshot: &Snapshot) {
        let former = mem::replace(&mut self.generations, Arc::clone(roster.generations()));
        let mut known = Known::new(&former);
        let mut before = mem::take(&mut self.listed).into_iter();
        let mut taken = 0;
        // In the roster's order, if it is the roster's; where it is not the endpoint says what it is.
        let mut entries = snapshot.callable();
        self.listed.reserve_exact(self.generations.len());
        for (generation, endpoint) in self.generations.iter().zip(roster.endpoints()) {
            let kept = known.find(*generation).and_then(|place| {
                let kept = before.nth(place - taken);
                taken = place + 1;
                kept
            });
            let entry = entries.next();
            let entry = entry.filter(|entry| entry.generation() == *generation);
            let instance = match (entry, kept) {
                (Some(entry), Some(kept)) if Arc::ptr_eq(entry.instance(), kept.instance()) => {
                    self.listed.push(kept);
                    continue;
                }
                (Some(entry), _) => Arc::clone(entry.instance()),
                (None, _) => endpoint.instance(),
            };
            self.listed.push(Candidate::new(instance));
        }
    }
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            generations: Arc::new([]),
            listed: Vec::new(),
        }
    }
}
