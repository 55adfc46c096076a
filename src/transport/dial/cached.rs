use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::{Instant, timeout};

use crate::{
    endpoint, logs,
    transport::dial::resolve::{Resolve, SystemResolver},
};

/// A resolver that remembers, for [`TransportBuilder::resolver`](crate::transport::TransportBuilder::resolver).
///
/// An answer is good for its [`ttl`](Self::ttl). After that the next dial asks again, and whoever dials
/// meanwhile waits for the same answer. If there is none, the former serves on for a while
/// ([`stale_if_error`](Self::stale_if_error)): instances stay callable while DNS is away. That there is no
/// such name ([`io::ErrorKind::NotFound`]) is an answer, which is believed and not remembered; the system's resolver does
/// not say it apart from its other errors.
///
/// Cheap to clone, and clones share what they know. Of 4,096 names what was asked for most recently is kept.
///
/// ```
/// use std::time::Duration;
/// use tower_nacos::transport::{CachedResolver, Transport};
///
/// let names = CachedResolver::default().ttl(Duration::from_secs(10));
/// let transport = Transport::builder().resolver(names);
/// ```
pub struct CachedResolver<R = SystemResolver> {
    resolver: Arc<R>,
    ttl: Duration,
    stale: Duration,
    names: Arc<Names>,
}

type Names = Mutex<HashMap<Name, Known>>;
type Name = (Box<str>, u16);
type Found = Arc<[SocketAddr]>;
type Asking = BoxFuture<'static, Result<Found, Arc<io::Error>>>;

/// What is known of a name.
#[derive(Default)]
struct Known {
    answer: Option<Answer>,
    /// The question that is under way, as long as anybody waits for it.
    asking: Option<WeakShared<Asking>>,
    asked: Option<Instant>,
}

#[derive(Clone)]
struct Answer {
    found: Found,
    at: Instant,
    /// When asking again failed last.
    failed: Option<Instant>,
}

/// What a dial goes by.
enum Way {
    Known(Found),
    /// The answer of a question, or within [`PATIENCE`] what was known before.
    Ask(Shared<Asking>, Option<Found>),
}

impl CachedResolver {
    /// Remembers what this resolver answers.
    pub fn new<R: Resolve>(resolver: R) -> CachedResolver<R> {
        CachedResolver {
            resolver: Arc::new(resolver),
            ttl: Duration::from_secs(30),
            stale: Duration::from_secs(3600),
            names: Arc::default(),
        }
    }
}

