//! One line per change, at most one warning a minute and cause, and one error at the end of a
//! collapse.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use tracing_subscriber::fmt::MakeWriter;

use super::support::{Script, a, all};
use crate::{
    directory::Origin,
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
    assert_eq!(script.writer.counters().rejected, 61);
}

#[test]
fn a_collapse_is_one_warning_and_in_the_end_one_error() {
    let mut script = Script::listing(all(1..=3));
    let lines = lines(|| {
        script.reconnect(1.0).first(all([]));
        script.pass(60.1);
    });
    let of = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    assert_eq!((of("WARN"), of("ERROR")), (1, 1), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("cause=HoldEnded")));
}
