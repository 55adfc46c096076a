//! The life of every item, written once: in the queue, sent, answered, failed, waiting, forgotten
//! with its connection, asked for anew.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{
    calls::Purpose,
    error::OperationError,
    item::{Asked, Asking, Context, Id, Item, Kind, Next, Then},
    late::Late,
    machine::{Life, Session},
    own::Own,
    publications::Publication,
    subscriptions::Subscription,
    timers::Timer,
};
use crate::{model::ServiceKey, wire::Answer};

/// Everything that is wanted of servers, and what waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Items {
    table: BTreeMap<Id, Item>,
    queue: VecDeque<Id>,
    late: Late,
}

impl Items {
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Id> {
        self.table.keys()
    }

    pub(super) fn contains(&self, id: &Id) -> bool {
        self.table.contains_key(id)
    }

    /// Whether nobody waits for a turn, and every publication stands as it is wanted, or is refused
    /// for good.
    pub(super) fn are_settled(&self, now: Instant) -> bool {
        let settled = |item: &Item| {
            matches!(item.next(now), Next::Rest | Next::Over) || item.effort.is_blocked()
        };
        let publications = self.table.values();
        let publications =
            publications.take_while(|item| matches!(item.kind, Kind::Publication(_)));
        self.queue.is_empty() && publications.into_iter().all(settled)
    }

    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.queue.clear();
    }

    pub(super) fn insert(&mut self, id: Id, kind: Kind) {
        self.table.insert(id, Item::new(kind));
    }

    /// Takes an item out, with nothing more to say.
    pub(super) fn remove(&mut self, id: &Id) -> bool {
        self.table.remove(id).is_some()
    }

    pub(super) fn publication(&mut self, key: &ServiceKey) -> Option<&mut Publication> {
        match &mut self.table.get_mut(&Id::Publication(key.clone()))?.kind {
            Kind::Publication(publication) => Some(&mut **publication),
            _ => None,
        }
    }

    pub(super) fn publications(&mut self) -> impl Iterator<Item = &mut Publication> {
        self.table
            .values_mut()
            .filter_map(|item| match &mut item.kind {
                Kind::Publication(publication) => Some(&mut **publication),
                _ => None,
            })
    }

    pub(super) fn subscription(&mut self, key: &ServiceKey) -> Option<&mut Subscription> {
        match &mut self.table.get_mut(&Id::Subscription(key.clone()))?.kind {
            Kind::Subscription(subscription) => Some(subscription),
            _ => None,
        }
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Id> {
        self.queue.pop_front()
    }
}

impl Session {
    /// What is wanted changed, or somebody asks again: past failures no longer count.
    pub(super) fn begin_anew(&mut self, id: &Id, now: Instant) {
        if let Some(item) = self.items.table.get_mut(id) {
            self.timers.stop(&Timer::Item(id.clone()));
            item.effort.begin_anew();
            self.touch(id, now);
        }
    }

    /// Gives the item a turn if there is something to ask, and ends it if it is over.
    pub(super) fn touch(&mut self, id: &Id, now: Instant) {
        let connected = self.current.is_some();
        let Some(item) = self.items.table.get_mut(id) else {
            return;
        };
        match item.next(now) {
            Next::Over if !item.effort.is_under_way() => self.end(id, now),
            Next::Over | Next::Rest => {}
            _ if !connected || !item.effort.is_idle() => {}
            Next::Wait(at) => {
                item.effort.wait();
                self.timers.set(Timer::Item(id.clone()), at);
            }
            Next::Ask(_) => {
                item.effort.queue();
                self.items.queue.push_back(id.clone());
            }
        }
    }

    /// Asks for it, at its turn.
    pub(super) fn send(&mut self, id: &Id, now: Instant) {
        let Some(current) = &self.current else {
            return;
        };
        let (link, own) = (current.id, Own::new(current, &self.interfaces));
        let Some(item) = self.items.table.get_mut(id) else {
            return; // it ended meanwhile
        };
        if !item.effort.take_turn() {
            return; // it ended and began again meanwhile
        }
        let Next::Ask(asked) = item.next(now) else {
            return self.touch(id, now);
        };
        let asking = Asking {
            now,
            config: &self.config,
            own,
            outputs: &mut self.outputs,
        };
        let request = match item.request(id, asked, asking) {
            Ok(request) => request,
            Err(error) => return self.item_answered(id, asked, now, Err(error), now),
        };
        let call = self.call(link, &request, Purpose::Item(id.clone(), asked), now);
        if let Some(item) = self.items.table.get_mut(id) {
            item.effort.sent(call);
        }
    }

