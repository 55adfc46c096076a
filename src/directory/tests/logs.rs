//! One line per change, at most one warning a minute and cause, and one error at the end of a
//! collapse.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use tracing_subscriber::fmt::MakeWriter;

use super::support::{Script, a, all};
use crate::{
    directory::{Origin, Subscription},
    model::{Listing, Rejected},
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn lines(run: impl FnOnce()) -> Vec<String> {
    // With only one subscriber alive, tracing asks the thread that first meets a callsite whether
    // anybody is interested, and a thread of another test says no for all. So keep a second one.
    static ANOTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
    ANOTHER.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = lines.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_merged_set_says_nothing_that_its_sources_have_said() {
    let mut near = Script::listing(all([1, 2]));
    let mut far = Script::listing(all([2]));
    let both = Subscription::merge([(&near.sub, 0), (&far.sub, 1)]);
    let lines = lines(|| {
        near.push(all([2, 3]));
        far.push(all([]));
        near.push(all([]));
        drop(near);
        drop(far);
    });
    assert_eq!(both.snapshot().entries().len(), 0);
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(
        [of("instance added"), of("instance removed")],
        [1, 4],
        "{lines:#?}"
    );
    assert_eq!(of("subscription closed"), 2, "{lines:#?}");
}

#[test]
fn each_change_is_one_line() {
    let mut script = Script::listing(all([1, 2]));
    let lines = lines(|| {
        script.push(vec![a(2).with_weight(2.0), a(3)]);
        script.push(vec![a(3), a(2).with_weight(2.0)]);
    });
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for part in [
        "INFO",
        "instance removed",
        "namespace=\"public\"",
        "group=\"DEFAULT_GROUP\"",
        "service=\"orders\"",
        "instance=10.0.0.1:8080",
        "revision=2",
        "cause=GoneFromList",
    ] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(lines[1].contains("instance updated") && lines[1].contains("10.0.0.2:8080"));
    assert!(lines[2].contains("instance added") && lines[2].contains("10.0.0.3:8080"));
}

#[test]
fn a_warning_comes_at_most_once_a_minute() {
    let mut script = Script::listing(all([1]));
    let bad = || Listing::new(all([1])).with_rejected(vec![Rejected::new("x:0", "port 0")]);
    let lines = lines(|| {
        for _ in 0..60 {
            script.after(1.0).apply(bad(), Origin::Push);
        }
        script.after(1.0).apply(bad(), Origin::Push);
    });
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("x:0: port 0"));
    assert_eq!(script.writer.counters().hosts_rejected, 61);
}

#[test]
fn a_collapse_is_one_warning_and_in_the_end_one_error() {
    let mut script = Script::listing(all(1..=3));
    let lines = lines(|| {
        script.reconnect(1.0).first(all([]));
        script.pass(60.1);
    });
    let of = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    assert_eq!((of("WARN"), of("ERROR")), (2, 1), "{lines:#?}");
    let warned = |part: &str| {
        lines
            .iter()
            .any(|line| line.starts_with("WARN") && line.contains(part))
    };
    assert!(
        warned("are held") && warned("has become empty"),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.contains("cause=HoldEnded")));
}

#[test]
fn many_instances_are_one_line_that_names_three() {
    let mut script = Script::listing(all([1]));
    let lines = lines(|| {
        script.push(all(1..=10_001));
        script.push(all(1..=6));
        script.push(
            all(1..=11)
                .into_iter()
                .map(|i| i.with_weight(2.0))
                .collect(),
        );
    });
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("instances "))
        .collect();
    assert_eq!(told.len(), 3, "{lines:#?}");
    for part in [
        "instances added",
        "instances=10000",
        "instance=10.0.0.2:8080, 10.0.0.3:8080, 10.0.0.4:8080 and 9997 more",
        "revision=2",
    ] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    assert!(told[1].contains("instances removed") && told[1].contains("cause=GoneFromList"));
    assert!(told[1].contains("instances=9995"), "{}", told[1]);
    assert!(told[2].contains("instances updated") && told[2].contains("instances=6"));
    let single: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("instance added"))
        .collect();
    assert_eq!(
        single.len(),
        5,
        "a few of a kind are told one by one: {lines:#?}"
    );
}

