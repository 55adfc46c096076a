//! How much of the calls each cluster gets. Pure: weights and time are arguments.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::balance::zone_aware::ZoneAware;

/// Which sources and clusters come first, and what these should weigh.
#[derive(Clone, Debug, Default)]
pub(super) struct TierRules {
    /// The tiers of a merged subscription's sources, in order; each has all of the clusters. Nothing
    /// where they are all alike.
    pub(super) sources: Vec<u8>,
    /// How calls are divided among all clusters, in place of an order.
    pub(super) zones: Option<ZoneAware>,
    /// The own one first.
    pub(super) clusters: Vec<Arc<str>>,
    /// What the own one should weigh.
    pub(super) expected_own: Option<f64>,
    /// What others should, by cluster.
    pub(super) expected: Vec<(Arc<str>, f64)>,
}

/// What a cluster weighed at most in the last 10 minutes.
///
/// In Nacos the dead vanish from the list, so what is listed now says nothing of what is missing.
#[derive(Debug, Default)]
pub(super) struct Reference {
    current: f64,
    /// What it weighed before, and until when (in steps of 10 s, so there are few): ever later,
    /// ever less.
    former: VecDeque<(Instant, f64)>,
}

impl TierRules {
    /// Adds clusters, after those that there are.
    pub(super) fn prefer(&mut self, clusters: impl Iterator<Item = Arc<str>>) {
        for cluster in clusters {
            if !cluster.is_empty() && !self.clusters.contains(&cluster) {
                self.clusters.push(cluster);
            }
        }
    }

    /// What of zones cannot be meant.
    pub(super) fn check_zones(&self) -> Result<(), String> {
        let Some(zones) = &self.zones else {
            return Ok(());
        };
        zones.check()?;
        let beside = match (self.clusters.first(), self.expects()) {
            (Some(cluster), _) => format!("prefer_cluster({cluster:?})"),
            (None, true) => "expected_weight".to_owned(),
            (None, false) => return Ok(()),
        };
        Err(format!(
            "{beside} beside zone_aware: an order of clusters and a division among them; take one"
        ))
    }

    fn expects(&self) -> bool {
        self.expected_own.is_some() || !self.expected.is_empty()
    }

    /// Leaves out what makes no sense; returns what that was.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Err(complaint) = self.check_zones() {
            complaints.push(complaint);
            self.zones = None;
        } else if let Some(zones) = &self.zones {
            self.clusters = vec![Arc::clone(zones.home())];
        }
        match (self.expected_own.take(), self.clusters.first()) {
            (Some(weight), Some(own)) => self.expected.insert(0, (Arc::clone(own), weight)),
            (Some(weight), None) => complaints.push(format!(
                "expected_weight({weight}) without a preferred cluster"
            )),
            (None, _) => {}
        }
        self.expected.retain(|(cluster, weight)| {
            let sane = weight.is_finite() && *weight > 0.0;
            if !sane {
                complaints.push(format!("expected weight {weight} of cluster {cluster:?}"));
            }
            sane
        });
        complaints
    }

    /// The clusters in order, after one that a request puts first.
    pub(super) fn order<'a>(&'a self, first: Option<&'a Arc<str>>) -> Vec<&'a Arc<str>> {
        let mut order: Vec<&Arc<str>> = Vec::new();
        for cluster in first.into_iter().chain(&self.clusters) {
            if !order.contains(&cluster) {
                order.push(cluster);
            }
        }
        order
    }

    /// Which tiers of sources there are.
    pub(super) fn sources(&self) -> impl Iterator<Item = Option<u8>> {
        let none = self.sources.is_empty().then_some(None);
        self.sources.iter().copied().map(Some).chain(none)
    }

    /// What a cluster was said to weigh, in the first of the sources' tiers.
    pub(super) fn expected(&self, source: Option<u8>, cluster: &str) -> Option<f64> {
        if source != self.sources.first().copied() {
            return None;
        }
        let mut expected = self.expected.iter();
        let (_, weight) = expected.find(|(known, _)| **known == *cluster)?;
        Some(*weight)
    }
}

impl Reference {
    /// It weighs so much from now on.
    pub(super) fn observe(&mut self, weight: f64, now: Instant, epoch: Instant) {
        self.expire(now);
        if weight == self.current {
            return;
        }
        let steps = now.saturating_duration_since(epoch).as_secs() / STEP.as_secs() + 1;
        let until = epoch + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        let former = self.current;
        self.current = weight;
        while self.former.back().is_some_and(|(_, w)| *w <= former) {
            self.former.pop_back();
        }
        // Of two that end in the same step the larger counts.
        if former > 0.0 && self.former.back().is_none_or(|(last, _)| *last < until) {
            self.former.push_back((until, former));
        }
    }

