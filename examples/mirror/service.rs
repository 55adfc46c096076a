//! One service on both sides, and what the mirror has to publish of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::stream::AbortHandle;
use tower_nacos::{
    directory::{Change, ChangeKind},
    model::{Address, Instance, Metadata},
};

/// The metadata that tells a mirror's instances from those of providers. Its value says where they
/// were mirrored from.
pub(crate) const MIRRORED_FROM: &str = "mirrored-from";

/// What is known of a service, and what was done about it.
#[derive(Debug)]
pub(crate) struct Service {
    /// The instances that may be called in the source, but for those of mirrors.
    here: BTreeMap<Address, Arc<Instance>>,
    /// The addresses that providers registered in the target themselves.
    there: BTreeSet<Address>,
    /// Ends the watch of the target.
    pub(crate) watch: Option<AbortHandle>,
    /// What the target was told last and confirmed; by address. Not known after a failure: a
    /// registration that timed out stays wanted, and a withdrawal withdrawn.
    pub(crate) published: Option<Vec<Instance>>,
    /// What it confirmed last, while nothing is known.
    confirmed: Vec<Instance>,
    /// Of those here, whom nobody can register.
    unfit: BTreeSet<Address>,
    /// Whether it refused all that is wanted, so that less is next.
    pub(crate) retreats: bool,
    /// Whether the target is being told something.
    pub(crate) busy: bool,
    /// Whether there is news since.
    pub(crate) missed: bool,
}

impl Default for Service {
    /// Nothing is known of it, and the target was told nothing.
    fn default() -> Self {
        Self {
            here: BTreeMap::new(),
            there: BTreeSet::new(),
            watch: None,
            published: Some(Vec::new()),
            confirmed: Vec::new(),
            unfit: BTreeSet::new(),
            retreats: false,
            busy: false,
            missed: false,
        }
    }
}

impl Service {
    /// A change in the source. Whether it is one of an instance that is mirrored.
    ///
    /// What a mirror registered is never mirrored again: mirrors in opposite directions, or in a
    /// ring, would keep alive forever what its provider took back.
    pub(crate) fn changed_here(&mut self, change: &Change) -> bool {
        let address = change.instance.address();
        if matches!(change.kind, ChangeKind::Removed { .. }) || is_mirrored(&change.instance) {
            self.unfit.remove(address);
            return self.here.remove(address).is_some();
        }
        let new = Arc::clone(&change.instance);
        let old = self.here.insert(address.clone(), Arc::clone(&new));
        old.is_none_or(|old| old != new)
    }

    /// A change in the target. Whether a provider came to it or left it.
    pub(crate) fn changed_there(&mut self, change: &Change) -> bool {
        let address = change.instance.address();
        if matches!(change.kind, ChangeKind::Removed { .. }) || is_mirrored(&change.instance) {
            self.there.remove(address)
        } else {
            self.there.insert(address.clone())
        }
    }

    /// It is not in the source any longer.
    pub(crate) fn removed_here(&mut self) {
        self.here.clear();
        self.there.clear();
        self.unfit.clear();
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }

    /// What the target is to list, by address. Who registered in the target by itself, on its way
    /// from one registry to the other say, is left to itself; whom nobody can register is left out.
    pub(crate) fn wanted(&self, origin: &str) -> Vec<Instance> {
        let mirrored = self.here.values().filter(|i| self.is_wanted(i.address()));
        mirrored.map(|instance| mark(instance, origin)).collect()
    }

    fn is_wanted(&self, address: &Address) -> bool {
        let elsewhere = self.there.contains(address) || self.unfit.contains(address);
        self.here.contains_key(address) && !elsewhere
    }

    /// What the target confirmed before it refused more, but for who left since; `None` if nobody did.
    /// One that it will not have keeps nobody else in its list.
    pub(crate) fn left(&self) -> Option<Vec<Instance>> {
        let stay = |instance: &&Instance| self.is_wanted(instance.address());
        let left: Vec<Instance> = self.confirmed.iter().filter(stay).cloned().collect();
        (left.len() < self.confirmed.len()).then_some(left)
    }

    /// The target confirmed this.
    pub(crate) fn confirmed(&mut self, instances: Vec<Instance>) {
        self.published = Some(instances);
        self.confirmed = Vec::new();
        self.retreats = false;
    }

    /// It did not confirm what it was told, or nobody knows.
    pub(crate) fn failed(&mut self) {
        if let Some(confirmed) = self.published.take() {
            self.confirmed = confirmed;
        }
    }

    /// Nobody can register this one. Whether that is new.
    pub(crate) fn is_unfit(&mut self, address: Address) -> bool {
        self.here.contains_key(&address) && self.unfit.insert(address)
    }

    /// Whether nothing is left to remember.
    pub(crate) fn is_over(&self) -> bool {
        let lists_none = self.published.as_ref().is_some_and(Vec::is_empty);
        self.watch.is_none() && lists_none && !self.busy
    }
}

fn is_mirrored(instance: &Instance) -> bool {
    instance.metadata().get(MIRRORED_FROM).is_some()
}

/// Lives as long as the mirror, also where its provider's is persistent.
fn mark(instance: &Instance, origin: &str) -> Instance {
    let mark = (MIRRORED_FROM, origin);
    let metadata: Metadata = instance.metadata().iter().chain([mark]).collect();
    let instance = instance.clone().with_ephemeral(true);
    instance.with_metadata(metadata)
}
