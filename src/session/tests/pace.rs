use std::time::{Duration, Instant};

use super::world::{MS, SEC, World};
use crate::session::pace::Pace;

#[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
fn start() -> Instant {
    Instant::now()
}

/// Delay and error of the last push, in ms.
fn delay(pace: &Pace) -> Option<(f64, f64)> {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    pace.pushes()
        .map(|(lately, error)| (ms(lately.last), ms(error)))
}

#[test]
fn a_push_delay_is_told_whatever_the_servers_clock_shows() {
    // Of 1970, of today, of a machine that believes in the year 2100, and negative.
    for stamp in [5, 1_795_251_086_000, 4_102_444_800_000, -7_000] {
        let begin = start();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut pace = Pace::default();
        pace.pushed(stamp, at(0));
        assert_eq!(delay(&pace), None, "nothing to compare it with");
        // Asked at 0 and answered at 4: the stamp is of the middle, 2, give or take 2.
        pace.told(stamp, at(0), at(4));
        pace.pushed(stamp + 998, at(1_050));
        let (took, error) = delay(&pace).unwrap();
        assert!((took - 50.0).abs() <= error, "{took} ± {error}");
        assert!(
            error > 2.9 && error < 3.2,
            "{error}: round trip, resolution and drift"
        );
        // One that is quicker than the error never counts as less than nothing.
        pace.pushed(stamp + 1_999, at(2_001));
        let (took, error) = delay(&pace).unwrap();
        assert!(took >= 0.0 && took - error <= 0.001, "{took} ± {error}");
    }
}

#[test]
fn a_clock_that_steps_makes_the_delay_unknown_until_the_next_answer() {
    let begin = start();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    for step in [3_600_000, -3_600_000, -61_000, 100] {
        let mut pace = Pace::default();
        pace.told(1_000_000, at(0), at(2));
        pace.pushed(1_000_101, at(105));
        assert!(delay(&pace).is_some());
        pace.pushed(1_000_201 + step, at(205));
        assert_eq!(delay(&pace), None, "a step of {step} ms");
        pace.pushed(1_000_301 + step, at(305));
        assert_eq!(delay(&pace), None, "nothing to compare with");
        pace.told(1_000_401 + step, at(400), at(402));
        pace.pushed(1_000_501 + step, at(505));
        let (took, error) = delay(&pace).unwrap();
        assert!((took - 4.0).abs() <= error, "{took} ± {error}");
    }
    // An answer that contradicts what was known counts, however long it took.
    let mut pace = Pace::default();
    pace.told(1_000_000, at(0), at(2));
    pace.told(5_000_000, at(100), at(400));
    pace.pushed(5_001_000, at(1_300));
    let (took, error) = delay(&pace).unwrap();
    assert!((took - 50.0).abs() <= error, "{took} ± {error}");
}

#[test]
fn the_quickest_answer_counts_until_drift_has_made_it_worse() {
    let begin = start();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let mut pace = Pace::default();
    pace.told(1_000, at(0), at(2));
    pace.told(2_000, at(900), at(1_100)); // agrees, and says less
    pace.pushed(3_000, at(2_010));
    assert!(delay(&pace).unwrap().1 < 3.0);
    // An hour later the clocks may have parted by 360 ms.
    pace.told(3_601_000, at(3_600_000), at(3_600_100));
    pace.pushed(3_602_000, at(3_601_100));
    let (took, error) = delay(&pace).unwrap();
    assert!(error < 60.0, "{error}");
    assert!((took - 50.0).abs() <= error + 50.0, "{took}");
    // What could be anything is not told.
    let mut pace = Pace::default();
    pace.told(1_000, at(0), at(2));
    pace.pushed(86_401_000, at(86_400_010));
    assert_eq!(delay(&pace), None);
}

#[test]
fn no_stamp_is_too_large_or_too_small() {
    let begin = start();
    for first in [i64::MIN, -1, 0, 1, i64::MAX] {
        for second in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut pace = Pace::default();
            pace.told(first, begin, begin);
            pace.told(second, begin, begin + SEC);
            pace.pushed(second, begin + SEC);
            pace.pushed(first, begin + SEC);
            let _ = delay(&pace);
        }
    }
    let mut pace = Pace::default();
    pace.answered(begin + SEC, begin); // not even clocks that go back
    assert_eq!(pace.answers().unwrap().last, Duration::ZERO);
}

#[test]
fn round_trips_and_push_delays_are_those_of_the_connection() {
    let mut world = World::connected();
    let round_trip = world.script.latency;
    assert!(round_trip > Duration::ZERO);
    let pace = world.session.pace().unwrap();
    let first = pace.answers().expect("from the server check on");
    assert_eq!(first.last, round_trip);
    world.subscribe("orders");
    world.run(100 * MS);
    world.script.latency = 9 * round_trip;
    world.run(20 * SEC); // health checks
    let pace = world.session.pace().unwrap();
    let answers = pace.answers().unwrap();
    assert_eq!(answers.last, 9 * round_trip);
    assert!(answers.smoothed > round_trip && answers.smoothed < 9 * round_trip);
    assert_eq!(pace.pushes(), None);
    world.push("orders", &["10.9.0.1:80"]);
    let (lately, error) = world.session.pace().unwrap().pushes().unwrap();
    assert!(lately.last <= 2 * error, "{lately:?} ± {error:?}");
    world.end_stream("bye");
    assert!(world.session.pace().is_none(), "nobody is there");
}
