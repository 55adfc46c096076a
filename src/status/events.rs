//! Server-sent events: that something changed, never what. A page then asks for what it shows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};

/// How many streams there may be.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    most: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Places>);

/// What a stream says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) version: u64,
    /// Whether it is over.
    pub(super) closed: bool,
}

struct Listening {
    news: watch::Receiver<News>,
    said: Option<u64>,
    at: Instant,
    _place: Taken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
        })
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Taken(Arc::clone(self)))
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The events of one reader. It holds one number and makes an event of it when it is asked for one, so that
/// a slow reader misses numbers and nothing piles up. Ends when it is told to, or when nobody tells any more.
pub(super) fn events(
    news: watch::Receiver<News>,
    place: Taken,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let listening = Listening {
        news,
        said: None,
        at: crate::endpoint::now(),
        _place: place,
    };
    stream::unfold(listening, |mut listening| async {
        let event = listening.next().await?;
        Some((event, listening))
    })
}

impl Listening {
    async fn next(&mut self) -> Option<Bytes> {
        let Some(said) = self.said else {
            let news = *self.news.borrow_and_update();
            return self.say("retry: 3000\n", "change", news);
        };
        let tick = self.at + TICK;
        let rest = sleep_until(self.at + REST);
        rest.await; // changes may come by the thousand
        loop {
            let news = *self.news.borrow_and_update();
            if news.version != said || news.closed {
                return self.say("", "change", news);
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = sleep_until(tick) => return self.say("", "tick", news),
            }
        }
    }

    fn say(&mut self, before: &str, kind: &str, news: News) -> Option<Bytes> {
        if news.closed {
            return None;
        }
        self.said = Some(news.version);
        self.at = crate::endpoint::now();
        let version = news.version;
        Some(format!("{before}event: {kind}\ndata: {version}\n\n").into())
    }
}

fn sleep_until(at: Instant) -> Sleep {
    sleep(at.saturating_duration_since(crate::endpoint::now()))
}

/// So that figures move, and so that it shows when a reader has gone.
const TICK: Duration = Duration::from_secs(5);
/// Between two events.
const REST: Duration = Duration::from_millis(500);
/// How many streams there may be unless it is said.
pub(super) const STREAMS: usize = 64;
