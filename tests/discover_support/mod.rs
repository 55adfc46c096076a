//! What the tests of discovery share: a writer in the place of a registry, and services that
//! count.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    unreachable_pub,
    reason = "a module of test crates, which nobody reaches into"
)]

pub(crate) mod logs;

use std::{
    collections::HashMap,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use tower::Service;
use tower_nacos::{
    directory::{self, Subscription, Writer},
    model::{Address, Instance, ServiceKey},
};

/// A service's writer and a subscription to it.
pub(crate) fn registry() -> (Writer, Subscription) {
    let key = ServiceKey::new("dev", "shop@@orders".parse().unwrap()).unwrap();
    directory::channel(key, directory::Options::default())
}

pub(crate) fn instance(address: &str) -> Instance {
    Instance::parse(address).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A context that nobody is woken by.
pub(crate) fn idle_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Counts the services that live and the calls they got, by address.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<HashMap<Address, Arc<Counts>>>>);

#[derive(Default)]
pub(crate) struct Counts {
    pub made: AtomicUsize,
    pub living: AtomicUsize,
    pub called: AtomicUsize,
}

/// Answers with its address at once.
pub(crate) struct Echo {
    address: Address,
    counts: Arc<Counts>,
}

impl Book {
    pub(crate) fn counts(&self, address: &str) -> Arc<Counts> {
        self.of(&address.parse().unwrap())
    }

    fn of(&self, address: &Address) -> Arc<Counts> {
        let mut book = self.0.lock().unwrap();
        Arc::clone(book.entry(address.clone()).or_default())
    }

    pub(crate) fn called(&self, address: &str) -> usize {
        self.counts(address).called.load(SeqCst)
    }

    pub(crate) fn living(&self, address: &str) -> usize {
        self.counts(address).living.load(SeqCst)
    }

    pub(crate) fn make(&self, instance: &Instance) -> Echo {
        let counts = self.of(instance.address());
        counts.made.fetch_add(1, SeqCst);
        counts.living.fetch_add(1, SeqCst);
        Echo {
            address: instance.address().clone(),
            counts,
        }
    }

    pub(crate) fn maker(&self) -> impl Fn(&Instance) -> Echo + Send + Sync + 'static {
        let book = self.clone();
        move |instance: &Instance| book.make(instance)
    }
}

impl Clone for Echo {
    fn clone(&self) -> Self {
        self.counts.living.fetch_add(1, SeqCst);
        Self {
            address: self.address.clone(),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.counts.living.fetch_sub(1, SeqCst);
    }
}

impl Service<u32> for Echo {
    type Response = Address;
    type Error = std::io::Error;
    type Future = Ready<Result<Address, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        self.counts.called.fetch_add(1, SeqCst);
        ready(Ok(self.address.clone()))
    }
}