impl<R: Resolve> CachedResolver<R> {
    /// For how long an answer is good. Default: 30 s, as in Java and gRPC-Java: the system's resolver does
    /// not pass on what DNS says. 0: only those who dial at the same time share an answer.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// For how long after that an answer serves on if asking again fails, or takes longer than 1 s (which
    /// leaves time to connect). Asked again at most every 5 s then. Default: 1 hour; RFC 8767 suggests days
    /// for names in general, and instances move more. 0: never.
    #[must_use]
    pub const fn stale_if_error(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    fn way(&self, name: &str, port: u16, now: Instant) -> Way {
        let mut names = lock(&self.names);
        let key = (Box::from(name), port);
        if names.len() >= MOST && !names.contains_key(&key) {
            forget_oldest(&mut names);
        }
        let known = names.entry(key.clone()).or_default();
        known.asked = Some(now);
        let mut stale = None;
        if let Some(answer) = &known.answer {
            let age = now.saturating_duration_since(answer.at);
            let serves = age < self.ttl.saturating_add(self.stale);
            let failed = answer.failed.map(|at| now.saturating_duration_since(at));
            if age < self.ttl || serves && failed.is_some_and(|ago| ago < AGAIN) {
                return Way::Known(Arc::clone(&answer.found));
            }
            stale = serves.then(|| Arc::clone(&answer.found));
        }
        let under_way = known.asking.as_ref().and_then(WeakShared::upgrade);
        let asking = under_way.unwrap_or_else(|| self.ask(key));
        known.asking = asking.downgrade();
        Way::Ask(asking, stale)
    }

    /// A question that is noted when it is answered, whoever waits for it by then.
    fn ask(&self, key: Name) -> Shared<Asking> {
        let (resolver, names) = (Arc::clone(&self.resolver), Arc::clone(&self.names));
        let asking = async move {
            let resolving = async { resolver.resolve(&key.0, key.1).await };
            let resolved = AssertUnwindSafe(resolving).catch_unwind().await;
            let resolved = resolved
                .unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")))
                .map(Found::from)
                .and_then(|found| match found.is_empty() {
                    true => Err(io::Error::other("the resolver knows no address")),
                    false => Ok(found),
                });
            let now = endpoint::now();
            let mut names = lock(&names);
            let Some(known) = names.get_mut(&key) else {
                return resolved.map_err(Arc::new);
            };
            match &resolved {
                Ok(found) => {
                    known.answer = Some(Answer {
                        found: Arc::clone(found),
                        at: now,
                        failed: None,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => known.answer = None,
                Err(_) => known.fail(now),
            }
            resolved.map_err(Arc::new)
        };
        asking.boxed().shared()
    }

    fn late(names: &Names, name: &str, port: u16) {
        if let Some(known) = lock(names).get_mut(&(Box::from(name), port)) {
            known.fail(endpoint::now());
        }
    }
}

impl Known {
    fn fail(&mut self, now: Instant) {
        if let Some(answer) = &mut self.answer {
            answer.failed = Some(now);
        }
    }
}

impl<R: Resolve> Resolve for CachedResolver<R> {
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (asking, stale) = match self.way(name, port, endpoint::now()) {
            Way::Known(found) => return Box::pin(std::future::ready(Ok(found.to_vec()))),
            Way::Ask(asking, stale) => (asking, stale),
        };
        let Some(stale) = stale else {
            return Box::pin(async move { told(asking.await) });
        };
        let (names, name) = (Arc::clone(&self.names), Box::<str>::from(name));
        Box::pin(async move {
            let why = match timeout(PATIENCE, asking).await {
                Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => error.to_string(),
                Ok(answered) => return told(answered),
                Err(_) => {
                    Self::late(&names, &name, port);
                    format!("no answer within {PATIENCE:?}")
                }
            };
            tracing::debug!(target: logs::TRANSPORT, name = &*name, why, "the name's former addresses serve on");
            Ok(stale.to_vec())
        })
    }
}

fn told(answered: Result<Found, Arc<io::Error>>) -> io::Result<Vec<SocketAddr>> {
    match answered {
        Ok(found) => Ok(found.to_vec()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

fn forget_oldest(names: &mut HashMap<Name, Known>) {
    let oldest = names.iter().min_by_key(|(_, known)| known.asked);
    if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
        names.remove(&oldest);
    }
}

fn lock(names: &Names) -> MutexGuard<'_, HashMap<Name, Known>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for CachedResolver {
    fn default() -> Self {
        Self::new(SystemResolver)
    }
}

impl<R> Clone for CachedResolver<R> {
    fn clone(&self) -> Self {
        Self {
            resolver: Arc::clone(&self.resolver),
            ttl: self.ttl,
            stale: self.stale,
            names: Arc::clone(&self.names),
        }
    }
}

impl<R> fmt::Debug for CachedResolver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResolver")
            .field("ttl", &self.ttl)
            .field("stale_if_error", &self.stale)
            .field("names", &lock(&self.names).len())
            .finish_non_exhaustive()
    }
}

/// How many names are known at once: more than any set of instances has, and little to look through.
const MOST: usize = 4096;
/// How long a new answer is waited for while a former one is there. RFC 8767 has 1.8 s; a dial has 3 s
/// for all.
const PATIENCE: Duration = Duration::from_secs(1);
/// After so long it is asked again while a former answer serves on. RFC 8767 has 30 s, for resolvers that
/// many use; this is one process, and who moved is wanted soon.
const AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "cached_tests.rs"]
mod tests;
