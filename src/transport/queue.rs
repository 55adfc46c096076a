//! Calls that wait for a connection: for one of their own making, or one that another call gives
//! back, whichever comes first.
//!
//! Knows no time, no task and no socket; the pool has it under its lock.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// The calls that wait, in the order in which they came.
pub(super) struct Queue<C, E> {
    waiting: VecDeque<Waiting<C, E>>,
    next: u64,
    /// Dials that have begun and not ended.
    dials: usize,
}

struct Waiting<C, E> {
    turn: u64,
    /// Whether a dial was begun for it.
    dialled: bool,
    reply: oneshot::Sender<Reply<C, E>>,
}

/// What a call that waits is told.
#[derive(Debug)]
pub(super) enum Reply<C, E> {
    Connection(C),
    /// Its dial failed.
    Failed(E),
    /// Look again: it may dial now, or what it waited for has become something else.
    Again,
    /// There is no room, and none will be made: who can turn elsewhere does.
    Full,
}

/// A call's place.
pub(super) struct Joined<C, E> {
    pub(super) turn: u64,
    /// Whether it is to dial.
    pub(super) dials: bool,
    pub(super) reply: oneshot::Receiver<Reply<C, E>>,
}

impl<C, E> Queue<C, E> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            next: 0,
            dials: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the call at this turn still waits.
    pub(super) fn has(&self, turn: u64) -> bool {
        self.waiting.binary_search_by_key(&turn, |w| w.turn).is_ok()
    }

    /// Dials that are going on.
    pub(super) const fn dials(&self) -> usize {
        self.dials
    }

    /// A call waits, behind all who wait; or at its former `turn`.
    pub(super) fn join(&mut self, turn: Option<u64>, may_dial: bool) -> Joined<C, E> {
        let turn = turn.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let (reply, receiver) = oneshot::channel();
        let at = self.waiting.partition_point(|other| other.turn < turn);
        // Who came first dials first.
        let dials = may_dial
            && self
                .waiting
                .iter()
                .take(at)
                .all(|w| w.dialled || w.is_gone());
        self.dials += usize::from(dials);
        let waiting = Waiting {
            turn,
            dialled: dials,
            reply,
        };
        self.waiting.insert(at, waiting);
        Joined {
            turn,
            dials,
            reply: receiver,
        }
    }

    /// A dial that no call waits for.
    pub(super) const fn dial(&mut self) -> u64 {
        self.dials += 1;
        self.next += 1;
        self.next
    }

    /// Gives a connection to who waits longest; back if nobody does.
    pub(super) fn give(&mut self, connection: C) -> Option<C> {
        let mut given = Reply::Connection(connection);
        while let Some(first) = self.waiting.pop_front() {
            match first.reply.send(given) {
                Ok(()) => return None,
                Err(back) => given = back, // it is gone
            }
        }
        match given {
            Reply::Connection(connection) => Some(connection),
            Reply::Failed(_) | Reply::Again | Reply::Full => None,
        }
    }

    /// A dial has come to a connection: it is for the call that dialled, unless that has another.
    pub(super) fn dialled(&mut self, turn: u64, connection: C) -> Option<C> {
        self.dials -= 1;
        match self.remove(turn) {
            None => self.give(connection),
            Some(own) => match own.reply.send(Reply::Connection(connection)) {
                Err(Reply::Connection(connection)) => self.give(connection),
                _ => None,
            },
        }
    }

    /// A dial has failed: that is told to the call that dialled, and to no other that dials.
    /// With `all`, also to those whose turn to dial did not come: it would come to the same.
    pub(super) fn failed(&mut self, turn: u64, error: &E, all: bool)
    where
        E: Clone,
    {
        self.dials -= 1;
        if let Some(own) = self.remove(turn) {
            let _ = own.reply.send(Reply::Failed(error.clone()));
        }
        if all {
            self.tell(|| Reply::Failed(error.clone()), |waiting| !waiting.dialled);
        }
    }

    /// A dial has ended without an answer: who waited for it looks again.
    pub(super) fn given_up(&mut self, turn: u64) {
        self.dials -= 1;
        if let Some(own) = self.remove(turn) {
            let _ = own.reply.send(Reply::Again);
        }
    }

    /// The next whose turn to dial has not come may dial.
    pub(super) fn let_dial(&mut self) {
        while let Some(at) = self.waiting.iter().position(|w| !w.dialled) {
            let Some(next) = self.waiting.remove(at) else {
                return;
            };
            if next.reply.send(Reply::Again).is_ok() {
                return;
            }
        }
    }

    /// Tells everybody.
    pub(super) fn tell_all(&mut self, reply: impl Fn() -> Reply<C, E>) {
        self.tell(reply, |_| true);
    }

    fn tell(&mut self, reply: impl Fn() -> Reply<C, E>, whom: impl Fn(&Waiting<C, E>) -> bool) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            if whom(&one) {
                let _ = one.reply.send(reply());
            } else {
                self.waiting.push_back(one);
            }
        }
    }

    fn remove(&mut self, turn: u64) -> Option<Waiting<C, E>> {
        let at = self.waiting.binary_search_by_key(&turn, |w| w.turn).ok()?;
        self.waiting.remove(at)
    }
}

