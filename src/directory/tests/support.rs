//! What the tests of this room share: names for instances, a scripted writer, a recording
//! consumer.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Change, ChangeKind, Changes, Consumer, Generation, Options, Origin, RemovalCause, Revision,
        Snapshot, Subscription, Transition, TransitionKind, Writer, channel,
    },
    model::{Address, Instance, Listing, Metadata, ServiceKey},
    sync::Bell,
};

pub(super) fn key() -> ServiceKey {
    ServiceKey::new("", "orders".parse().unwrap()).unwrap()
}

/// The instance number `n`.
pub(super) fn a(n: u16) -> Instance {
    Instance::parse(&format!("10.0.{}.{}:8080", n / 200, n % 200)).unwrap()
}

pub(super) fn at(n: u16) -> Address {
    a(n).address().clone()
}

pub(super) fn all(numbers: impl IntoIterator<Item = u16>) -> Vec<Instance> {
    numbers.into_iter().map(a).collect()
}

pub(super) fn meta(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().copied().collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant can only be read; tests only add to it"
)]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// A writer with a clock of its own.
pub(super) struct Script {
    pub(super) writer: Writer,
    pub(super) sub: Subscription,
    pub(super) now: Instant,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(super) fn with(options: Options) -> Self {
        let (writer, sub) = channel(key(), options);
        Self {
            writer,
            sub,
            now: start(),
        }
    }

    /// A connection with a first answer, and the push that confirms it.
    pub(super) fn listing(instances: Vec<Instance>) -> Self {
        let mut script = Self::new();
        script.writer.handle_connected(script.now);
        script.first(instances.clone());
        script.after(0.6).push(instances);
        script.after(5.0);
        script
    }

    pub(super) fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    /// Lets time pass as the driver does: every timeout is handled when it is due.
    pub(super) fn pass(&mut self, seconds: f64) -> &mut Self {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some(due) = self.writer.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.writer.handle_timeout(self.now);
            assert!(
                self.writer.poll_timeout().is_none_or(|next| next > due),
                "a timeout that was handled is due again"
            );
        }
        self.now = end;
        self
    }

    pub(super) fn push(&mut self, instances: Vec<Instance>) -> Revision {
        self.apply(Listing::new(instances), Origin::Push)
    }

    pub(super) fn first(&mut self, instances: Vec<Instance>) -> Revision {
        self.apply(Listing::new(instances), Origin::FirstAnswer)
    }

    pub(super) fn read(&mut self, instances: Vec<Instance>) -> Revision {
        self.apply(Listing::new(instances), Origin::Read)
    }

    pub(super) fn apply(&mut self, listing: Listing, origin: Origin) -> Revision {
        self.writer.apply(listing, origin, self.now)
    }

    /// The connection is lost and, `seconds` later, another stands.
    pub(super) fn reconnect(&mut self, seconds: f64) -> &mut Self {
        self.writer.handle_disconnected(self.now);
        self.pass(seconds);
        self.writer.handle_connected(self.now);
        self
    }

    pub(super) fn callable(&self) -> Vec<Address> {
        callable(&self.sub)
    }

    pub(super) fn generation(&self, n: u16) -> Generation {
        self.sub.snapshot().find(&at(n)).unwrap().generation()
    }

    pub(super) fn explain(&self, n: u16) -> String {
        self.sub.explain(&at(n)).to_string()
    }
}

pub(super) fn callable(sub: &Subscription) -> Vec<Address> {
    let snapshot = sub.snapshot();
    let callable: Vec<_> = snapshot
        .callable()
        .map(|entry| entry.instance().address().clone())
        .collect();
    assert_eq!(callable.len(), snapshot.callable_len());
    callable
}

pub(super) fn addresses(numbers: impl IntoIterator<Item = u16>) -> Vec<Address> {
    let mut addresses: Vec<_> = numbers.into_iter().map(at).collect();
    addresses.sort();
    addresses
}

/// The change that is there without waiting; `Ready(None)` at the end of the stream.
pub(super) fn poll(changes: &mut Changes) -> Poll<Option<Change>> {
    now_or_never(changes.next())
}

pub(super) fn now_or_never<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// All changes that are there without waiting.
pub(super) fn drain(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| match poll(changes) {
        Poll::Ready(change) => change,
        Poll::Pending => None,
    })
    .collect()
}

/// The removals among `changes`, with their causes.
pub(super) fn removed(changes: &[Change]) -> Vec<(Address, RemovalCause)> {
    changes
        .iter()
        .filter_map(|change| Some((change.instance.address().clone(), change.cause()?)))
        .collect()
}

