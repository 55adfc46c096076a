use std::{fmt, sync::Arc, time::Duration};

use crate::{
    balance::{
        Policy, TrafficSplit,
        core::Core,
        pool::{Pool, Tier},
        shares::Arm,
        table::Table,
    },
    directory, endpoint,
    model::{Address, Source},
};

/// Why a balancer picks an instance or does not. Displays as a sentence.
///
/// Example: [a balancer that explains](crate::balance)
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BalanceExplanation {
    /// What the registry has to do with it.
    pub registry: directory::SubscriptionExplanation,
    /// Whether this balancer picks it.
    pub verdict: Pickable,
    /// Its share of the calls that ask for nothing, by the weights of all that can be picked and by
    /// what [`split`](crate::balance::BalanceBuilder::split) says, from 0 to 1; 0 if it cannot.
    pub share: f64,
    /// The cluster and the sources' tier that it is picked for, if clusters are preferred or the sources
    /// of a merged subscription have several tiers.
    pub tier: Option<TierShare>,
    /// What part of its weight it has while it warms up; see
    /// [`SlowStart`](crate::balance::SlowStart).
    pub warmth: Option<f64>,
    /// Whether it can be reached again but has not answered yet: if it cannot be reached once more
    /// before that, it rests longer than the last time.
    pub on_probation: bool,
    /// Why its [`HealthCheck`](crate::endpoint::HealthCheck) refuses it, if it does: also while that is not
    /// obeyed, since too many are out.
    pub refusal: Option<Arc<str>>,
    /// Whether so many instances are out that nobody is ejected for what calls tell, nor for what health checks
    /// say.
    pub panic: Option<Panic>,
    /// What it is doing, if this balancer has looked at it.
    pub activity: Option<Activity>,
}

/// More instances are out than the balancer's
/// [`panic_threshold`](crate::balance::Outliers::panic_threshold) says: each that can be reached is
/// called, however it answers.
///
/// Example: [a balancer that explains](crate::balance)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panic {
    /// How many callable instances are out, which now means: cannot be reached, or are refused by health
    /// checks that are not obeyed.
    pub out: usize,
    /// How many callable instances there are.
    pub callable: usize,
}

/// Whether a balancer picks an instance.
///
/// Example: [a balancer that explains](crate::balance)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pickable {
    /// It does.
    Yes,
    /// The registry's list does not let it.
    NotCallable,
    /// It would, but clusters that are preferred to its own take all calls. It is called when they
    /// cannot, or when a request asks for it.
    #[non_exhaustive]
    OtherCluster {
        /// The first of those that do; `None` for those that are not preferred.
        taken_by: Option<Arc<str>>,
    },
    /// It would, but sources of a lower tier take all calls. It is called when they cannot. See
    /// [`Subscription::merge`](crate::Subscription::merge).
    #[non_exhaustive]
    OtherTier {
        /// The first of those that do.
        taken_by: u8,
    },
    /// It lost a connection with a call on it, and a dial is to tell what that means. Calls that
    /// have nobody else wait for that.
    Suspect,
    /// No connection to it could be had. It gets no call until a probe succeeds.
    #[non_exhaustive]
    Ejected {
        /// When the next probe is due; `None` while one is on offer or on its way.
        probe_in: Option<Duration>,
    },
    /// It answered badly, or lost what it was given, too often in a row. It gets no call until a
    /// probe goes well, or until too many others are out, too; see
    /// [`Outliers`](crate::balance::Outliers).
    #[non_exhaustive]
    Outlier {
        /// When the probe is due; `None` while one is on offer or on its way.
        probe_in: Option<Duration>,
    },
    /// Its [`HealthCheck`](crate::endpoint::HealthCheck) refuses it. It gets no call until that passes, but
    /// of those that have nobody else, or until too many others are out.
    #[non_exhaustive]
    Refused {
        /// What the check found.
        reason: Arc<str>,
    },
    /// Making its service panicked.
    #[non_exhaustive]
    Unusable {
        /// What the panic said.
        reason: Arc<str>,
    },
    /// It would, but this caller calls other instances; see [`Subset`](crate::balance::Subset). It is called when too few of
    /// those can be.
    #[non_exhaustive]
    OutsideSubset {
        /// How many this caller calls of its cluster and tier now.
        called: usize,
        /// Of how many.
        of: usize,
    },
    /// It would, but the traffic split gives nothing to instances with its metadata. It is called when
    /// those that get something cannot be, or when a request asks for it; see
    /// [`TrafficSplit`].
    NoShare,
}