    /// The most that it weighed, and when that may become less.
    pub(super) fn highest(&mut self, now: Instant) -> (f64, Option<Instant>) {
        self.expire(now);
        match self.former.front() {
            Some((until, weight)) if *weight > self.current => (*weight, Some(*until + MEMORY)),
            _ => (self.current, None),
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, _)) = self.former.front()
            && *until + MEMORY <= now
        {
            self.former.pop_front();
        }
    }
}

/// The share of each tier, in order, from what can be called of it and its reference weight. They
/// add up to 1, or to 0 if nothing can be called.
///
/// A tier can take 1.4 times its part of the reference: up to 28 % of it may be missing before
/// calls go elsewhere (Envoy's over-provisioning factor).
pub(super) fn shares(tiers: &[(f64, f64)]) -> Vec<f64> {
    let able = tiers.iter().map(|(callable, reference)| {
        if *reference > 0.0 && *callable > 0.0 {
            (OVER_PROVISIONED * callable / reference).min(1.0)
        } else {
            0.0
        }
    });
    let mut left = 1.0;
    let mut shares: Vec<f64> = able
        .map(|share| {
            let taken = share.min(left);
            left -= taken;
            taken
        })
        .collect();
    let total: f64 = shares.iter().sum();
    if total > 0.0 && left > 0.0 {
        // All together cannot take it all, and have to: in proportion to what each can.
        shares.iter_mut().for_each(|share| *share /= total);
    }
    shares
}

const OVER_PROVISIONED: f64 = 1.4;
/// For how long a weight counts after it has changed.
const MEMORY: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_shares(tiers: &[(f64, f64)], expected: &[f64]) {
        let shares = shares(tiers);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
        assert!(shares.iter().zip(expected).all(close), "{shares:?}");
    }

    #[test]
    fn the_own_cluster_takes_all_until_more_than_28_percent_are_gone() {
        assert_shares(&[(10.0, 10.0), (10.0, 10.0)], &[1.0, 0.0]);
        assert_shares(&[(8.0, 10.0), (10.0, 10.0)], &[1.0, 0.0]);
        assert_shares(&[(7.0, 10.0), (10.0, 10.0)], &[0.98, 0.02]);
        assert_shares(&[(1.0, 10.0), (10.0, 10.0)], &[0.14, 0.86]);
        assert_shares(&[(0.0, 10.0), (10.0, 10.0)], &[0.0, 1.0]);
    }

    #[test]
    fn tiers_take_what_is_left_in_order_and_those_without_reference_are_skipped() {
        assert_shares(
            &[(2.0, 10.0), (0.0, 0.0), (3.0, 10.0), (9.0, 10.0)],
            &[0.28, 0.0, 0.42, 0.30],
        );
        assert_shares(&[(0.0, 0.0), (5.0, 5.0)], &[0.0, 1.0]);
        assert_shares(&[(0.0, 0.0)], &[0.0]);
    }

    #[test]
    fn what_nobody_can_take_is_spread_in_proportion() {
        assert_shares(&[(1.0, 10.0), (3.0, 10.0)], &[0.25, 0.75]);
        assert_shares(&[(1.0, 10.0)], &[1.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_reference_is_the_highest_of_ten_minutes() {
        let epoch = crate::endpoint::now();
        let at = |seconds| epoch + Duration::from_secs(seconds);
        let mut reference = Reference::default();
        reference.observe(10.0, at(0), epoch);
        assert_eq!(
            reference.highest(at(10_000)).0,
            10.0,
            "it still weighs that"
        );
        reference.observe(4.0, at(10_005), epoch);
        reference.observe(6.0, at(10_105), epoch);
        reference.observe(1.0, at(10_205), epoch);
        assert_eq!(reference.highest(at(10_600)).0, 10.0);
        let (highest, until) = reference.highest(at(10_609));
        assert_eq!((highest, until), (10.0, Some(at(10_610))));
        assert_eq!(reference.highest(at(10_610)).0, 6.0);
        assert_eq!(reference.highest(at(10_810)), (1.0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reference_remembers_no_more_than_it_needs() {
        let epoch = crate::endpoint::now();
        let mut reference = Reference::default();
        for step in 0..100_000_u32 {
            let weight = f64::from(100_000 - step);
            reference.observe(weight, epoch + Duration::from_millis(100) * step, epoch);
        }
        assert!(reference.former.len() <= 62, "{}", reference.former.len());
    }
}
