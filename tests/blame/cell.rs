//! One cell: so many calls of which so many of a hundred are bad, by both clients.

use std::{fmt, net::SocketAddr};

use futures_util::{StreamExt, stream};
use http::Method;
use tower_nacos::transport::Protocol;

use super::{
    caller::{Ask, Caller, Failure},
    odds::more_than_chance,
};

/// What is called, and how.
#[derive(Clone)]
pub(crate) struct Load {
    /// Bad requests, by their number: what they are may change from one to the next.
    pub(crate) bad: fn(usize) -> Ask,
    pub(crate) calls: usize,
    /// How many of a hundred are bad.
    pub(crate) share: usize,
    pub(crate) at_once: usize,
    /// Good calls are all safe, or safe and not in turn.
    pub(crate) all_safe: bool,
}

/// What is promised of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Promise {
    /// No good call fails.
    Innocent,
    /// What shares a connection with a bad call may be lost with it, as it is with the peer; no call
    /// fails that no connection had taken.
    Shared,
}

/// How a client fared.
#[derive(Debug, Default)]
pub(crate) struct Score {
    good: usize,
    good_failed: usize,
    good_unsent: usize,
    bad: usize,
    bad_failed: usize,
    /// The first good one that failed, or else the first bad one.
    text: String,
}

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) promise: Promise,
    pub(crate) ours: Score,
    pub(crate) peer: Score,
}

impl Load {
    fn is_bad(&self, call: usize) -> bool {
        (call + 1) * self.share / 100 > call * self.share / 100
    }

    /// Makes the calls; each is told whether it is bad, and its number.
    pub(crate) async fn run_with<F>(&self, call: impl Fn(bool, usize) -> F) -> Score
    where
        F: Future<Output = Result<u16, Failure>>,
    {
        let calls = (0..self.calls).map(|number| {
            let bad = self.is_bad(number);
            let called = call(bad, number);
            async move { (bad, called.await) }
        });
        let outcomes = stream::iter(calls).buffer_unordered(self.at_once);
        outcomes
            .fold(Score::default(), async |mut score, (bad, outcome)| {
                score.note(bad, outcome);
                score
            })
            .await
    }

    /// The good request of that number.
    fn good(&self, number: usize) -> Ask {
        let safe = self.all_safe || number.is_multiple_of(2);
        let method = if safe { Method::GET } else { Method::POST };
        Ask::new(method, "/good")
    }

    /// By hyper-util's client, and by ours.
    pub(crate) async fn cell(
        &self,
        name: String,
        promise: Promise,
        addresses: &[SocketAddr],
        protocol: Protocol,
    ) -> Cell {
        let by = async |caller: Caller| {
            let caller = &caller;
            let call = move |bad, number| async move {
                let ask = if bad {
                    (self.bad)(number)
                } else {
                    self.good(number)
                };
                caller.call(&ask).await
            };
            self.run_with(call).await
        };
        let peer = by(Caller::peer(addresses, protocol)).await;
        let ours = by(Caller::ours(addresses, protocol)).await;
        Cell {
            name,
            promise,
            ours,
            peer,
        }
    }
}

impl Score {
    fn note(&mut self, bad: bool, outcome: Result<u16, Failure>) {
        let outcome = outcome.and_then(|status| match status {
            200 => Ok(()),
            _ if bad => Ok(()), // an answer
            status => Err(Failure {
                unsent: false,
                text: format!("status {status}"),
            }),
        });
        *(if bad { &mut self.bad } else { &mut self.good }) += 1;
        let Err(failure) = outcome else { return };
        if bad {
            self.bad_failed += 1;
        } else {
            self.good_failed += 1;
            self.good_unsent += usize::from(failure.unsent);
        }
        if self.text.is_empty() || (!bad && self.good_failed == 1) {
            self.text = failure.text;
        }
    }
}

impl Cell {
    pub(crate) fn holds(&self) -> bool {
        let innocent = match self.promise {
            Promise::Innocent => self.ours.good_failed == 0,
            Promise::Shared => {
                self.ours.good_unsent == 0
                    && !more_than_chance(self.ours.good_failed, self.peer.good_failed)
            }
        };
        innocent && !more_than_chance(self.ours.bad_failed, self.peer.bad_failed)
    }

    /// Good calls that failed, for sums over cells.
    pub(crate) fn good_failed(&self) -> (usize, usize) {
        (self.ours.good_failed, self.peer.good_failed)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            good,
            good_failed,
            good_unsent,
            bad,
            bad_failed,
            ..
        } = self;
        write!(
            f,
            "good {good_failed}/{good} (unsent {good_unsent}) bad {bad_failed}/{bad}"
        )
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds() { "" } else { " FAILS" };
        write!(
            f,
            "{} ours: {} peer: {}{verdict}",
            self.name, self.ours, self.peer
        )?;
        if !self.holds() {
            write!(f, "\n    {}", self.ours.text)?;
        }
        Ok(())
    }
}

/// Prints them, and fails if one does not hold.
pub(crate) fn judge(mut cells: Vec<Cell>) {
    cells.sort_by(|a, b| a.name.cmp(&b.name));
    for cell in &cells {
        println!("{cell}");
    }
    let (ours, peer) = cells.iter().fold((0, 0), |(ours, peer), cell| {
        let (more, more_peer) = cell.good_failed();
        (ours + more, peer + more_peer)
    });
    println!("good calls that failed: ours {ours}, peer {peer}");
    let failing = cells.iter().filter(|cell| !cell.holds());
    let failing: Vec<_> = failing.map(ToString::to_string).collect();
    let (bad, all) = (failing.len(), cells.len());
    assert!(
        failing.is_empty(),
        "{bad} of {all} cells fail:\n{}",
        failing.join("\n")
    );
}