/// What one instance is doing for one balancer, since this presence of it began.
///
/// Example: [a balancer that explains](crate::balance)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Calls that were let in.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Calls that were let in and have not ended.
    pub in_flight: u64,
    /// Calls that wait for its service to be made or to become ready, or for room, and may yet go elsewhere.
    pub waiting: u64,
    /// How many calls it gets at once now, if that is limited; see
    /// [`AdaptiveConcurrency`](crate::balance::AdaptiveConcurrency). What counts are those that it has not answered.
    pub limit: Option<u32>,
}

/// What [`BalanceExplanation::tier`] says.
///
/// Example: [a balancer that explains](crate::balance)
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TierShare {
    /// The cluster that the tier is of; `None` for all that are not preferred.
    pub cluster: Option<Arc<str>>,
    /// What part of all calls it gets now, from 0 to 1.
    pub share: f64,
    /// The tier of the sources that it is of; `None` where there are none, or all have one.
    pub source: Option<u8>,
}

/// Where an instance stands in a balancer's table.
struct Standing {
    share: f64,
    part: f64,
    tiers: Vec<TierShare>,
    /// The first tier that gets any.
    first: Option<TierShare>,
    /// Which sources' tier it is in.
    source: Option<u8>,
    /// How many are called of those beside it, if it is not, and how many there are.
    outside: Option<[usize; 2]>,
}

pub(super) fn explain<S, P: Policy, R, C, V>(
    core: &Core<S, P, R, C, V>,
    address: &Address,
) -> BalanceExplanation {
    core.refresh(endpoint::now()); // makes endpoints of what is new
    let subscription = core.shared.subscription();
    let registry = subscription.explain(address);
    let endpoint = core.set().find_endpoint(address);
    explain_with(core, registry, endpoint)
}

/// The same of what is found already. Takes no lock that a pick waits for.
pub(super) fn explain_with<S, P: Policy, R, C, V>(
    core: &Core<S, P, R, C, V>,
    registry: directory::SubscriptionExplanation,
    endpoint: Option<Arc<endpoint::Endpoint<S>>>,
) -> BalanceExplanation {
    let address = &registry.address.clone();
    let callable = registry.is_callable();
    let refusal = endpoint.as_ref();
    let refusal = refusal.and_then(|endpoint| core.set().refusal(endpoint.generation()));
    let mut verdict = if callable {
        Pickable::Yes
    } else {
        Pickable::NotCallable
    };
    if let (true, Some(endpoint)) = (callable, &endpoint) {
        let gate = endpoint.gate.state();
        if let (true, Some(reason)) = (gate.is_unusable(), endpoint.slot.unusable()) {
            verdict = Pickable::Unusable { reason };
        } else if gate.is_suspect() {
            verdict = Pickable::Suspect;
        } else if gate.is_ejected() {
            let due = endpoint.probe_due();
            let now = endpoint::now();
            let probe_in = due.map(|due| due.saturating_duration_since(now));
            verdict = if endpoint.standing() == endpoint::Standing::Outlier {
                Pickable::Outlier { probe_in }
            } else {
                Pickable::Ejected { probe_in }
            };
        } else if let (true, Some(reason)) = (gate.is_refused(), &refusal) {
            let reason = Arc::clone(reason);
            verdict = Pickable::Refused { reason };
        } else if !gate.is_open() {
            verdict = Pickable::NotCallable; // its closing is just being published
        }
    }
    let crowd = core.set().crowd();
    let outliers = core.set().settings().outcomes();
    let panic = outliers.is_some_and(|rules| crowd.is_panic(rules));
    let panic = panic || core.set().lifts_refusals();
    let standing = callable.then(|| standing(core, address)).flatten();
    let mut explanation = BalanceExplanation {
        registry,
        verdict,
        share: 0.0,
        tier: None,
        warmth: None,
        on_probation: endpoint.as_ref().is_some_and(|e| e.is_on_probation()),
        refusal,
        panic: panic.then_some(Panic {
            out: crowd.out,
            callable: crowd.callable,
        }),
        activity: endpoint.map(|endpoint| {
            let [calls, failures] = endpoint.calls();
            Activity {
                calls,
                failures,
                in_flight: endpoint.gate.state().in_flight(),
                waiting: endpoint.waiting(),
                limit: endpoint.limit().map(|[limit, _]| limit),
            }
        }),
    };
    if let (Pickable::Yes, Some(standing)) = (&explanation.verdict, standing) {
        explanation.share = standing.share;
        explanation.warmth = (standing.part < 1.0).then_some(standing.part);
        let nothing = standing.tiers.iter().all(|tier| tier.share == 0.0);
        if let Some([called, of]) = standing.outside {
            explanation.verdict = Pickable::OutsideSubset { called, of };
        } else if let (true, Some(first)) = (nothing, standing.first) {
            explanation.verdict = match first.source {
                Some(taken_by) if standing.source != first.source => {
                    Pickable::OtherTier { taken_by }
                }
                _ => Pickable::OtherCluster {
                    taken_by: first.cluster,
                },
            };
        }
        let tiers = standing.tiers.into_iter();
        explanation.tier = tiers.max_by(|a, b| a.share.total_cmp(&b.share));
        if let Some(split) = &core.options.split {
            explain_split(core, split, address, &mut explanation);
        }
    }
    explanation
}

