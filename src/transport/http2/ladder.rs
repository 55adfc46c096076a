//! When a silent peer is asked whether it is there. Knows no clock and no socket.

use std::time::Duration;

use tokio::time::Instant;

/// The times of PINGs in a silence: close together first, so that a peer that hangs is found soon,
/// and then further and further apart, within what every peer's budget has room for.
///
/// The servers of grpc-go, grpc-java and C-core allow a PING in 5 minutes, forgive two that come
/// sooner, and answer the next with GOAWAY `too_many_pings`; HEADERS or DATA of theirs forgives
/// all. So a silence has two early PINGs after its first, and then one each 5 minutes 10 s. What
/// *we* send does not begin anew: their count does not either.
#[derive(Debug)]
pub(in crate::transport) struct Ladder {
    first: Duration,
    within: Duration,
    /// PINGs since the peer last said something.
    pings: usize,
    /// The time of the last of them, or of what the peer said.
    mark: Instant,
    /// Since when streams are open.
    open: Option<Instant>,
    /// When the PING went out that is not answered.
    asked: Option<Instant>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Step {
    /// Nothing before that time; nothing at all without streams.
    Rest(Option<Instant>),
    Ping,
    /// The peer did not answer.
    GiveUp,
}

impl Ladder {
    pub(in crate::transport) const fn new(first: Duration, within: Duration, now: Instant) -> Self {
        Self {
            first,
            within,
            pings: 0,
            mark: now,
            open: None,
            asked: None,
        }
    }

    /// The peer said something of its own accord.
    pub(in crate::transport) const fn said(&mut self, now: Instant) {
        self.pings = 0;
        self.mark = now;
        self.asked = None;
    }

    /// The peer is there: an acknowledgement, or credit.
    pub(in crate::transport) const fn answered(&mut self) {
        self.asked = None;
    }

    /// What is to be done now; to be asked again at the time it says, and whenever something came.
    pub(in crate::transport) fn step(&mut self, now: Instant, streams: bool) -> Step {
        if !streams {
            self.open = None;
            self.asked = None;
            return Step::Rest(None);
        }
        let open = *self.open.get_or_insert(now);
        if let Some(asked) = self.asked {
            let due = asked + self.within;
            return if due <= now {
                Step::GiveUp
            } else {
                Step::Rest(Some(due))
            };
        }
        let due = (self.mark + self.rest()).max(open + self.first);
        if due > now {
            return Step::Rest(Some(due));
        }
        self.pings += 1;
        self.mark = now;
        self.asked = Some(now);
        Step::Ping
    }

    fn rest(&self) -> Duration {
        let rest = match self.pings {
            0 => self.first,
            early => *EARLY.get(early - 1).unwrap_or(&LATE),
        };
        rest.max(self.first)
    }
}

const EARLY: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
/// What servers allow, and some for clocks and queues.
const LATE: Duration = Duration::from_secs(310);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(5);
    const WITHIN: Duration = Duration::from_secs(3);

    /// How servers count PINGs, as their sources have it.
    #[derive(Clone, Copy, Debug)]
    enum Server {
        /// grpc-go `handlePing`, C-core `Chttp2PingAbusePolicy`: the time of each PING counts.
        Each,
        /// grpc-java `KeepAliveEnforcer`: the time of the last good one does.
        Good,
    }

    #[derive(Debug)]
    struct Budget {
        server: Server,
        last: Option<Instant>,
        strikes: u32,
    }

    impl Budget {
        fn said(&mut self) {
            (self.last, self.strikes) = (None, 0);
        }

        /// Whether it is still content.
        fn ping(&mut self, now: Instant) -> bool {
            let soon = self
                .last
                .is_some_and(|last| last + Duration::from_secs(300) > now);
            if soon {
                self.strikes += 1;
            }
            if !soon || matches!(self.server, Server::Each) {
                self.last = Some(now);
            }
            self.strikes <= 2
        }
    }

