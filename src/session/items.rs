//! The life of every item, written once: in the queue, sent, answered, failed, waiting, forgotten
//! with its connection, asked for anew.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{
    asked::{Asked, Id},
    error::OperationError,
    event::CallId,
    item::{Item, Kind},
    kind::{Context, Next, Then},
    late::Late,
    names::Watch,
    publications::Publication,
    subscriptions::Subscription,
    timers::{Timer, Timers},
};
use crate::{
    model::{ServiceFilter, ServiceKey},
    wire::{Answer, Request},
};

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

    /// Takes an item out, with nothing more to say. False if there is none.
    pub(super) fn remove(&mut self, id: &Id, timers: &mut Timers<Timer>) -> bool {
        stop_timers(id, timers);
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

    /// Everything that tells which services there are.
    pub(super) fn watches(&mut self) -> impl Iterator<Item = (&Id, &mut Watch)> {
        self.table
            .iter_mut()
            .rev() // they stand last
            .map_while(|(id, item)| match &mut item.kind {
                Kind::Watch(watch) => Some((id, &mut **watch)),
                _ => None,
            })
    }

    pub(super) fn watch(&mut self, filter: &ServiceFilter) -> Option<&mut Watch> {
        match &mut self.table.get_mut(&Id::Watch(filter.clone()))?.kind {
            Kind::Watch(watch) => Some(&mut **watch),
            _ => None,
        }
    }

    /// What is wanted changed, or somebody asks again: past failures no longer count.
    pub(super) fn begin_anew(&mut self, id: &Id, cx: &mut Context<'_>) {
        if let Some(item) = self.table.get_mut(id) {
            cx.timers.stop(&Timer::Item(id.clone()));
            item.effort.begin_anew();
            self.touch(id, cx);
        }
    }

    /// What it waits for may be due sooner.
    pub(super) fn look_again(&mut self, id: &Id, cx: &mut Context<'_>) {
        if let Some(item) = self.table.get_mut(id)
            && item.effort.is_resting()
        {
            item.effort.wake();
            cx.timers.stop(&Timer::Item(id.clone()));
            self.touch(id, cx);
        }
    }

    /// Gives the item a turn if there is something to ask, and ends it if it is over.
    pub(super) fn touch(&mut self, id: &Id, cx: &mut Context<'_>) {
        let Some(item) = self.table.get_mut(id) else {
            return;
        };
        match item.next(cx.now) {
            Next::Over if !item.effort.is_under_way() => self.end(id, cx),
            Next::Over | Next::Rest => {}
            _ if cx.link.is_none() || !item.effort.is_idle() => {}
            Next::Wait(at) => {
                item.effort.wait();
                cx.timers.set(Timer::Item(id.clone()), at);
            }
            Next::Ask(_) => {
                item.effort.queue();
                self.queue.push_back(id.clone());
            }
        }
    }

    /// Whose turn it is, and what is to be sent for it; `None` if nobody's, or there is no connection.
    /// [`sent`](Self::sent) is to follow.
    pub(super) fn take_turn(&mut self, cx: &mut Context<'_>) -> Option<(Id, Asked, Request)> {
        let own = cx.own?;
        loop {
            let id = self.queue.pop_front()?;
            let Some(item) = self.table.get_mut(&id) else {
                continue; // it ended meanwhile
            };
            if !item.effort.take_turn() {
                continue; // it ended and began again meanwhile
            }
            match item.next(cx.now) {
                Next::Ask(asked) => match item.request(&id, asked, own, cx) {
                    Ok(request) => return Some((id, asked, request)),
                    Err(error) => self.answered(&id, asked, cx.now, Err(error), cx),
                },
                _ => self.touch(&id, cx),
            }
        }
    }

    /// What was to be sent for the item is under way as `call`.
    pub(super) fn sent(&mut self, id: &Id, call: CallId) {
        if let Some(item) = self.table.get_mut(id) {
            item.effort.sent(call);
        }
    }

    /// An answer to what was `asked` at `sent`, or none.
    pub(super) fn answered(
        &mut self,
        id: &Id,
        asked: Asked,
        sent: Instant,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) {
        let Some(item) = self.table.get_mut(id) else {
            return; // nobody waits for it any longer
        };
        let now = cx.now;
        cx.failures = item.effort.failures();
        item.effort.ended();
        let verdict = match id {
            Id::Publication(key) | Id::Subscription(key) => verdict.and_then(|a| a.about(key)),
            Id::Read(_) | Id::Watch(_) => verdict,
        };
        if let (Err(error), Some(what)) = (&verdict, asked.leaves())
            && !error.is_refusal()
        {
            item.unanswered();
            self.late.note(id, what, now);
        }
        match item.answered(id, asked, sent, verdict, cx) {
            Then::Settled => {
                item.effort.settled();
                // Unary calls overtake each other: an earlier request for something else may undo
                // it yet.
                let undone = |what| !cx.closing && self.late.undoes(id, what, now);
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
                self.remove(id, cx.timers);
            }
        }
        self.touch(id, cx);
    }

    /// The timer of an item.
    pub(super) fn due(&mut self, id: &Id, cx: &mut Context<'_>) {
        if let Some(item) = self.table.get_mut(id) {
            item.effort.wake();
            self.touch(id, cx);
        }
    }

    /// What waits does not wait any longer.
    pub(super) fn wake_waiting(&mut self, cx: &mut Context<'_>) {
        for id in self.ids().cloned().collect::<Vec<_>>() {
            cx.timers.stop(&Timer::Item(id.clone()));
            self.due(&id, cx);
        }
    }

    /// The connection is another: nothing is confirmed there, and what is no longer wanted ends.
    pub(super) fn forget_confirmations(&mut self, cx: &mut Context<'_>) {
        self.queue.clear();
        self.late.forget();
        for id in self.ids().cloned().collect::<Vec<_>>() {
            stop_timers(&id, cx.timers);
            let Some(item) = self.table.get_mut(&id) else {
                continue;
            };
            item.lost(cx.fuzzy_watch, cx.now);
            if item.next(cx.now) == Next::Over {
                self.end(&id, cx);
            }
        }
    }

    /// Everything is asked for at once.
    pub(super) fn ask_for_everything(&mut self, cx: &mut Context<'_>) {
        for id in self.ids().cloned().collect::<Vec<_>>() {
            self.touch(&id, cx);
        }
    }

    fn end(&mut self, id: &Id, cx: &mut Context<'_>) {
        stop_timers(id, cx.timers);
        if let Some(item) = self.table.remove(id) {
            item.end(id, cx);
        }
    }
}

/// Forgets what came before the next attempt of everybody, but not what is wanted.
fn stop_timers(id: &Id, timers: &mut Timers<Timer>) {
    timers.stop(&Timer::Item(id.clone()));
    if let Id::Subscription(key) = id {
        timers.stop(&Timer::SafetyRead(key.clone()));
    }
}
