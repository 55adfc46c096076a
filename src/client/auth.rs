//! The life of a token: when to learn a new one, and for whom. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

use crate::model::ServiceKey;

/// No login follows another, on a 403's account, sooner than this: a token that young has not
/// expired, so the server means the user.
const PAUSE: Duration = Duration::from_secs(3);
/// Nor does one service cause two logins within this: a user who may not touch it stays so.
const PAUSE_OF_ONE: Duration = Duration::from_secs(60);
/// The longest wait after failed refreshes.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// How a client with a user name stands with the server that it is connected to.
#[derive(Debug)]
pub(crate) struct Auth {
    rng: StdRng,
    /// What the connection in the making brought: for how long, and when.
    offered: Option<(Duration, Instant)>,
    /// When the token in use was learned.
    learned: Option<Instant>,
    /// When to learn the next.
    due: Option<Instant>,
    under_way: bool,
    /// Refreshes in a row that failed.
    failures: u32,
    /// What caused a login, and when.
    denied: BTreeMap<Subject, Instant>,
    /// What waits for the login under way, or the next.
    waiting: BTreeSet<Subject>,
}

/// What a request that was denied is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Service(ServiceKey),
    /// The names of a group's services.
    List(Arc<str>),
}

/// What follows from a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Log in; the subject waits for it.
    LogIn,
    /// A login is under way or will follow a failed one; the subject waits for it.
    Wait,
    /// The server means it: another login would change nothing.
    Final,
}

impl Auth {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            offered: None,
            learned: None,
            due: None,
            under_way: false,
            failures: 0,
            denied: BTreeMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// A connection in the making brought its own token. It counts when that connection does: the
    /// one before may still serve, with its own.
    pub(crate) const fn offered(&mut self, ttl: Duration, now: Instant) {
        self.offered = Some((ttl, now));
    }

    /// The connection made last is the one in use: nothing of the last server's counts.
    pub(crate) fn connected(&mut self) {
        self.disconnected();
        if let Some((ttl, learned)) = self.offered.take() {
            self.renewed(ttl, learned);
        }
    }

    /// The connection is gone, and a login on it with it.
    pub(crate) fn disconnected(&mut self) {
        self.learned = None;
        self.due = None;
        self.under_way = false;
        self.failures = 0;
        self.denied.clear();
        self.waiting.clear();
    }

    /// A login brought a token that lives for `ttl`: the next is due between a fifteenth and a
    /// tenth of that before its end, as in Nacos's Java client, so that clients that were started
    /// together do not log in together.
    pub(crate) fn renewed(&mut self, ttl: Duration, now: Instant) {
        let window = ttl.mul_f64(self.rng.random_range(1.0 / 15.0..=1.0 / 10.0));
        self.learned = Some(now);
        self.due = now.checked_add(ttl.saturating_sub(window));
        self.under_way = false;
        self.failures = 0;
        self.waiting.clear();
    }