    fn budgets() -> [Budget; 2] {
        [Server::Each, Server::Good].map(|server| Budget {
            server,
            last: None,
            strikes: 0,
        })
    }

    /// The times of PINGs, in seconds, while the peer acknowledges and says nothing.
    fn pings(first: Duration, until: u64) -> Vec<u64> {
        let begun = crate::endpoint::now();
        let mut ladder = Ladder::new(first, WITHIN, begun);
        let (mut now, mut pings) = (begun, Vec::new());
        while now < begun + Duration::from_secs(until) {
            match ladder.step(now, true) {
                Step::Rest(Some(due)) => now = due,
                Step::Ping => {
                    pings.push((now - begun).as_secs());
                    ladder.answered();
                }
                other => panic!("{other:?}"),
            }
        }
        pings
    }

    #[test]
    fn a_long_silence_has_few_pings() {
        assert_eq!(pings(FIRST, 1000), [5, 35, 95, 405, 715]);
        assert_eq!(pings(2 * FIRST, 500), [10, 40, 100, 410]);
        assert_eq!(pings(Duration::from_secs(600), 2000), [600, 1200, 1800]);
    }

    #[test]
    fn a_stream_silent_for_an_hour_lives_at_every_server() {
        for mut budget in budgets() {
            let begun = crate::endpoint::now();
            for at in pings(FIRST, 3600) {
                let well = budget.ping(begun + Duration::from_secs(at));
                assert!(well, "{budget:?} at {at}");
            }
        }
    }

    #[test]
    fn a_frozen_peer_is_found_in_eight_seconds() {
        let begun = crate::endpoint::now();
        let mut ladder = Ladder::new(FIRST, WITHIN, begun);
        let opened = begun + Duration::from_secs(100);
        assert_eq!(ladder.step(begun, false), Step::Rest(None));
        assert_eq!(ladder.step(opened, true), Step::Rest(Some(opened + FIRST)));
        assert_eq!(ladder.step(opened + FIRST, true), Step::Ping);
        let due = opened + FIRST + WITHIN;
        assert_eq!(ladder.step(opened + FIRST, true), Step::Rest(Some(due)));
        assert_eq!(ladder.step(due, true), Step::GiveUp);
    }

    #[test]
    fn what_the_peer_says_begins_anew_and_an_acknowledgement_does_not() {
        let begun = crate::endpoint::now();
        let at = |s| begun + Duration::from_secs(s);
        let mut ladder = Ladder::new(FIRST, WITHIN, begun);
        ladder.step(at(0), true);
        assert_eq!(ladder.step(at(5), true), Step::Ping);
        ladder.answered();
        assert_eq!(ladder.step(at(6), true), Step::Rest(Some(at(35))));
        ladder.said(at(20));
        assert_eq!(ladder.step(at(20), true), Step::Rest(Some(at(25))));
    }

    proptest! {
        /// Whatever opens, closes and is said, no server runs out of patience.
        #[test]
        fn no_server_is_ever_asked_too_often(
            steps in prop::collection::vec((0_u64..400, 0_u8..4), 1..60),
        ) {
            for mut budget in budgets() {
                let begun = crate::endpoint::now();
                let mut ladder = Ladder::new(FIRST, WITHIN, begun);
                let (mut now, mut open) = (begun, false);
                for (rest, what) in &steps {
                    let until = now + Duration::from_secs(*rest);
                    loop {
                        match ladder.step(now, open) {
                            Step::Ping => {
                                prop_assert!(budget.ping(now), "{budget:?}");
                                ladder.answered();
                            }
                            Step::Rest(Some(due)) if due <= until => now = due,
                            Step::Rest(_) => break,
                            Step::GiveUp => unreachable!("each is answered"),
                        }
                    }
                    now = until;
                    match what {
                        0 => { ladder.said(now); budget.said(); }
                        1 => open = true,
                        2 => open = false,
                        _ => ladder.answered(),
                    }
                }
            }
        }
    }
}
