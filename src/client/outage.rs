//! When the log speaks of the connection to the registry. No clock and no log: who asks says what
//! time it is, and writes what this decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A connection that is lost for less is nothing to wake somebody for.
const BRIEF: Duration = Duration::from_secs(5);
/// So often an outage is told of again, and losses are summed up.
const AGAIN: Duration = Duration::from_secs(60);
/// So many losses within that time have lines of their own.
const SINGLE: u32 = 3;

/// The connection of one client, as far as the log is concerned.
#[derive(Debug)]
pub(super) struct Outage {
    /// Since when there is no connection, if there is none.
    since: Option<Instant>,
    /// Whether there ever was one.
    ever: bool,
    /// Attempts that failed since.
    failed: u32,
    cause: Option<Arc<str>>,
    /// Whether a warning told of this outage.
    warned: bool,
    /// When the next one is due.
    next: Option<Instant>,
    /// Since when losses are counted, and how many there were.
    counting: Option<(Instant, u32)>,
    over: bool,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// There is no connection: since the start, or since one was lost.
    Out {
        /// Whether there was one before.
        lost: bool,
        /// Attempts that failed.
        attempts: u32,
        lasted: Duration,
        cause: Arc<str>,
    },
    /// The connection is lost.
    Lost { cause: Arc<str> },
    /// There is one: the first, another server's, or after a moment without.
    Connected,
    /// There is one again, after an outage that was warned of.
    Over { lasted: Duration },
    /// It was lost again and again.
    Flapping {
        losses: u32,
        within: Duration,
        cause: Arc<str>,
    },
}

