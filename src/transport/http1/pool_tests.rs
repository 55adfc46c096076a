//! Who dials, and whom a dial that fails concerns.

use futures_util::FutureExt;

use super::*;
use crate::transport::form::Named;

fn pool(max_dials: usize) -> Arc<Http1Pool> {
    let instance = "10.0.0.3:80".parse().unwrap();
    let peer = Arc::new(Peer {
        named: Named::new(&instance),
        secure: false,
        instance,
    });
    let options = Http1Options {
        max_dials,
        ..Http1Options::default()
    };
    Arc::new(Http1Pool::new(peer, options))
}

fn waits(pool: &Arc<Http1Pool>) -> (Wait, Option<Turn>) {
    match pool.wait(None, false) {
        Need::Wait(wait, turn) => (wait, turn),
        Need::Have(_) | Need::Retired => panic!("there is none"),
    }
}

#[test]
fn so_many_dial_at_once_and_one_more_as_one_has_ended() {
    let pool = pool(2);
    let [
        (first, turn),
        (_second, other),
        (third, none),
        (fourth, neither),
    ] = std::array::from_fn(|_| waits(&pool));
    assert!(other.is_some() && none.is_none() && neither.is_none());
    drop(turn.expect("the first dials")); // given up
    assert!(matches!(first.now_or_never(), Some(Reply::Again)));
    assert!(
        matches!(third.now_or_never(), Some(Reply::Again)),
        "its turn"
    );
    assert!(fourth.now_or_never().is_none());
}

/// While connections are open others may have them, and the instance is there.
#[test]
fn a_dial_that_fails_is_everybody_s_only_where_nothing_is_open() {
    for open in [0, 1] {
        let pool = pool(1);
        pool.open.store(open, Ordering::SeqCst);
        let (own, turn) = waits(&pool);
        let (other, none) = waits(&pool);
        assert!(none.is_none());
        turn.unwrap().failed(DialError::new("refused"));
        let served = |reply| match reply {
            Some(Reply::Failed(NoConnection { others_served, .. })) => others_served,
            _ => panic!("it has failed"),
        };
        assert_eq!(served(own.now_or_never()), open > 0);
        let other = other.now_or_never();
        match open {
            0 => assert!(!served(other)),
            _ => assert!(matches!(other, Some(Reply::Again)), "it may dial itself"),
        }
    }
}

#[test]
fn what_a_server_says_of_its_keep_alive_is_believed_less_a_request_s_way() {
    let ms = Duration::from_millis;
    let unsaid = ms(4_000);
    assert_eq!(idle_for(None, unsaid), unsaid);
    for (said, kept) in [
        (75_000, 74_000),
        (5_000, 4_000),
        (2_000, 1_000),
        (1_000, 500),
        (0, 0),
    ] {
        assert_eq!(idle_for(Some(ms(said)), unsaid), ms(kept), "{said} ms");
    }
}
