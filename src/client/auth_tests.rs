use rand::SeedableRng;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> Subject {
    Subject::Service(ServiceKey::new("", name.parse().unwrap()).unwrap())
}

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    Instant::now()
}

fn token(ttl: Duration) -> Token {
    Token::new("t0ken".to_owned(), ttl)
}

/// Connected as link 1, whose dial brought a token at `now`.
fn connected(seed: u64, now: Instant) -> Auth {
    let mut auth = Auth::new(StdRng::seed_from_u64(seed));
    auth.learned(token(HOUR), LinkId::of(1), now);
    auth.connected(LinkId::of(1), now);
    auth
}

fn told(failed: Failed) -> BTreeSet<Subject> {
    match failed {
        Failed::Again(waiting) => waiting,
        Failed::Leave => panic!("left"),
    }
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
        assert!(told(auth.failed(at)).is_empty());
        let wait = auth.poll_timeout().unwrap() - at;
        let bound = Duration::from_secs(1 << tries.min(5)).min(LONGEST_RETRY);
        assert!(wait <= bound && wait >= bound / 2, "{tries}: {wait:?}");
        at += wait;
        assert!(at > now + HOUR || auth.headers(at).is_some());
    }
    auth.learned(token(HOUR), LinkId::of(1), at);
    assert!(auth.poll_timeout().unwrap() > at + HOUR / 2);
}

#[test]
fn a_403_causes_one_login_and_others_wait_for_it() {
    let now = start() + HOUR / 2;
    let mut auth = connected(1, now - HOUR / 2);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
    assert_eq!(auth.denied(&key("b"), now), Denied::Wait);
    assert_eq!(auth.poll_timeout(), None);
    auth.learned(token(HOUR), LinkId::of(1), now);
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
            auth.learned(token(HOUR), LinkId::of(1), now);
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
    assert_eq!(told(auth.failed(now)).len(), 2);
    auth.connected(LinkId::of(2), now);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
}

#[test]
fn a_token_outlives_its_connection_until_it_expires() {
    let now = start();
    let mut auth = connected(1, now);
    auth.disconnected();
    assert!(auth.headers(now + HOUR / 2).is_some(), "to be tried first");
    assert_eq!(auth.poll_timeout(), None, "nobody is there to log in to");
    assert!(auth.headers(now + HOUR).is_none(), "it is over");
    auth.connected(LinkId::of(2), now);
    let due = auth.poll_timeout().unwrap();
    assert!(due < now + HOUR && auth.handle_timeout(due), "in time");
}

#[test]
fn a_token_that_came_due_while_the_server_was_down_is_tried_and_renewed_at_once() {
    let now = start();
    let mut auth = connected(1, now);
    auth.disconnected();
    let late = now + HOUR - Duration::from_secs(5);
    assert!(auth.headers(late).is_some());
    auth.connected(LinkId::of(2), late);
    assert_eq!(auth.poll_timeout(), Some(late), "and not before");
    assert!(auth.handle_timeout(late));
}

#[test]
fn a_carried_token_that_is_refused_costs_one_login_however_young_it_is() {
    let now = start();
    let mut auth = connected(1, now);
    assert_eq!(auth.denied(&key("a"), now), Denied::Final, "its own, young");
    auth.connected(LinkId::of(2), now);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
    assert_eq!(auth.denied(&key("b"), now), Denied::Wait);
    auth.learned(token(HOUR), LinkId::of(2), now);
    assert_eq!(auth.denied(&key("a"), now), Denied::Final, "it means it");
}

#[test]
fn a_server_that_takes_neither_the_carried_token_nor_the_user_is_left() {
    let now = start();
    let mut auth = connected(1, now);
    auth.connected(LinkId::of(2), now);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
    assert_eq!(auth.failed(now), Failed::Leave);
    assert!(auth.headers(now).is_none(), "the next connection logs in");
}

#[test]
fn a_server_that_took_the_carried_token_once_is_not_left_for_a_login_that_fails() {
    let now = start();
    let mut auth = connected(1, now);
    auth.connected(LinkId::of(2), now);
    auth.accepted();
    assert_eq!(auth.denied(&key("forbidden"), now), Denied::LogIn);
    assert_eq!(told(auth.failed(now)), [key("forbidden")].into());
    assert!(auth.headers(now).is_some());
}

#[test]
fn a_server_that_takes_us_without_a_token_is_not_left_for_one_service_that_it_denies() {
    let now = start();
    let mut auth = Auth::new(StdRng::seed_from_u64(1));
    auth.connected(LinkId::of(1), now);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
    assert_eq!(told(auth.failed(now)), [key("a")].into());
    let mut logins = 0;
    let mut at = now;
    while at < now + MINUTE * 10 {
        at = auth.poll_timeout().unwrap();
        assert!(auth.handle_timeout(at));
        assert_eq!(auth.denied(&key("a"), at), Denied::Wait);
        told(auth.failed(at));
        logins += 1;
    }
    assert!(logins < 60, "{logins} in ten minutes");
}

#[test]
fn a_403_after_a_failed_login_waits_for_the_next_try() {
    let now = start();
    let mut auth = connected(1, now - HOUR / 2);
    assert_eq!(auth.denied(&key("a"), now), Denied::LogIn);
    assert_eq!(told(auth.failed(now)).len(), 1);
    assert_eq!(auth.denied(&key("b"), now), Denied::Wait);
    let due = auth.poll_timeout().unwrap();
    assert!(due > now && auth.handle_timeout(due));
    assert_eq!(told(auth.failed(due)), [key("b")].into());
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
fn a_life_of_nothing_is_none_that_was_said() {
    let now = start();
    let mut auth = connected(1, now);
    auth.learned(token(Duration::ZERO), LinkId::of(1), now);
    assert!(auth.headers(now + HOUR).is_some(), "until it is refused");
    let mut logins = 0;
    let mut at = now;
    while at < now + HOUR {
        at = auth.poll_timeout().unwrap();
        assert!(auth.handle_timeout(at));
        auth.learned(token(Duration::ZERO), LinkId::of(1), at);
        logins += 1;
        assert!(logins <= 60, "the {logins}th after {:?}", at - now);
    }
}

#[test]
fn neither_a_life_without_end_nor_a_clock_that_stands_still_panics() {
    let now = start();
    let mut auth = connected(1, now);
    auth.learned(token(Duration::MAX), LinkId::of(1), now);
    assert!(auth.headers(now + HOUR).is_some());
    let before = now.checked_sub(MINUTE).unwrap_or(now);
    assert_eq!(auth.denied(&key("a"), before), Denied::Final);
    assert!(auth.headers(before).is_some());
    assert!(!auth.handle_timeout(before));
}

#[test]
fn nothing_shows_the_token() {
    let auth = connected(1, start());
    assert!(!format!("{auth:?} {:?}", token(HOUR)).contains("t0ken"));
}