fn standing<S, P: Policy, R, C, V>(
    core: &Core<S, P, R, C, V>,
    address: &Address,
) -> Option<Standing> {
    let table = core.table.load();
    let table = table.get()?;
    let place = table.find(address)?;
    let instance = table.roster.endpoints().get(place)?.instance();
    let tiers = &table.base.tiers;
    let told = |tier: &Tier<P::Table>| TierShare {
        cluster: tier.cluster.clone(),
        share: tier.share(),
        source: tier.source,
    };
    let several = tiers.len() > 1;
    let mut standing = Standing {
        share: 0.0,
        part: match table.is_reweighted() {
            true => table.weight(place) / instance.weight().get(),
            false => 1.0,
        },
        tiers: Vec::new(),
        first: tiers.iter().find(|t| several && t.share() > 0.0).map(told),
        source: instance.source().map(Source::tier),
        outside: tiers
            .iter()
            .find_map(|tier| Some([tier.len, tier.leaves_out(place)?])),
    };
    standing.share = share_in(&table.base, place, table);
    if several {
        let those = tiers.iter().filter(|tier| tier.find(place).is_some());
        standing.tiers.extend(those.map(told));
    }
    if let Some(split) = &core.options.split {
        standing.share = share_of_split(split, standing.share, place, table);
    }
    Some(standing)
}

/// Where calls are split each part has clusters of its own, and what was said of everybody's is not so.
fn explain_split<S, P: Policy, R, C, V>(
    core: &Core<S, P, R, C, V>,
    split: &TrafficSplit,
    address: &Address,
    explanation: &mut BalanceExplanation,
) {
    let shares = split.shares();
    let table = core.table.load();
    let Some(table) = table.get().filter(|_| !shares.arms().is_empty()) else {
        return;
    };
    explanation.tier = None;
    if explanation.share > 0.0 {
        explanation.verdict = Pickable::Yes;
        return;
    }
    let place = table.find(address);
    let endpoint = place.and_then(|place| table.roster.endpoints().get(place));
    let instance = endpoint.map(|endpoint| endpoint.instance());
    let takes = |arm: &&Arm| {
        let instance = instance.as_ref();
        instance.is_some_and(|i| arm.percent > 0.0 && arm.scope.takes(i))
    };
    let Some(arm) = shares.arms().iter().find(takes) else {
        explanation.verdict = Pickable::NoShare;
        return;
    };
    if explanation.verdict == Pickable::Yes {
        let asked = table.pool(&arm.scope);
        let pool = asked.as_ref().and_then(|asked| asked.get());
        let first = pool.and_then(|pool| pool.tiers.iter().find(|tier| tier.share() > 0.0));
        explanation.verdict = Pickable::OtherCluster {
            taken_by: first.and_then(|tier| tier.cluster.clone()),
        };
    }
}

/// The share that the instance at `place` has of the calls that a pool gets.
fn share_in<S, T>(pool: &Pool<T>, place: usize, table: &Table<S, T>) -> f64 {
    let endpoints = table.roster.endpoints();
    let tiers = pool.tiers.iter().filter(|tier| tier.find(place).is_some());
    let shares = tiers.map(|tier| {
        let weight = |at| {
            tier.weight(at)
                .unwrap_or_else(|| table.weight(tier.place(at)))
        };
        let open = (0..tier.len).filter(|at| {
            let endpoint = endpoints.get(tier.place(*at));
            endpoint.is_some_and(|endpoint| endpoint.gate.state().is_open())
        });
        let total: f64 = open.map(weight).sum();
        let weight = tier.find(place).map_or(0.0, weight);
        if total > 0.0 {
            tier.share() * weight / total
        } else {
            0.0
        }
    });
    shares.sum()
}