    /// An answer to what was `asked` at `sent`, or none.
    pub(super) fn item_answered(
        &mut self,
        id: &Id,
        asked: Asked,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        now: Instant,
    ) {
        let open = self.life == Life::Open;
        let Some((item, late, mut cx)) = self.with_item(id, now) else {
            return; // nobody waits for it any longer
        };
        item.effort.ended();
        let verdict = match id {
            Id::Publication(key) | Id::Subscription(key) => verdict.and_then(|a| a.about(key)),
            Id::Read(_) => verdict,
        };
        if let (Err(error), Some(what)) = (&verdict, asked.leaves())
            && !error.is_refusal()
        {
            item.unanswered();
            late.note(id, what, now);
        }
        match item.answered(id, asked, sent, verdict, &mut cx) {
            Then::Settled => {
                item.effort.settled();
                // Unary calls overtake each other: an earlier request for something else may undo
                // it yet.
                let undone = |what| open && late.undoes(id, what, now);
                if asked.leaves().is_some_and(undone) && item.doubt(asked) {
                    item.effort.wait();
                    let at = now + cx.config.call_timeout;
                    cx.timers.set(Timer::Item(id.clone()), at);
                }
            }
            Then::Moot => {}
            Then::Anew => item.effort.begin_anew(),
            Then::Failed(error) => {
                let wait = item.effort.fail(&error, cx.rng);
                if asked == Asked::Reread {
                    item.effort.unblock(); // what is subscribed stays so
                }
                if let Some(wait) = wait {
                    cx.timers.set(Timer::Item(id.clone()), now + wait);
                }
                cx.outputs
                    .extend(item.tell(id, asked, error, wait.is_some()));
            }
            Then::Gone => {
                self.stop_timers(id);
                self.items.remove(id);
            }
        }
        self.touch(id, now);
    }

    /// The timer of an item.
    pub(super) fn item_due(&mut self, id: &Id, now: Instant) {
        if let Some(item) = self.items.table.get_mut(id) {
            item.effort.wake();
            self.touch(id, now);
        }
    }

    /// What waits does not wait any longer.
    pub(super) fn wake_waiting(&mut self, now: Instant) {
        for id in self.items.ids().cloned().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Item(id.clone()));
            self.item_due(&id, now);
        }
    }

    /// The connection is another: nothing is confirmed there, and what is no longer wanted ends.
    pub(super) fn forget_confirmations(&mut self, now: Instant) {
        self.items.queue.clear();
        self.items.late.forget();
        for id in self.items.ids().cloned().collect::<Vec<_>>() {
            self.stop_timers(&id);
            let Some(item) = self.items.table.get_mut(&id) else {
                continue;
            };
            item.lost(now);
            if item.next(now) == Next::Over {
                self.end(&id, now);
            }
        }
    }

    /// Everything is asked for at once.
    pub(super) fn ask_for_everything(&mut self, now: Instant) {
        for id in self.items.ids().cloned().collect::<Vec<_>>() {
            self.touch(&id, now);
        }
    }

    /// Forgets what came before the next attempt of everybody, but not what is wanted.
    pub(super) fn stop_timers(&mut self, id: &Id) {
        self.timers.stop(&Timer::Item(id.clone()));
        if let Id::Subscription(key) = id {
            self.timers.stop(&Timer::SafetyRead(key.clone()));
        }
    }

    fn end(&mut self, id: &Id, now: Instant) {
        self.stop_timers(id);
        if let Some(item) = self.items.table.remove(id) {
            item.end(id, &mut self.context(now));
        }
    }

    /// An item and what its kind works with.
    pub(super) fn with_item(
        &mut self,
        id: &Id,
        now: Instant,
    ) -> Option<(&mut Item, &mut Late, Context<'_>)> {
        let item = self.items.table.get_mut(id)?;
        let context = Context {
            now,
            config: &self.config,
            link: self.current.as_ref().map(|link| link.id),
            closing: self.life == Life::Closing,
            failures: item.effort.failures(),
            rng: &mut self.rng,
            timers: &mut self.timers,
            counters: &mut self.counters,
            outputs: &mut self.outputs,
            unfinished: &mut self.unfinished,
        };
        Some((item, &mut self.items.late, context))
    }

    fn context(&mut self, now: Instant) -> Context<'_> {
        Context {
            now,
            config: &self.config,
            link: self.current.as_ref().map(|link| link.id),
            closing: self.life == Life::Closing,
            failures: 0,
            rng: &mut self.rng,
            timers: &mut self.timers,
            counters: &mut self.counters,
            outputs: &mut self.outputs,
            unfinished: &mut self.unfinished,
        }
    }
}