    /// A login failed: who waited for it, to be told. The token in use stays, and the next try
    /// follows by itself.
    pub(crate) fn failed(&mut self, now: Instant) -> BTreeSet<Subject> {
        let bound = Duration::from_secs(1)
            .saturating_mul(1 << self.failures.min(8))
            .min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + bound.mul_f64(self.rng.random_range(0.5..=1.0)));
        self.under_way = false;
        std::mem::take(&mut self.waiting)
    }

    /// The server denied a request for `subject`.
    pub(crate) fn denied(&mut self, subject: &Subject, now: Instant) -> Denied {
        // After a failed login the next follows by itself, and not sooner for being needed.
        if self.under_way || self.failures > 0 {
            self.waiting.insert(subject.clone());
            return Denied::Wait;
        }
        let within = |since: Option<&Instant>, pause: Duration| {
            since.is_some_and(|since| now.duration_since(*since) < pause)
        };
        if within(self.learned.as_ref(), PAUSE) || within(self.denied.get(subject), PAUSE_OF_ONE) {
            return Denied::Final;
        }
        self.denied.insert(subject.clone(), now);
        self.waiting.insert(subject.clone());
        self.under_way = true;
        Denied::LogIn
    }

    /// When a login is due, unless one is under way.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.under_way)
    }

    /// Whether to log in now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout().is_some_and(|due| due <= now);
        self.under_way |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(name: &str) -> Subject {
        Subject::Service(ServiceKey::new("", name.parse().unwrap()).unwrap())
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        Instant::now()
    }

    fn connected(seed: u64, now: Instant) -> Auth {
        let mut auth = Auth::new(StdRng::seed_from_u64(seed));
        auth.offered(HOUR, now);
        auth.connected();
        auth
    }

    #[test]
    fn a_token_is_renewed_between_a_fifteenth_and_a_tenth_of_its_life_before_its_end() {
        let now = start();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut auth = connected(seed, now);
            let due = auth.poll_timeout().unwrap();
            let left = now + HOUR - due;
            assert!(left >= HOUR / 15 && left <= HOUR / 10, "{left:?}");
            assert!(!auth.handle_timeout(due - Duration::from_millis(1)));
            assert!(auth.handle_timeout(due));
            assert!(!auth.handle_timeout(due), "one login at a time");
            seen.insert(due);
        }
        assert!(seen.len() > 150, "clients started together spread");
    }

    #[test]
    fn a_failed_renewal_is_tried_again_with_growing_waits_and_the_token_stays() {
        let now = start();
        let mut auth = connected(1, now);
        let mut at = auth.poll_timeout().unwrap();
        for tries in 0..10u32 {
            assert!(auth.handle_timeout(at));
            assert!(auth.failed(at).is_empty());
            let wait = auth.poll_timeout().unwrap() - at;
            let bound = Duration::from_secs(1 << tries.min(5)).min(LONGEST_RETRY);
            assert!(wait <= bound && wait >= bound / 2, "{tries}: {wait:?}");
            at += wait;
        }
        auth.renewed(HOUR, at);
        assert!(auth.poll_timeout().unwrap() > at + HOUR / 2);
    }

    #[test]
    fn a_403_causes_one_login_and_others_wait_for_it() {
        let now = start() + HOUR / 2;
        let mut auth = connected(1, now - HOUR / 2);
        assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
        assert_eq!(auth.denied(&key("b"), now), Denied::Wait);
        assert_eq!(auth.poll_timeout(), None);
        auth.renewed(HOUR, now);
        assert_eq!(auth.denied(&key("a"), now), Denied::Final);
    }

    #[test]
    fn a_service_that_stays_denied_causes_one_login_a_minute_and_costs_no_other() {
        let start = start();
        let mut auth = connected(1, start);
        let mut logins = 0;
        for second in 10..310 {
            let now = start + Duration::from_secs(second);
            if auth.denied(&key("forbidden"), now) == Denied::LogIn {
                logins += 1;
                auth.renewed(HOUR, now);
            }
        }
        assert_eq!(logins, 5);
        let now = start + Duration::from_secs(320);
        assert_eq!(auth.denied(&key("other"), now), Denied::LogIn);
    }

    #[test]
    fn a_failed_login_names_who_waited_and_a_new_connection_forgets() {
        let now = start();
        let mut auth = connected(1, now - HOUR / 2);
        auth.denied(&key("a"), now);
        auth.denied(&key("b"), now);
        assert_eq!(auth.failed(now).len(), 2);
        auth.offered(HOUR, now + PAUSE);
        auth.connected();
        let later = now + PAUSE * 2;
        assert_eq!(auth.denied(&key("a"), later), Denied::LogIn);
    }

    #[test]
    fn the_token_of_a_connection_in_the_making_counts_when_that_is_in_use() {
        let now = start();
        let mut auth = connected(1, now - HOUR / 2);
        let due = auth.poll_timeout();
        auth.offered(HOUR, now);
        assert_eq!(auth.poll_timeout(), due, "not before");
        auth.disconnected(); // the one before broke while the new one registered
        auth.connected();
        assert!(auth.poll_timeout().unwrap() > now + HOUR / 2);
    }

    #[test]
    fn a_403_after_a_failed_login_waits_for_the_next_try() {
        let now = start();
        let mut auth = connected(1, now - HOUR / 2);
        assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
        assert_eq!(auth.failed(now).len(), 1);
        assert_eq!(auth.denied(&key("b"), now), Denied::Wait);
        let due = auth.poll_timeout().unwrap();
        assert!(due > now && auth.handle_timeout(due));
        assert_eq!(auth.failed(due), [key("b")].into());
    }

    #[test]
    fn a_list_of_names_causes_a_login_like_a_service() {
        let now = start();
        let mut auth = connected(1, now - HOUR / 2);
        let list = Subject::List("DEFAULT_GROUP".into());
        assert_eq!(auth.denied(&list, now), Denied::LogIn);
        assert_eq!(auth.denied(&key("a"), now), Denied::Wait);
    }

    #[test]
    fn a_life_without_end_or_of_nothing_does_not_panic() {
        let now = start();
        let mut auth = connected(1, now);
        auth.renewed(Duration::from_secs(u64::MAX / 2), now);
        auth.renewed(Duration::ZERO, now);
        assert_eq!(auth.poll_timeout(), Some(now));
    }
}