impl Outage {
    /// A client begins to connect.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            since: Some(now),
            ever: false,
            failed: 0,
            cause: None,
            warned: false,
            next: None,
            counting: None,
            over: false,
        }
    }

    /// There is no connection; attempts count from 1 and have met this.
    pub(super) fn connecting(
        &mut self,
        attempt: u32,
        cause: Option<&Arc<str>>,
        now: Instant,
    ) -> Option<Line> {
        if self.over {
            return None;
        }
        self.failed = attempt.saturating_sub(1);
        if let Some(cause) = cause {
            self.cause = Some(Arc::clone(cause));
        }
        if self.since.is_none() {
            return self.lost(now);
        }
        if !self.ever && !self.warned && self.failed > 0 {
            return self.out(now); // nobody has been served yet: at once
        }
        None
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, now: Instant) -> Option<Line> {
        let lasted = self.since.take().map(|since| now.duration_since(since));
        let warned = std::mem::take(&mut self.warned);
        let many = self.ever && lasted.is_some() && self.is_flapping();
        self.ever = true;
        self.failed = 0;
        self.next = None;
        match lasted {
            Some(lasted) if warned => Some(Line::Over { lasted }),
            _ if many => None,
            _ => Some(Line::Connected),
        }
    }

    /// The client is being closed: what ends now ends by intent.
    pub(super) const fn close(&mut self) {
        self.over = true;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let summary = self.counting.map(|(since, _)| since + AGAIN);
        [self.next, summary].into_iter().flatten().min()
    }

    /// Time passed: what there is to say, until there is nothing.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Line> {
        if self.over {
            return None;
        }
        if self.next.is_some_and(|at| at <= now) {
            return self.out(now);
        }
        let (since, losses) = self.counting?;
        if now < since + AGAIN {
            return None;
        }
        self.counting = None;
        (losses > SINGLE).then(|| Line::Flapping {
            losses,
            within: now.duration_since(since),
            cause: self.why(),
        })
    }

    fn lost(&mut self, now: Instant) -> Option<Line> {
        self.since = Some(now);
        self.next = Some(now + BRIEF);
        let (_, losses) = self.counting.get_or_insert((now, 0));
        *losses += 1;
        (!self.is_flapping()).then(|| Line::Lost { cause: self.why() })
    }

    fn out(&mut self, now: Instant) -> Option<Line> {
        self.warned = true;
        self.next = Some(now + AGAIN);
        let since = self.since?;
        Some(Line::Out {
            lost: self.ever,
            attempts: self.failed,
            lasted: now.duration_since(since),
            cause: self.why(),
        })
    }

    fn is_flapping(&self) -> bool {
        self.counting.is_some_and(|(_, losses)| losses > SINGLE)
    }

    fn why(&self) -> Arc<str> {
        let unknown = || "no attempt has ended yet".into();
        self.cause.clone().unwrap_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script {
        outage: Outage,
        start: Instant,
        at: Duration,
        said: Vec<(u64, Line)>,
    }

    impl Script {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        fn new() -> Self {
            let start = Instant::now();
            Self {
                outage: Outage::new(start),
                start,
                at: Duration::ZERO,
                said: Vec::new(),
            }
        }

        fn note(&mut self, line: Option<Line>) -> bool {
            let ms = u64::try_from(self.at.as_millis()).unwrap();
            let said = line.is_some();
            self.said.extend(line.map(|line| (ms, line)));
            said
        }

        /// Until then, with every timer in between.
        fn until(&mut self, ms: u64) -> &mut Self {
            let end = Duration::from_millis(ms);
            while let Some(at) = self.outage.poll_timeout() {
                let at = at.duration_since(self.start);
                if at > end {
                    break;
                }
                self.at = at;
                loop {
                    let line = self.outage.handle_timeout(self.start + at);
                    if !self.note(line) {
                        break;
                    }
                }
                let next = self.outage.poll_timeout();
                assert_ne!(next, Some(self.start + at), "a timer that stands still");
            }
            self.at = end;
            self
        }

        fn fails(&mut self, attempt: u32, cause: &str) -> &mut Self {
            let cause: Arc<str> = cause.into();
            let now = self.start + self.at;
            let line = self.outage.connecting(attempt, Some(&cause), now);
            self.note(line);
            self
        }

        fn connects(&mut self) -> &mut Self {
            let line = self.outage.connected(self.start + self.at);
            self.note(line);
            self
        }

        fn said(&mut self) -> Vec<(u64, Line)> {
            std::mem::take(&mut self.said)
        }
    }

    fn out(lost: bool, attempts: u32, seconds: u64, cause: &str) -> Line {
        Line::Out {
            lost,
            attempts,
            lasted: Duration::from_secs(seconds),
            cause: cause.into(),
        }
    }

    #[test]
    fn who_cannot_connect_says_so_at_once_and_then_once_a_minute() {
        let mut script = Script::new();
        script.outage.connecting(1, None, script.start);
        assert_eq!(script.said(), []);
        for attempt in 2..200 {
            let cause = if attempt < 100 { "refused" } else { "silent" };
            script.until(u64::from(attempt - 2) * 1_000);
            script.fails(attempt, cause);
        }
        let said = script.until(200_000).said();
        let expected = [
            (0, out(false, 1, 0, "refused")),
            (60_000, out(false, 60, 60, "refused")),
            (120_000, out(false, 120, 120, "silent")),
            (180_000, out(false, 180, 180, "silent")),
        ];
        assert_eq!(said, expected);
        let lasted = Duration::from_secs(200);
        assert_eq!(script.connects().said(), [(200_000, Line::Over { lasted })]);
    }

    #[test]
    fn each_loss_that_lasts_five_seconds_is_a_warning_and_its_end_is_told() {
        let mut script = Script::new();
        script.connects();
        assert_eq!(script.said(), [(0, Line::Connected)]);
        // The same again within a minute: a loss of its own.
        for start in [100_000, 120_000] {
            script.until(start).fails(1, "ended").until(start + 4_999);
            let cause = "ended".into();
            assert_eq!(script.said(), [(start, Line::Lost { cause })]);
            script.fails(7, "refused").until(start + 8_000).connects();
            let lasted = Duration::from_secs(8);
            let expected = [
                (start + 5_000, out(true, 6, 5, "refused")),
                (start + 8_000, Line::Over { lasted }),
            ];
            assert_eq!(script.said(), expected);
        }
        // One that ends in time wakes nobody.
        script.until(300_000).fails(1, "ended").until(304_000);
        script.connects().until(400_000);
        let cause = "ended".into();
        let expected = [(300_000, Line::Lost { cause }), (304_000, Line::Connected)];
        assert_eq!(script.said(), expected);
    }

    #[test]
    fn a_connection_that_comes_and_goes_is_summed_up_once_a_minute() {
        let mut script = Script::new();
        script.connects().said();
        for second in 0..120 {
            script.until(second * 1_000).fails(1, "reset");
            script.until(second * 1_000 + 200).connects();
        }
        let said = script.until(300_000).said();
        let flaps: Vec<_> = said
            .iter()
            .filter(|(_, line)| matches!(line, Line::Flapping { .. }))
            .collect();
        let flapping = |losses| Line::Flapping {
            losses,
            within: AGAIN,
            cause: "reset".into(),
        };
        assert_eq!(flaps, [&(60_000, flapping(60)), &(120_000, flapping(60))]);
        let lost = said.iter().filter(|(_, l)| matches!(l, Line::Lost { .. }));
        assert_eq!(lost.count(), 6, "three a minute: {said:#?}");
        assert!(said.len() <= 2 * 7, "{said:#?}");
        // An outage in the midst of it is one.
        for second in 300..310 {
            script.until(second * 1_000).fails(1, "reset").connects();
        }
        script.said();
        let said = script.fails(1, "reset").until(320_000).said();
        assert_eq!(said, [(314_000, out(true, 0, 5, "reset"))]);
    }

    #[test]
    fn who_closes_says_no_more() {
        let mut script = Script::new();
        script.connects().said();
        script.outage.close();
        script.fails(1, "closed").until(200_000);
        assert_eq!(script.said(), []);
    }
}