/// Applies changes to a set.
pub(super) fn fold(set: &mut BTreeMap<Address, (Generation, Arc<Instance>)>, changes: &[Change]) {
    for change in changes {
        let address = change.instance.address().clone();
        let value = (change.generation, Arc::clone(&change.instance));
        match change.kind {
            ChangeKind::Added => assert!(set.insert(address, value).is_none(), "{change}: twice"),
            ChangeKind::Removed { .. } => {
                let (generation, _) = set.remove(&address).expect("a removal of what is there");
                assert_eq!(generation, change.generation);
            }
            ChangeKind::Updated => {
                let (generation, _) = set.insert(address, value).expect("an update in place");
                assert_eq!(generation, change.generation);
            }
        }
    }
}

/// A consumer that keeps gates as transitions say and notes what it was called with.
pub(super) struct Recorder {
    pub(super) state: Mutex<Recorded>,
    pub(super) notify: Arc<Bell>,
    pub(super) subscription: Mutex<Option<Subscription>>,
}

pub(super) struct Recorded {
    /// The gates: open or closed, by address and generation.
    pub(super) gates: BTreeMap<(Address, Generation), bool>,
    pub(super) quiet: Revision,
    /// Whether it becomes quiet by itself.
    pub(super) prompt: bool,
    pub(super) calls: Vec<String>,
    pub(super) transitions: Vec<Transition>,
}

impl Recorder {
    pub(super) fn new(snapshot: Arc<Snapshot>, notify: Arc<Bell>) -> Arc<Self> {
        let gates = snapshot
            .entries()
            .iter()
            .map(|entry| {
                let key = (entry.instance().address().clone(), entry.generation());
                (key, entry.standing().is_callable())
            })
            .collect();
        Arc::new(Self {
            state: Mutex::new(Recorded {
                gates,
                quiet: snapshot.revision(),
                prompt: true,
                calls: Vec::new(),
                transitions: Vec::new(),
            }),
            notify,
            subscription: Mutex::default(),
        })
    }

    pub(super) fn weak(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }

    pub(super) fn become_quiet(&self, revision: Revision) {
        self.state.lock().unwrap().quiet = revision;
        self.notify.ring();
    }

    pub(super) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub(super) fn take_transitions(&self) -> Vec<(Address, TransitionKind)> {
        std::mem::take(&mut self.state.lock().unwrap().transitions)
            .into_iter()
            .map(|transition| (transition.address, transition.kind))
            .collect()
    }

    /// What is open.
    pub(super) fn open(&self) -> Vec<(Address, Generation)> {
        let state = self.state.lock().unwrap();
        let open = state.gates.iter().filter(|(_, open)| **open);
        open.map(|(key, _)| key.clone()).collect()
    }

    fn published(&self) -> Revision {
        let subscription = self.subscription.lock().unwrap();
        subscription
            .as_ref()
            .map_or_else(Revision::default, |sub| sub.snapshot().revision())
    }
}

impl Consumer for Recorder {
    fn close(&self, next: &Arc<Snapshot>, transitions: &[Transition]) {
        let published = self.published();
        let mut state = self.state.lock().unwrap();
        state
            .calls
            .push(format!("close {} at {published}", next.revision()));
        for transition in transitions {
            let key = (transition.address.clone(), transition.generation);
            match transition.kind {
                TransitionKind::Evicted => {
                    assert!(transition.entry.is_none());
                    state.gates.remove(&key).expect("known when evicted");
                }
                TransitionKind::Closed => {
                    let was = state.gates.insert(key, false);
                    assert_eq!(was, Some(true), "{transition:?}");
                }
                TransitionKind::Opened | TransitionKind::Updated => {}
            }
        }
        if state.prompt {
            state.quiet = next.revision();
        }
    }

    fn reopen(&self, now: &Arc<Snapshot>, transitions: &[Transition]) {
        let published = self.published();
        let mut state = self.state.lock().unwrap();
        state
            .calls
            .push(format!("reopen {} at {published}", now.revision()));
        for transition in transitions {
            let key = (transition.address.clone(), transition.generation);
            if let Some(entry) = transition.entry {
                let entry = &now.entries()[entry];
                assert_eq!(entry.instance().address(), &transition.address);
                assert_eq!(entry.generation(), transition.generation);
            }
            match transition.kind {
                TransitionKind::Opened => {
                    let was = state.gates.insert(key, true);
                    assert_ne!(was, Some(true), "{transition:?}");
                }
                TransitionKind::Updated => {
                    assert_eq!(state.gates.get(&key), Some(&true), "{transition:?}");
                }
                _ => {}
            }
        }
        // What is listed and not callable has a gate, too: it may be closed from the start.
        for entry in now.entries() {
            let key = (entry.instance().address().clone(), entry.generation());
            state.gates.entry(key).or_insert(false);
        }
        state.transitions.extend_from_slice(transitions);
    }

    fn wake(&self) {
        self.state.lock().unwrap().calls.push("wake".into());
    }

    fn quiet(&self) -> Revision {
        self.state.lock().unwrap().quiet
    }
}
