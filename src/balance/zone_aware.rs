use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    balance::zones::{self, Zone},
    directory::{Revision, Subscription},
};

/// Keeps calls in the caller's zone as far as that carries its share, and no further.
///
/// Zones are Nacos's clusters. If a third of the callers and a fifth of the instances are in `HZ`, three fifths of
/// `HZ`'s calls stay there; the others go to the zones that have more instances than callers, in proportion
/// to what those have to spare. If all callers do so, every instance gets as many calls for its weight as any
/// other, and as few calls leave their zone as can be. Beside it,
/// [`prefer_cluster`](crate::balance::BalanceBuilder::prefer_cluster) keeps all calls at home until home has lost
/// more than 28 % of itself, however many callers there are: right where each zone is sized for its own callers,
/// and too much for a small zone with many.
///
/// It has to be known where the callers are: [`callers`](Self::callers) reads it from the registry,
/// [`caller_shares`](Self::caller_shares) says it. Where it is not known (nobody is listed, or nobody in the own
/// zone) calls go by weight, as without this, and one WARN says so: guessed shares would flood a zone.
///
/// What instances weigh is what can be called of them now, ejections included; an address that two clusters list
/// counts in both. A request that names a cluster ([`Hints`](crate::balance::Hints)) puts that first by the rules
/// of `prefer_cluster`, before the own zone. Of a merged subscription each tier of sources is divided so. Beyond
/// 64 clusters the others, by name, are one zone together.
///
/// Costs a pick what preferred clusters cost: one more draw. The callers' list is looked at with each
/// change of the service, and every 5 s.
///
/// Source: Envoy's zone aware routing, with its defaults. Envoy keeps all calls at home if no caller is known there.
///
/// ```
/// # use tower_nacos::{Balance, Instance, Subscription, balance::ZoneAware};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let make = |_: &Instance| tower::service_fn(async |n: u32| Ok::<_, std::convert::Infallible>(n));
/// # let (orders, shop) = (Subscription::fixed([]), Subscription::fixed([]));
/// // This is one of `shop`'s instances, in HZ, and calls `orders`.
/// let balance = Balance::builder(&orders)
///     .zone_aware(ZoneAware::new("HZ").callers(&shop))
///     .build(make);
/// # }
/// ```
#[derive(Clone)]
pub struct ZoneAware {
    home: Arc<str>,
    callers: Callers,
    min_instances: usize,
    /// In percent.
    enabled: f64,
}

#[derive(Clone)]
enum Callers {
    Unsaid,
    Listed(Subscription, Arc<Mutex<Counted>>),
    Given(Weights),
}

type Weights = Arc<BTreeMap<Arc<str>, f64>>;

/// What the callers of each zone weigh, at a revision of theirs.
#[derive(Default)]
struct Counted {
    at: Option<Revision>,
    weights: Weights,
}

/// Why calls go by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nobody is listed as a caller.
    Nobody,
    /// Nobody in the own zone is; those are others'.
    NobodyAtHome(String),
}

impl ZoneAware {
    /// For a caller in this zone. Which zones the others are in has to be said, too.
    pub fn new(home: impl Into<Arc<str>>) -> Self {
        Self {
            home: home.into(),
            callers: Callers::Unsaid,
            min_instances: 6,
            enabled: 100.0,
        }
    }

    /// The callers are the instances of this service, the caller's own: each counts as its weight says, if it is
    /// callable, in the cluster that it registered with. Keeps it subscribed.
    #[must_use]
    pub fn callers(mut self, service: &Subscription) -> Self {
        self.callers = Callers::Listed(service.clone(), Arc::default());
        self
    }

    /// What part of the calls comes from which zone, in any unit: percent, or numbers of callers. A zone that
    /// is there twice has both. For callers that are not in the registry.
    #[must_use]
    pub fn caller_shares<Z: Into<Arc<str>>>(
        mut self,
        shares: impl IntoIterator<Item = (Z, f64)>,
    ) -> Self {
        let mut weights = BTreeMap::new();
        for (zone, share) in shares {
            *weights.entry(zone.into()).or_default() += share;
        }
        self.callers = Callers::Given(Arc::new(weights));
        self
    }

    /// With fewer instances that can be called than this, calls go by weight: of two instances in two zones each
    /// would get what chance makes of its zone's callers. Default: 6, as Envoy's `min_cluster_size`.
    #[doc(alias = "min_cluster_size")]
    #[must_use]
    pub const fn min_instances(mut self, instances: usize) -> Self {
        self.min_instances = instances;
        self
    }

    /// Of how many calls in a hundred this is true; the others go by weight. For a change step by step.
    /// Default: 100, as Envoy's `routing_enabled`.
    #[must_use]
    pub const fn routing_enabled(mut self, percent: f64) -> Self {
        self.enabled = percent;
        self
    }

