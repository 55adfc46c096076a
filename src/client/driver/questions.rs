//! What is asked about services as a whole, one question at a time: callers' in front, and on
//! explanations' account each service once. A main port that swallows everything takes seconds for
//! each, so neither may the one grow nor the others wait behind it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::{
    client::RequestError,
    model::{ServiceDetails, ServiceKey},
};

pub(super) type Caller = oneshot::Sender<Result<ServiceDetails, RequestError>>;

/// What is asked, and what is to be asked.
#[derive(Default)]
pub(super) struct Questions {
    callers: VecDeque<(ServiceKey, Caller)>,
    explanations: Explanations,
    under_way: Option<Question>,
}

pub(super) struct Question {
    pub(super) key: ServiceKey,
    /// Who waits; nobody, on an explanation's account.
    pub(super) caller: Option<Caller>,
}

/// Each service once, the first first.
#[derive(Default)]
struct Explanations {
    by_turn: BTreeMap<u64, ServiceKey>,
    turns: HashMap<ServiceKey, u64>,
    last: u64,
}

impl Questions {
    /// Somebody asks outright.
    pub(super) fn ask(&mut self, key: ServiceKey, caller: Caller) {
        // Without a connection nothing else takes out those who have gone.
        self.callers.retain(|(_, caller)| !caller.is_closed());
        self.callers.push_back((key, caller));
    }

    /// An explanation would show the answer. Whoever asks the same already asks for it, too.
    pub(super) fn explain(&mut self, key: ServiceKey) {
        let mut asked = self.under_way.iter().map(|question| &question.key);
        let mut waiting = self.callers.iter().map(|(key, _)| key);
        if !asked.any(|other| *other == key) && !waiting.any(|other| *other == key) {
            self.explanations.push(key);
        }
    }

    /// Nobody is subscribed to it any more, so no explanation shows the answer.
    pub(super) fn forget(&mut self, key: &ServiceKey) {
        self.explanations.remove(key);
    }

    /// Nobody knows whether the one under way will be answered: it is asked again. Which one.
    pub(super) fn begin_anew(&mut self) -> Option<ServiceKey> {
        let Question { key, caller } = self.under_way.take()?;
        match caller {
            Some(caller) => self.callers.push_front((key.clone(), caller)),
            None => self.explanations.push(key.clone()),
        }
        Some(key)
    }

    /// The next one, if none is under way. It is, if `ask` says so. `lacks` tells whether an
    /// explanation still lacks the answer.
    pub(super) fn ask_next(
        &mut self,
        lacks: impl Fn(&ServiceKey) -> bool,
        ask: impl FnOnce(&ServiceKey) -> bool,
    ) {
        if self.under_way.is_some() {
            return;
        }
        self.callers.retain(|(_, caller)| !caller.is_closed());
        if let Some((key, _)) = self.callers.front() {
            if ask(key) {
                let first = self.callers.pop_front();
                self.under_way = first.map(|(key, caller)| Question {
                    key,
                    caller: Some(caller),
                });
            }
            return;
        }
        while let Some(key) = self.explanations.first() {
            if !lacks(key) {
                self.explanations.pop();
            } else {
                if ask(key) {
                    let key = self.explanations.pop();
                    self.under_way = key.map(|key| Question { key, caller: None });
                }
                return;
            }
        }
    }

    /// The one under way, which is answered.
    pub(super) fn answered(&mut self) -> Option<Question> {
        self.under_way.take()
    }
}

impl Explanations {
    fn push(&mut self, key: ServiceKey) {
        if !self.turns.contains_key(&key) {
            self.last += 1;
            self.by_turn.insert(self.last, key.clone());
            self.turns.insert(key, self.last);
        }
    }

    fn remove(&mut self, key: &ServiceKey) {
        if let Some(turn) = self.turns.remove(key) {
            self.by_turn.remove(&turn);
        }
    }

    fn first(&self) -> Option<&ServiceKey> {
        self.by_turn.values().next()
    }

    fn pop(&mut self) -> Option<ServiceKey> {
        let (_, key) = self.by_turn.pop_first()?;
        self.turns.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ServiceKey {
        ServiceKey::new("dev", format!("orders-{n}").parse().unwrap()).unwrap()
    }

    /// Has the next one asked, and answered. Which, and whether for a caller.
    fn next(questions: &mut Questions) -> Option<(ServiceKey, bool)> {
        questions.ask_next(|_| true, |_| true);
        let asked = questions.answered()?;
        Some((asked.key, asked.caller.is_some()))
    }

    #[test]
    fn explanations_have_each_service_asked_once() {
        let mut questions = Questions::default();
        questions.explain(key(0));
        questions.ask_next(|_| true, |_| true);
        for _ in 0..1_000 {
            (0..10).for_each(|n| questions.explain(key(n)));
        }
        assert_eq!(questions.explanations.by_turn.len(), 9);
        assert_eq!(questions.explanations.turns.len(), 9);
        // A new connection: one more has to be asked, and no more than that.
        assert_eq!(questions.begin_anew(), Some(key(0)));
        (0..10).for_each(|n| questions.explain(key(n)));
        let asked: Vec<_> = std::iter::from_fn(|| next(&mut questions)).collect();
        let once: Vec<_> = (1..10).chain([0]).map(|n| (key(n), false)).collect();
        assert_eq!(asked, once);
    }

    #[test]
    fn callers_are_in_front_and_answer_explanations() {
        let mut questions = Questions::default();
        (0..10).for_each(|n| questions.explain(key(n)));
        let (first, _waits) = oneshot::channel();
        questions.ask(key(7), first);
        let (second, _waits_too) = oneshot::channel();
        questions.ask(key(99), second);
        questions.explain(key(99));
        assert_eq!(next(&mut questions), Some((key(7), true)));
        // The connection is another one: who was asked for is so again, and first.
        questions.ask_next(|_| true, |_| true);
        assert_eq!(questions.begin_anew(), Some(key(99)));
        assert_eq!(next(&mut questions), Some((key(99), true)));
        questions.ask_next(|other| *other != key(0), |_| true);
        assert_eq!(questions.answered().map(|asked| asked.key), Some(key(1)));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_kept() {
        let mut questions = Questions::default();
        for n in 0..1_000 {
            let (caller, gone) = oneshot::channel();
            questions.ask(key(n), caller);
            drop(gone);
            questions.explain(key(n));
            questions.forget(&key(n));
        }
        assert!(questions.callers.len() <= 1);
        assert!(questions.explanations.by_turn.is_empty());
        assert!(questions.explanations.turns.is_empty());
        assert_eq!(next(&mut questions), None);
    }

    #[test]
    fn one_that_cannot_be_asked_yet_waits_in_front() {
        let mut questions = Questions::default();
        let (caller, _waits) = oneshot::channel();
        questions.explain(key(1));
        questions.explain(key(2));
        questions.ask_next(|_| true, |_| false);
        questions.ask(key(0), caller);
        questions.ask_next(|_| true, |_| false);
        assert!(questions.answered().is_none());
        let asked: Vec<_> = std::iter::from_fn(|| next(&mut questions)).collect();
        assert_eq!(asked, [(key(0), true), (key(1), false), (key(2), false)]);
    }
}
