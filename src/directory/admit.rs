//! From a list to the new entries: order, twins, identity and generations, what is held.

use std::{collections::BTreeMap, mem, net::IpAddr, sync::Arc, time::Instant};

use crate::{
    directory::{Entry, Generation, Options, RemovalCause, Standing, health::Health, twins},
    model::{Address, Host, Instance},
};

/// The positions of `instances`, sorted by address.
pub(super) struct Order(Vec<(u64, u32)>);

/// What to do with an instance that the list lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is gone, held or not.
    Remove,
    /// It is gone, unless it is held already.
    KeepHeld,
    /// It is held if it is held already or was callable, else gone.
    Hold,
}

/// What admission goes by.
pub(super) struct Rules<'a> {
    pub(super) options: &'a Options,
    pub(super) protected: bool,
    pub(super) missing: Missing,
    /// Addresses on which this list is known to lag behind.
    pub(super) lagging: Option<&'a BTreeMap<Address, Instant>>,
    pub(super) before: &'a [Entry],
    /// Parallel to `before`.
    pub(super) health: &'a [Health],
    pub(super) twins: &'a Twins,
}

/// The registrations of an address that do not count, by address. Nearly always empty.
pub(super) type Twins = BTreeMap<Address, Box<[Arc<Instance>]>>;

/// The new state, standings not yet set.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) entries: Vec<Entry>,
    pub(super) health: Vec<Health>,
    pub(super) twins: Twins,
    /// The generations that ended.
    pub(super) ended: Vec<(Entry, RemovalCause)>,
    /// Hosts that a lagging list would have brought back.
    pub(super) not_resurrected: u64,
    pub(super) newly_held: u64,
    pub(super) changed: bool,
    pub(super) last_cluster: Option<Arc<str>>,
}

impl Order {
    pub(super) fn of(instances: &[Arc<Instance>]) -> Self {
        let mut order: Vec<(u64, u32)> = instances
            .iter()
            .zip(0..)
            .map(|(instance, at)| (prefix(instance.address()), at))
            .collect();
        order.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| address(instances, *a).cmp(address(instances, *b)))
        });
        Self(order)
    }

    /// The addresses in order; twins repeat.
    pub(super) fn addresses<'a>(
        &'a self,
        instances: &'a [Arc<Instance>],
    ) -> impl Iterator<Item = &'a Address> {
        self.0.iter().map(|at| address(instances, *at))
    }
}

fn address(instances: &[Arc<Instance>], at: (u64, u32)) -> &Address {
    instances[at.1 as usize].address()
}

/// A number that sorts as the address does, equal for what it cannot tell apart.
fn prefix(address: &Address) -> u64 {
    match address.host() {
        Host::Ip(IpAddr::V4(ip)) => u64::from(ip.to_bits()) << 16 | u64::from(address.port()),
        _ => u64::MAX,
    }
}

/// Merges a list with what was known, both in order of address.
pub(super) fn admit(
    instances: Vec<Arc<Instance>>,
    order: &Order,
    rules: &Rules<'_>,
    generations: &mut u64,
) -> Admitted {
    let mut out = Admitted {
        entries: Vec::with_capacity(instances.len().max(rules.before.len())),
        health: Vec::with_capacity(instances.len().max(rules.before.len())),
        ..Admitted::default()
    };
    let mut pool: Vec<Option<Arc<Instance>>> = instances.into_iter().map(Some).collect();
    let mut before = rules.before.iter().zip(rules.health).peekable();
    let mut listed = order.0.iter().peekable();
    let mut group: Vec<Arc<Instance>> = Vec::new();
    while let Some(at) = listed.next() {
        let Some(first) = pool[at.1 as usize].take() else {
            continue;
        };
        while let Some(gone) =
            before.next_if(|(entry, _)| entry.instance.address() < first.address())
        {
            out.missing(gone, rules);
        }
        let prior = before.next_if(|(entry, _)| entry.instance.address() == first.address());
        while let Some(twin) = listed.next_if(|at| {
            pool[at.1 as usize]
                .as_ref()
                .is_some_and(|other| other.address() == first.address())
        }) {
            group.extend(pool[twin.1 as usize].take());
        }
        let lagging = rules
            .lagging
            .is_some_and(|lagging| lagging.contains_key(first.address()));
        if lagging {
            group.clear();
            out.not_resurrected += 1;
            if let Some((entry, health)) = prior {
                out.keep_twins(entry, rules);
                out.push(entry.clone(), *health);
            }
            continue;
        }
        let known_twins = if rules.twins.is_empty() {
            None
        } else {
            rules.twins.get(first.address())
        };
        let twins_before = known_twins.map_or(&[][..], |twins| twins);
        let instance = if group.is_empty() {
            first
        } else {
            group.push(first);
            let chosen = prior.map(|(entry, _)| (&*entry.instance, twins_before));
            let winner = twins::choose(&mut group, chosen);
            out.twins.insert(
                winner.address().clone(),
                mem::take(&mut group).into_boxed_slice(),
            );
            winner
        };
        match prior {
            Some(prior) => out.present(instance, prior, twins_before, rules, generations),
            None => out.appeared(instance, rules, generations),
        }
    }
    for gone in before {
        out.missing(gone, rules);
    }
    out
}

