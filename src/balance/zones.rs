//! How much of the calls that come from one zone each zone gets. Pure.
//!
//! The arithmetic is Envoy's (zone aware routing): the calls of a zone stay there as far as its share of the
//! capacity goes, and what is too much for it goes to those that have more capacity than callers of their own, in
//! proportion to what they have left. If all callers do so, each zone gets its share of the capacity.

/// One zone: what part of the calls comes from it, and what can be called in it weighs. Each in a unit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Zone {
    pub(super) callers: f64,
    pub(super) open: f64,
}

/// The share that each zone gets of the calls from the first. They add up to 1, or to 0 if nothing can be called.
///
/// By weight, if it is not known where the calls of the first come from.
pub(super) fn from_first(zones: &[Zone]) -> Vec<f64> {
    let by_weight = by_weight(zones);
    let callers: f64 = zones.iter().map(|zone| zone.callers).sum();
    let (Some(home), Some(of_home)) = (zones.first(), by_weight.first()) else {
        return by_weight;
    };
    // Numbers so large that they have no sum say nothing.
    if home.callers <= 0.0 || !callers.is_finite() {
        return by_weight;
    }
    let calls_of_home = home.callers / callers;
    if *of_home >= calls_of_home {
        let mut shares = vec![0.0; zones.len()];
        shares[0] = 1.0;
        return shares;
    }
    let spare = |(zone, weight): (&Zone, &f64)| (weight - zone.callers / callers).max(0.0);
    let mut shares: Vec<f64> = zones.iter().zip(&by_weight).map(spare).collect();
    let left: f64 = shares.iter().sum();
    if left <= 0.0 {
        return by_weight; // nothing can be called, or a rounding error is all there is
    }
    let stays = of_home / calls_of_home;
    shares
        .iter_mut()
        .for_each(|share| *share *= (1.0 - stays) / left);
    shares[0] = stays; // it had none to spare
    shares
}