#[test]
fn a_service_that_becomes_empty_is_one_warning_and_its_end_one_line() {
    let mut script = Script::listing(all([1, 2]));
    let lines = lines(|| {
        script.push(all([1]));
        script.after(1.0).push(all([]));
        script.after(1.0).push(all([]));
        script.after(5.0).push(vec![a(1).with_weight(0.0)]); // listed, and nobody may call it
        script.after(5.0).push(all([1]));
        script.after(70.0).push(vec![a(1).with_weight(0.0)]);
        script.after(5.0).push(all([1]));
    });
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(of("WARN"), 2, "{lines:#?}");
    assert_eq!(
        of("WARN tower_nacos::directory: the service has become empty"),
        1,
        "{lines:#?}"
    );
    assert_eq!(
        of("WARN tower_nacos::directory: all instances of the service are out"),
        1
    );
    assert_eq!(of("the service has instances again"), 2);
    assert_eq!(of("lasted=11s"), 1, "{lines:#?}");
}

#[test]
fn a_service_that_nobody_provides_yet_is_no_warning() {
    let mut script = Script::new();
    let lines = lines(|| {
        script.writer.handle_connected(script.now);
        script.first(all([]));
        script.pass(10.0);
        script.push(all([]));
    });
    assert_eq!(lines, Vec::<String>::new());
    // But one whose instances are all out from the beginning is.
    let mut script = Script::new();
    let lines = self::lines(|| {
        script.writer.handle_connected(script.now);
        script.first(vec![a(1).with_enabled(false)]);
    });
    assert!(
        lines[0].contains("all instances of the service are out"),
        "{lines:#?}"
    );
}

/// Once found, one line a minute, and one with what became of it when it is over.
#[test]
fn an_instance_that_comes_and_goes_is_summed_up() {
    let mut script = Script::listing(all([1, 2, 3]));
    let lines = lines(|| {
        for _ in 0..100 {
            script.after(1.0).push(all([1, 3]));
            script.after(1.0).push(all([1, 2, 3]));
        }
        script.pass(120.0);
        script.push(all([1, 3])); // which is an instance like any other by now
    });
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(of("instance removed"), 2 + 1, "{lines:#?}");
    assert_eq!(of("instance added"), 2, "{lines:#?}");
    let summed: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("again and again"))
        .collect();
    assert_eq!(summed.len(), 1 + 3, "at 5 s, and once a minute: {lines:#?}");
    assert!(summed[0].contains("WARN") && summed[0].contains("instance=10.0.0.2:8080"));
    assert!(
        summed[0].contains("times=3") && summed[0].contains("lasted=4s"),
        "{}",
        summed[0]
    );
    assert_eq!(of("instances that came and went stay"), 1);
    let end = lines
        .iter()
        .find(|line| line.contains("came and went"))
        .unwrap();
    assert!(
        end.contains("times=100") && !end.contains("stay away"),
        "{end}"
    );
    assert_eq!(lines.len(), 5 + 4 + 1, "{lines:#?}");
    assert_eq!(script.writer.poll_timeout(), None, "nothing is left behind");
}

#[test]
fn many_that_come_and_go_are_one_line_and_those_that_stay_away_another() {
    let mut script = Script::listing(all(0..=3_000));
    let lines = lines(|| {
        for _ in 0..10 {
            script.after(1.0).push(all([0]));
            script.after(1.0).push(all(0..=3_000));
        }
        script.after(1.0).push(all([0]));
        script.pass(120.0);
    });
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(of("again and again"), 1, "{lines:#?}");
    assert_eq!(of("stay away"), 1, "{lines:#?}");
    assert!(
        lines.len() < 40,
        "the rest is one line a list: {}",
        lines.len()
    );
}

/// A rollout replaces every instance, once: that is no flapping, however often it is done.
#[test]
fn a_rollout_is_no_flapping() {
    let mut script = Script::listing(all([1, 2]));
    let lines = lines(|| {
        for hour in 1..5_u16 {
            let (old, new) = (hour * 2 - 1, hour * 2 + 1);
            script.after(3_600.0).push(all([old, old + 1, new]));
            script.after(1.0).push(all([new, new + 1]));
        }
        for _ in 0..5 {
            script.after(61.0).push(all([9]));
            script.after(61.0).push(all([9, 10]));
        }
    });
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(of("again and again"), 0, "{lines:#?}");
}