/// The same of all calls, if they are split: of each part what it gets there, and what it gets of
/// what its part leaves to everybody. A part that nobody was sent to yet is taken for one that does.
fn share_of_split<S, T>(
    split: &TrafficSplit,
    of_rest: f64,
    place: usize,
    table: &Table<S, T>,
) -> f64 {
    let shares = split.shares();
    if shares.arms().is_empty() {
        return of_rest;
    }
    let parts = shares.arms().iter().map(|arm| {
        let asked = table.pool(&arm.scope);
        let of_part = asked.as_ref().and_then(|asked| asked.get()).map(|pool| {
            let open = pool.left() > 0.0;
            let kept = match split.spills_below() {
                Some(below) if open => (pool.left() / below).min(1.0),
                _ => f64::from(u8::from(open)),
            };
            kept * share_in(pool, place, table) + (1.0 - kept) * of_rest
        });
        arm.percent / 100.0 * of_part.unwrap_or(of_rest)
    });
    parts.sum()
}

impl BalanceExplanation {
    /// Whether this balancer picks it.
    pub fn is_pickable(&self) -> bool {
        self.verdict == Pickable::Yes
    }
}

#[cfg(feature = "status")]
impl BalanceExplanation {
    /// The verdict in words, without calls and the registry's part.
    pub(crate) fn in_words(&self) -> String {
        struct Words<'a>(&'a BalanceExplanation);
        impl fmt::Display for Words<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_verdict(f)
            }
        }
        Words(self).to_string()
    }
}

impl BalanceExplanation {
    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Pickable::Yes => write!(f, "picked, {:.1} % of the weight", self.share * 100.0)?,
            Pickable::NotCallable => f.write_str("not picked")?,
            Pickable::OtherCluster { taken_by } => {
                f.write_str("not picked: ")?;
                match taken_by {
                    Some(cluster) => write!(f, "cluster {cluster} takes all calls")?,
                    None => f.write_str("other clusters take all calls")?,
                }
            }
            Pickable::OtherTier { taken_by } => {
                write!(f, "not picked: sources of tier {taken_by} take all calls")?;
            }
            Pickable::Suspect => {
                f.write_str("not picked: it lost a connection, and a dial finds out why")?;
            }
            Pickable::Ejected { probe_in } => {
                f.write_str("not picked: it could not be reached")?;
                write_probe(f, *probe_in)?;
            }
            Pickable::Outlier { probe_in } => {
                f.write_str("not picked: it answered badly too often")?;
                write_probe(f, *probe_in)?;
            }
            Pickable::Refused { reason } => {
                write!(f, "not picked: its health check refuses it: {reason}")?;
            }
            Pickable::Unusable { reason } => {
                write!(f, "not picked: making its service panicked: {reason}")?;
            }
            Pickable::OutsideSubset { called, of } => {
                write!(
                    f,
                    "not picked: outside of this caller's subset, {called} of {of}"
                )?;
            }
            Pickable::NoShare => f.write_str("not picked: the traffic split gives it nothing")?,
        }
        if let (Pickable::Yes, Some(tier)) = (&self.verdict, &self.tier) {
            match (&tier.cluster, tier.source) {
                (Some(cluster), None) => write!(f, "; cluster {cluster} gets")?,
                (Some(cluster), Some(tier)) => {
                    write!(f, "; cluster {cluster} of tier {tier} gets")?
                }
                (None, None) => f.write_str("; the clusters that are not preferred get")?,
                (None, Some(tier)) => write!(f, "; tier {tier} gets")?,
            }
            write!(f, " {:.1} % of the calls", tier.share * 100.0)?;
        }
        if let Some(part) = self.warmth {
            write!(f, "; warming up, at {:.0} % of its weight", part * 100.0)?;
        }
        if self.on_probation {
            f.write_str("; on probation until it answers")?;
        }
        if let (Some(reason), false) = (
            &self.refusal,
            matches!(self.verdict, Pickable::Refused { .. }),
        ) {
            write!(f, "; its health check refuses it: {reason}")?;
        }
        if let Some(Panic { out, callable }) = self.panic {
            write!(
                f,
                "; panic: {out} of {callable} are out, so nobody is ejected for answers"
            )?;
            if self.refusal.is_some() {
                f.write_str(" or for what its health check says")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for BalanceExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_verdict(f)?;
        if let Some(activity) = &self.activity {
            if self.verdict == Pickable::NotCallable && activity.in_flight > 0 {
                write!(f, "; draining {}", activity.in_flight)?;
            }
            write!(
                f,
                "; {} calls, {} failed, {} in flight, {} waiting",
                activity.calls, activity.failures, activity.in_flight, activity.waiting
            )?;
            if let Some(limit) = activity.limit {
                write!(f, "; limited to {limit} at once")?;
            }
        }
        write!(f, "; {}", self.registry)
    }
}

fn write_probe(f: &mut fmt::Formatter<'_>, due: Option<Duration>) -> fmt::Result {
    match due {
        Some(due) => write!(f, "; next probe in {:.1} s", due.as_secs_f64()),
        None => f.write_str(", and a probe is on its way"),
    }
}