/// The share that each has of what can be called.
pub(super) fn by_weight(zones: &[Zone]) -> Vec<f64> {
    let total: f64 = zones.iter().map(|zone| zone.open).sum();
    let part = |zone: &Zone| match total > 0.0 && total.is_finite() {
        true => zone.open / total,
        false => 0.0,
    };
    zones.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zones(zones: &[(f64, f64)]) -> Vec<Zone> {
        let zone = |(callers, open): &(f64, f64)| Zone {
            callers: *callers,
            open: *open,
        };
        zones.iter().map(zone).collect()
    }

    #[track_caller]
    fn assert_shares(of: &[(f64, f64)], expected: &[f64]) {
        let shares = from_first(&zones(of));
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
        assert!(
            shares.len() == expected.len() && shares.iter().zip(expected).all(close),
            "{shares:?}"
        );
    }

    /// What the load of each zone is, of its capacity, if all callers do so: 1 where it is fair.
    fn loads(of: &[Zone]) -> Vec<f64> {
        let (callers, fair) = (of.iter().map(|z| z.callers).sum::<f64>(), by_weight(of));
        let mut loads = vec![0.0; of.len()];
        for home in 0..of.len() {
            let mut seen = of.to_vec();
            seen.swap(0, home);
            let mut shares = from_first(&seen);
            shares.swap(0, home);
            for (load, share) in loads.iter_mut().zip(shares) {
                *load += share * of[home].callers / callers;
            }
        }
        let of_fair = loads.iter().zip(fair);
        of_fair
            .map(|(load, fair)| if fair > 0.0 { load / fair } else { 1.0 + load })
            .collect()
    }

    /// Callers and instances of the tests of Envoy's `load_balancer_impl_test.cc`, by the names they have there.
    #[test]
    fn the_cases_that_envoy_has() {
        // "If local percentage is 20% and upstream is 10% we can route only 50% of requests directly."
        assert_shares(&[(20.0, 10.0), (80.0, 90.0)], &[0.5, 0.5]);
        // ZoneAwareRoutingLargeZone: as many callers as instances.
        assert_shares(&[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], &[1.0, 0.0, 0.0]);
        // ZoneAwareRoutingSmallZone: a third of the calls, a fifth of the instances.
        assert_shares(&[(1.0, 1.0), (1.0, 2.0), (1.0, 2.0)], &[0.6, 0.2, 0.2]);
        // ZoneAwareNoMatchingZones: A, B and C call; D, E and F are called.
        let none = (1.0, 0.0);
        assert_shares(
            &[none, none, none, (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)],
            &[0.0, 0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
        );
        // ZoneAwareEmptyLocalities: A to I as seen from A; C and F have 8.33 % to spare, E and H 16.67 %.
        assert_shares(
            &[
                (1.0, 0.0),
                (0.0, 0.0),
                (1.0, 2.0),
                (1.0, 0.0),
                (0.0, 1.0),
                (1.0, 2.0),
                (0.0, 0.0),
                (0.0, 1.0),
                (0.0, 0.0),
            ],
            &[
                0.0,
                0.0,
                1.0 / 6.0,
                0.0,
                1.0 / 3.0,
                1.0 / 6.0,
                0.0,
                1.0 / 3.0,
                0.0,
            ],
        );
        // NoZoneAwareNotEnoughLocalZones: one zone of callers sends by weight, which needs no rule of its own.
        assert_shares(&[(1.0, 1.0), (0.0, 1.0)], &[0.5, 0.5]);
        // NoZoneAwareNotEnoughUpstreamZones: nor does one zone to be called.
        assert_shares(&[(1.0, 1.0), (1.0, 0.0)], &[1.0, 0.0]);
        assert_shares(&[(1.0, 0.0), (1.0, 1.0)], &[0.0, 1.0]);
    }

    #[test]
    fn what_is_not_known_goes_by_weight_and_nothing_to_nobody() {
        assert_shares(&[(0.0, 1.0), (1.0, 3.0)], &[0.25, 0.75]);
        assert_shares(&[(0.0, 1.0), (0.0, 3.0)], &[0.25, 0.75]);
        assert_shares(&[(f64::MAX, 1.0), (f64::MAX, 3.0)], &[0.25, 0.75]);
        assert_shares(&[(1.0, 0.0), (1.0, 0.0)], &[0.0, 0.0]);
        assert_shares(&[(1.0, f64::MAX), (1.0, f64::MAX)], &[0.0, 0.0]);
        assert_shares(&[], &[]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_every_zone_gets_its_part_of_the_whole(
            of in prop::collection::vec((0_u32..100, 0_u32..100), 1..12)
        ) {
            let of: Vec<_> = of.into_iter().map(|(c, o)| (f64::from(c), f64::from(o))).collect();
            let of = zones(&of);
            let shares = from_first(&of);
            let sum: f64 = shares.iter().sum();
            let some = of.iter().any(|zone| zone.open > 0.0);
            prop_assert!((sum - f64::from(u8::from(some))).abs() < 1e-9, "{shares:?}");
            prop_assert!(shares.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)), "{shares:?}");
            for (zone, share) in of.iter().zip(&shares) {
                prop_assert!(zone.open > 0.0 || *share == 0.0, "{shares:?}");
            }
            if some && of.iter().any(|zone| zone.callers > 0.0) {
                let loads = loads(&of);
                prop_assert!(loads.iter().all(|load| (load - 1.0).abs() < 1e-6), "{loads:?}");
            }
        }

        #[test]
        fn no_zone_sends_away_what_home_has_room_for(
            of in prop::collection::vec((1_u32..100, 1_u32..100), 2..12)
        ) {
            let of: Vec<_> = of.into_iter().map(|(c, o)| (f64::from(c), f64::from(o))).collect();
            let of = zones(&of);
            let callers: f64 = of.iter().map(|zone| zone.callers).sum();
            let room = by_weight(&of)[0] / (of[0].callers / callers);
            let stays = from_first(&of)[0];
            prop_assert!((stays - room.min(1.0)).abs() < 1e-9, "{stays} of {room}");
        }
    }
}