    /// The own zone.
    pub(super) const fn home(&self) -> &Arc<str> {
        &self.home
    }

    /// What of it cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.home.is_empty() {
            return Err("zone_aware without a name of the own zone".to_owned());
        }
        if !(0.0..=100.0).contains(&self.enabled) {
            return Err(format!(
                "zone_aware for {} % of the calls: not a number from 0 to 100",
                self.enabled
            ));
        }
        match &self.callers {
            Callers::Listed(..) => Ok(()),
            Callers::Unsaid => Err(format!(
                "zone_aware in {:?} without callers(..) or caller_shares(..): it has to be known where the callers are",
                self.home
            )),
            Callers::Given(shares) => self.check_shares(shares),
        }
    }

    fn check_shares(&self, shares: &BTreeMap<Arc<str>, f64>) -> Result<(), String> {
        let sane = |share: f64| share.is_finite() && share >= 0.0;
        if let Some((zone, share)) = shares.iter().find(|(_, share)| !sane(**share)) {
            return Err(format!(
                "zone_aware with a share of {share} of the callers in {zone:?}: neither 0 nor a positive number"
            ));
        }
        if !shares.values().sum::<f64>().is_finite() {
            return Err("zone_aware with shares of the callers that have no sum".to_owned());
        }
        if shares.get(&self.home).is_none_or(|share| *share == 0.0) {
            return Err(format!(
                "zone_aware in {:?} with no share of the callers there, where this one is",
                self.home
            ));
        }
        Ok(())
    }

    /// Whether who calls may change.
    pub(super) const fn is_followed(&self) -> bool {
        matches!(self.callers, Callers::Listed(..))
    }

    /// Why calls go by weight, if that is for want of callers; `None` also while it is not known who calls.
    pub(super) fn unknown(&self) -> Option<Unknown> {
        let weights = self.weights()?;
        if weights.values().all(|weight| *weight == 0.0) {
            return Some(Unknown::Nobody);
        }
        let at_home = weights.get(&self.home).is_some_and(|weight| *weight > 0.0);
        (!at_home).then(|| {
            let zones: Vec<&str> = weights.keys().map(|zone| &**zone).collect();
            Unknown::NobodyAtHome(zones.join(", "))
        })
    }

    /// The share of each zone: of the own one, those with these names, and of all others together, which is the
    /// last. `open` is what can be called of each, `instances` how many in all.
    pub(super) fn shares<'a>(
        &self,
        names: impl Iterator<Item = Option<&'a str>>,
        open: &[f64],
        instances: usize,
    ) -> Vec<f64> {
        let weights = self.weights().unwrap_or_default();
        let mut rest: f64 = weights.values().sum();
        let mut zones: Vec<Zone> = open
            .iter()
            .map(|open| Zone {
                callers: 0.0,
                open: *open,
            })
            .collect();
        for (zone, name) in zones.iter_mut().zip(names) {
            zone.callers = match name {
                Some(name) => weights.get(name).copied().unwrap_or(0.0),
                None => rest.max(0.0),
            };
            rest -= zone.callers;
        }
        let by_weight = zones::by_weight(&zones);
        if instances < self.min_instances {
            return by_weight;
        }
        let part = self.enabled / 100.0;
        let shares = zones::from_first(&zones).into_iter().zip(by_weight);
        shares
            .map(|(routed, plain)| routed * part + plain * (1.0 - part))
            .collect()
    }

    /// What the callers of each zone weigh; `None` while that is not known.
    fn weights(&self) -> Option<Weights> {
        let (service, counted) = match &self.callers {
            Callers::Unsaid => return None,
            Callers::Given(weights) => return Some(Arc::clone(weights)),
            Callers::Listed(service, counted) => (service, counted),
        };
        let snapshot = service.snapshot();
        if !snapshot.is_known() {
            return None;
        }
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.at != Some(snapshot.revision()) {
            let mut weights = BTreeMap::new();
            for entry in snapshot.callable() {
                let instance = entry.instance();
                let zone = weights.entry(Arc::clone(instance.cluster())).or_default();
                *zone += instance.weight().get();
            }
            *counted = Counted {
                at: Some(snapshot.revision()),
                weights: Arc::new(weights),
            };
        }
        Some(Arc::clone(&counted.weights))
    }
}

impl fmt::Debug for ZoneAware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ZoneAware");
        debug.field("home", &self.home);
        match &self.callers {
            Callers::Unsaid => {}
            Callers::Listed(service, _) => {
                debug.field("callers", service.key());
            }
            Callers::Given(shares) => {
                debug.field("caller_shares", shares);
            }
        }
        debug
            .field("min_instances", &self.min_instances)
            .field("routing_enabled", &self.enabled)
            .finish()
    }
}