impl<C, E> Waiting<C, E> {
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Q = Queue<u32, &'static str>;

    fn told(joined: &mut Joined<u32, &'static str>) -> Option<Reply<u32, &'static str>> {
        joined.reply.try_recv().ok()
    }

    #[test]
    fn a_dial_s_connection_is_for_its_call_and_else_for_who_waits_longest() {
        let mut queue = Q::new();
        let mut calls: Vec<_> = (0..3).map(|_| queue.join(None, true)).collect();
        assert!(calls.iter().all(|call| call.dials));
        assert_eq!(queue.dialled(calls[1].turn, 1), None);
        assert!(matches!(told(&mut calls[1]), Some(Reply::Connection(1))));
        assert!(told(&mut calls[0]).is_none());
        assert_eq!(queue.give(7), None);
        assert!(matches!(told(&mut calls[0]), Some(Reply::Connection(7))));
        // The first has one: its dial's is for the third.
        assert_eq!(queue.dialled(calls[0].turn, 0), None);
        assert!(matches!(told(&mut calls[2]), Some(Reply::Connection(0))));
        assert_eq!(queue.dialled(calls[2].turn, 2), Some(2));
        assert_eq!(queue.dials(), 0);
    }

    #[test]
    fn a_dial_that_fails_fails_its_own_call_only() {
        let mut queue = Q::new();
        let mut calls: Vec<_> = (0..2).map(|_| queue.join(None, true)).collect();
        let mut third = queue.join(None, false);
        queue.failed(calls[0].turn, &"no", false);
        assert!(matches!(told(&mut calls[0]), Some(Reply::Failed("no"))));
        assert!(told(&mut calls[1]).is_none() && told(&mut third).is_none());
        // Who served others since must not fail them; who served nobody fails those in the queue.
        queue.failed(calls[1].turn, &"no", true);
        assert!(matches!(told(&mut calls[1]), Some(Reply::Failed("no"))));
        assert!(matches!(told(&mut third), Some(Reply::Failed("no"))));
        assert!(queue.is_empty());
    }

    #[test]
    fn turns_to_dial_come_in_the_order_of_calls() {
        let mut queue = Q::new();
        let _first = queue.join(None, true);
        let mut second = queue.join(None, false);
        let mut third = queue.join(None, true);
        assert!(!third.dials, "the second came first");
        queue.let_dial();
        assert!(matches!(told(&mut second), Some(Reply::Again)));
        let mut second = queue.join(Some(second.turn), true);
        assert!(second.dials);
        assert_eq!(queue.give(1), None); // to the first
        assert_eq!(queue.give(2), None);
        assert!(matches!(told(&mut second), Some(Reply::Connection(2))));
        assert!(told(&mut third).is_none());
    }

    #[test]
    fn who_is_gone_is_passed_over_wherever_it_went() {
        let mut queue = Q::new();
        let first = queue.join(None, true);
        let second = queue.join(None, true);
        let mut third = queue.join(None, false);
        let (one, two) = (first.turn, second.turn);
        drop((first, second));
        assert_eq!(queue.dialled(one, 1), None);
        assert!(matches!(told(&mut third), Some(Reply::Connection(1))));
        queue.failed(two, &"no", false);
        queue.let_dial();
        assert!(queue.is_empty() && queue.dials() == 0);
        assert_eq!(queue.give(5), Some(5));
    }
}
