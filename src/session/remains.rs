//! What a server that adds up may list of a publication beside what is wanted.

use std::collections::HashSet;

use crate::model::Instance;

/// Alibaba's servers put a batch in the place of the one before. rnacos adds it to that, and a
/// deregistration takes back what it names and no more (0.8.8, seen). Empty on the former.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// What was sent last.
    newest: Vec<Instance>,
    /// What was sent before, and is not among that.
    older: Vec<Instance>,
}

impl Remains {
    pub(super) const fn are_none(&self) -> bool {
        self.older.is_empty()
    }

    /// Whether an ordinary deregistration would leave some.
    pub(super) const fn are_several(&self) -> bool {
        self.older.len() + self.newest.len() > 1
    }

    /// These are sent.
    pub(super) fn replaced_by(&mut self, instances: &[Instance]) {
        self.older.append(&mut self.newest);
        self.newest = instances.to_vec();
        let mut seen: HashSet<_> = self.newest.iter().map(Instance::address).collect();
        let older = std::mem::take(&mut self.older);
        self.older.extend(
            older
                .iter()
                .filter(|instance| seen.insert(instance.address()))
                .cloned(),
        );
    }

    /// What was sent last is refused, and these are listed as before.
    pub(super) fn stayed(&mut self, listed: &[Instance]) {
        if !self.newest.is_empty() {
            self.newest.clear();
            self.replaced_by(listed);
        }
    }

    /// What is to be taken back: what is older than the newest, or everything.
    pub(super) fn beside(&self, newest: bool) -> Vec<Instance> {
        let newest = if newest { &[] } else { &self.newest[..] };
        self.older.iter().chain(newest).cloned().collect()
    }

    /// That was done.
    pub(super) fn are_gone(&mut self, but_newest: bool) {
        self.older.clear();
        if !but_newest {
            self.newest.clear();
        }
    }
}