impl Admitted {
    fn push(&mut self, entry: Entry, health: Health) {
        self.entries.push(entry);
        self.health.push(health);
    }

    fn appeared(&mut self, instance: Arc<Instance>, rules: &Rules<'_>, generations: &mut u64) {
        let health = if rules.protected {
            Health::Unknown
        } else {
            Health::reported(&instance)
        };
        let entry = Entry {
            instance: self.share(instance),
            generation: next(generations),
            standing: Standing::Callable,
            held: false,
            leaving: false,
            health,
        };
        self.changed = true;
        self.push(entry, health);
    }

    fn present(
        &mut self,
        instance: Arc<Instance>,
        (before, health): (&Entry, &Health),
        twins_before: &[Arc<Instance>],
        rules: &Rules<'_>,
        generations: &mut u64,
    ) {
        let mut now = Health::reported(&instance);
        if rules.protected {
            now = *health;
        }
        let mut entry = before.clone();
        entry.held = false;
        if before.instance != instance {
            // Falling back to a twin that was listed all along is no start of anything.
            let fell_back = twins_before
                .iter()
                .any(|twin| twins::same_registration(twin, &instance));
            if !fell_back && restarted(&before.instance, &instance, rules.options) {
                self.ended.push((before.clone(), RemovalCause::Restarted));
                entry.generation = next(generations);
                entry.leaving = false;
                if rules.protected {
                    now = Health::Unknown;
                }
            }
            entry.instance = self.share(instance);
            self.changed = true;
        }
        self.changed |= before.held || now != *health;
        self.push(entry, now);
    }

    fn missing(&mut self, (before, health): (&Entry, &Health), rules: &Rules<'_>) {
        let held = match rules.missing {
            Missing::Remove => false,
            Missing::KeepHeld => before.held,
            Missing::Hold => before.held || before.standing.is_callable(),
        };
        if held {
            let mut entry = before.clone();
            entry.held = true;
            self.newly_held += u64::from(!before.held);
            self.keep_twins(before, rules);
            self.changed |= !before.held;
            self.push(entry, *health);
        } else {
            let cause = if before.held {
                RemovalCause::HoldEnded
            } else {
                RemovalCause::GoneFromList
            };
            self.ended.push((before.clone(), cause));
            self.changed = true;
        }
    }

    fn keep_twins(&mut self, entry: &Entry, rules: &Rules<'_>) {
        let address = entry.instance.address();
        if let Some(twins) = rules.twins.get(address) {
            self.twins.insert(address.clone(), twins.clone());
        }
    }

    /// Instances of one cluster mostly come together: let them share its name.
    fn share(&mut self, mut instance: Arc<Instance>) -> Arc<Instance> {
        match &self.last_cluster {
            Some(cluster) if **cluster == **instance.cluster() => {
                // Nobody else's is changed: who has it may have it shared already.
                if !Arc::ptr_eq(cluster, instance.cluster())
                    && let Some(instance) = Arc::get_mut(&mut instance)
                {
                    instance.set_cluster(Arc::clone(cluster));
                }
            }
            _ => self.last_cluster = Some(Arc::clone(instance.cluster())),
        }
        instance
    }
}

fn next(generations: &mut u64) -> Generation {
    *generations += 1;
    Generation(*generations)
}

fn restarted(before: &Instance, now: &Instance, options: &Options) -> bool {
    options
        .start_keys
        .iter()
        .any(|key| before.metadata().get(key) != now.metadata().get(key))
}
