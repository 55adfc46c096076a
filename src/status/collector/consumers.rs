use std::{collections::BTreeMap, sync::Weak};

use crate::{
    balance::{Looked, Out},
    directory::Generation,
    model::Address,
    status::{
        clock::Moment,
        model::Kind,
        text::clean,
        timeline::{About, Timeline},
    },
};

/// A balancer, as far as it was looked at.
pub(super) struct Watched {
    looked: Weak<dyn Looked>,
    version: u64,
    moved: u64,
    /// Who gets no calls.
    out: BTreeMap<Generation, (Out, Address)>,
}

impl Watched {
    /// One that was not there before: all that happened to it is news.
    pub(super) const fn new(looked: Weak<dyn Looked>) -> Self {
        Self {
            looked,
            version: 0,
            moved: 0,
            out: BTreeMap::new(),
        }
    }

    /// What happened to it so far did not just happen.
    pub(super) fn begin(&mut self, balance: &dyn Looked) {
        self.version = balance.version();
        self.moved = balance.counters().moved;
        self.out = out(balance).0;
    }

    pub(super) fn is(&self, other: &Weak<dyn Looked>) -> bool {
        self.looked.ptr_eq(other)
    }

    /// Says whether something changed.
    pub(super) fn look(
        &mut self,
        balance: &dyn Looked,
        about: &impl Fn() -> About,
        now: Moment,
        timeline: &mut Timeline,
    ) -> bool {
        let before = timeline.last();
        let moved = balance.counters().moved;
        if moved > self.moved {
            let text = match moved - self.moved {
                1 => "1 request went to another instance".to_owned(),
                more => format!("{more} requests went to other instances"),
            };
            timeline.add(now.wall, Kind::Moved, about(), text);
        }
        self.moved = moved;
        let version = balance.version();
        if version == self.version {
            return timeline.last() != before;
        }
        // Read before: what changes meanwhile is found the next time.
        self.version = version;
        let (out, present) = out(balance);
        let about = |address: &Address| About {
            instance: Some(clean(&address.to_string())),
            ..about()
        };
        for (generation, (why, address)) in &out {
            let known = self.out.get(generation).map(|(why, _)| *why);
            let text = match why {
                Out::Suspect => continue, // a dial says in a moment what that means
                _ if known == Some(*why) => continue,
                Out::Ejected => "no connection could be had",
                Out::Outlier => "it answered badly too often",
                Out::Refused => "its health check refuses it",
                Out::Unusable => "making its service panicked",
            };
            timeline.add(now.wall, Kind::Ejected, about(address), text.to_owned());
        }
        for (generation, (why, address)) in &self.out {
            let was_told = *why != Out::Suspect;
            if was_told && !out.contains_key(generation) && present.contains(generation) {
                let text = "it gets calls again".to_owned();
                timeline.add(now.wall, Kind::Restored, about(address), text);
            }
        }
        self.out = out;
        true
    }
}

/// Who gets no calls, and who is there at all.
fn out(balance: &dyn Looked) -> (BTreeMap<Generation, (Out, Address)>, Vec<Generation>) {
    let (mut out, mut present) = (BTreeMap::new(), Vec::new());
    balance.each(&mut |glimpse| {
        present.push(glimpse.generation);
        if let Some(why) = glimpse.out {
            let address = (glimpse.instance)().address().clone();
            out.insert(glimpse.generation, (why, address));
        }
    });
    (out, present)
}
