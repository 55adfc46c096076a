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
        let (generations, endpoints) = (&*self.generations, roster.endpoints());
        if !Arc::ptr_eq(&former, &self.generations) {
            // What begins and ends both stays where it is.
            let begin = alike(former.iter().zip(generations));
            let pairs = former[begin..].iter().rev();
            let end = alike(pairs.zip(generations[begin..].iter().rev()));
            let (old, new) = (begin..former.len() - end, begin..generations.len() - end);
            let mut known = Known::new(&former[old.clone()]);
            let mut before: Vec<_> = self.listed.drain(old).map(Some).collect();
            let between = generations[new.clone()].iter().zip(&endpoints[new]);
            let between = between.map(|(generation, endpoint)| {
                let kept = known.find(*generation).and_then(|at| before[at].take());
                kept.unwrap_or_else(|| Candidate::new(endpoint.instance()))
            });
            let between: Vec<_> = between.collect();
            self.listed.splice(begin..begin, between);
        }
        // In the roster's order, if it is the roster's; where it is not the endpoint says what it is.
        let mut entries = snapshot.callable();
        let all = self.listed.iter_mut().zip(generations).zip(endpoints);
        for ((candidate, generation), endpoint) in all {
            let entry = entries.next();
            match entry.filter(|entry| entry.generation() == *generation) {
                Some(entry) if Arc::ptr_eq(entry.instance(), candidate.instance()) => {}
                Some(entry) => *candidate = Candidate::new(Arc::clone(entry.instance())),
                None => *candidate = Candidate::new(endpoint.instance()),
            }
        }
    }
}

/// How many pairs, from the first, are of the same.
fn alike<'a>(pairs: impl Iterator<Item = (&'a Generation, &'a Generation)>) -> usize {
    let mut alike = 0;
    for (one, other) in pairs {
        if one != other {
            break;
        }
        alike += 1;
    }
    alike
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            generations: Arc::new([]),
            listed: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures_util::FutureExt;
    use tower::Service;

    use super::*;
    use crate::{
        balance::{Balance, Loads, PickContext, Policy, Random},
        directory,
        endpoint::now,
        model::{Instance, ServiceKey, Weight},
    };

    /// Remembers whom its table is of, and picks who is wanted.
    #[derive(Clone, Default)]
    struct Wanted {
        candidates: Arc<Mutex<Vec<Candidate>>>,
        wanted: Arc<AtomicUsize>,
    }

    impl Policy for Wanted {
        type Table = ();

        fn build(&self, candidates: &[Candidate]) {
            *self.candidates.lock().unwrap() = candidates.to_vec();
        }

        fn pick(&self, (): &(), _: &dyn Loads, _: &mut Random, _: &PickContext) -> Option<usize> {
            Some(self.wanted.load(SeqCst))
        }
    }

    /// Whatever comes, leaves or changes: a table that was made from the former one is as one made anew, and
    /// each place leads to its own instance.
    #[test]
    fn what_is_kept_is_what_would_be_made_anew() {
        let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
        let (mut writer, orders) = directory::channel(key, directory::Options::default());
        let policy = Wanted::default();
        let balance = Balance::builder(&orders).policy(policy.clone());
        let mut balance = balance.build(|instance: &Instance| {
            let address = instance.address().to_string();
            tower::service_fn(move |()| {
                std::future::ready(Ok::<_, std::io::Error>(address.clone()))
            })
        });
        let mut random = Random::seeded(16);
        for step in 0..300 {
            // Few changes at a time, and now and then many.
            let (gone, other) = match step % 10 {
                0 => (0.5, 0.3),
                5 => (0.0, 0.0),
                _ => (0.03, 0.03),
            };
            let instances: Vec<Instance> = (0..60)
                .filter_map(|at| {
                    let there = random.unit() >= gone;
                    let weight = match random.unit() < other {
                        true => random.below(3) as f64, // 0 is not callable
                        false => 1.0,
                    };
                    let address = format!("10.0.{}.{at}:80", at % 3);
                    let instance = Instance::parse(&address).unwrap();
                    there.then(|| instance.with_weight(Weight::new(weight)))
                })
                .collect();
            writer.publish(instances, now().into_std());
            let snapshot = orders.snapshot();
            for (place, entry) in snapshot.callable().enumerate() {
                policy.wanted.store(place, SeqCst);
                let answer = balance.call(()).now_or_never();
                let answer = answer.expect("it is ready").unwrap();
                assert_eq!(answer, entry.instance().address().to_string(), "{step}");
            }
            let candidates = policy.candidates.lock().unwrap();
            assert_eq!(candidates.len(), snapshot.callable_len(), "{step}");
            for (candidate, entry) in candidates.iter().zip(snapshot.callable()) {
                assert!(
                    Arc::ptr_eq(candidate.instance(), entry.instance()),
                    "{step}"
                );
                assert_eq!(candidate.weight(), entry.instance().weight().get());
            }
        }
    }
}
