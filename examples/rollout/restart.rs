//! The rolling restart: every provider, one after another.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_nacos::{
    Address, Subscription,
    directory::{Change, ChangeKind, Changes},
};

use crate::{
    Error, HANG,
    books::{Books, Happening, Killed},
    child::Child,
    options::{Mode, Options},
    view::View,
};

pub(crate) struct Fleet<'a> {
    pub(crate) options: &'a Options,
    pub(crate) books: Arc<Books>,
    pub(crate) view: &'a View,
    /// Registry and service.
    pub(crate) place: (&'a str, &'a str),
    pub(crate) orders: Subscription,
    pub(crate) changes: Changes,
}

impl Fleet<'_> {
    /// Restarts them all where they are.
    pub(crate) async fn restart(&mut self, providers: &mut Vec<Child>) -> Result<(), Error> {
        sleep(self.options.steady).await;
        for provider in 0..providers.len() {
            let old = providers.remove(provider);
            let address = old.address.clone();
            match self.options.mode {
                Mode::Graceful => self.take_down(provider, old).await?,
                Mode::Kill => self.kill(provider, old).await?,
            }
            let new = Child::start(&self.books, self.place, provider, Some(&address)).await?;
            self.listed(&address).await?;
            self.happened(provider, Happening::Returned, "");
            self.called(&new).await?;
            providers.insert(provider, new);
            sleep(self.options.steady).await;
        }
        Ok(())
    }

    /// Deregister, wait until callers have heard, drain, exit.
    async fn take_down(&mut self, provider: usize, mut old: Child) -> Result<(), Error> {
        self.happened(provider, Happening::Offline, "");
        old.offline().await?;
        let until = Instant::now() + self.options.hear;
        self.evicted(provider, &old).await?;
        if Instant::now() > until {
            let late = "callers heard of it after it stopped waiting: give a longer --hear";
            return Err(late.into());
        }
        sleep_until(until).await;
        old.drain().await?;
        self.happened(provider, Happening::Exited, "");
        Ok(())
    }

    async fn kill(&mut self, provider: usize, old: Child) -> Result<(), Error> {
        let (life, address) = (old.life, old.address.clone());
        self.happened(provider, Happening::Killed, "nobody tells the registry");
        let from = self.books.now();
        let killed = async {
            old.kill().await?;
            Ok::<_, Error>(self.books.now())
        };
        let (killed, evicted) = tokio::join!(killed, removed(&mut self.changes, &address));
        let to = killed?;
        self.books.read().lives[life].killed = Some(Killed { address, from, to });
        self.applied(provider, life, &evicted?).await
    }

    async fn evicted(&mut self, provider: usize, old: &Child) -> Result<(), Error> {
        let change = removed(&mut self.changes, &old.address).await?;
        self.applied(provider, old.life, &change).await
    }

    /// Waits until the eviction is applied, and enters how long that took.
    async fn applied(&self, provider: usize, life: usize, change: &Change) -> Result<(), Error> {
        timeout(HANG, self.orders.applied(change.revision))
            .await
            .map_err(|_| "never applied")??;
        let now = Instant::now().into_std();
        let took = now - change.received_at.ok_or("an eviction without a push")?;
        self.books.evicted(life, took);
        let detail = format!("applied {} µs after the push", took.as_micros());
        self.happened(provider, Happening::Evicted, &detail);
        Ok(())
    }

    async fn listed(&mut self, address: &Address) -> Result<(), Error> {
        let added = |change: &Change| {
            change.kind == ChangeKind::Added && change.instance.address() == address
        };
        next(&mut self.changes, added).await.map(drop)
    }

    /// Waits until calls reach it.
    async fn called(&self, new: &Child) -> Result<(), Error> {
        let reached = async {
            while self.books.read().lives[new.life].calls() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = timeout(HANG, reached).await;
        reached.map_err(|_| "a provider is back and gets no calls".into())
    }

    fn happened(&self, provider: usize, what: Happening, detail: &str) {
        self.books.mark(provider, what);
        self.view.event(&self.books, provider, what, detail);
    }
}

async fn removed(changes: &mut Changes, address: &Address) -> Result<Change, Error> {
    let is = |change: &Change| change.cause().is_some() && change.instance.address() == address;
    next(changes, is).await
}

async fn next(changes: &mut Changes, is: impl Fn(&Change) -> bool) -> Result<Change, Error> {
    let wanted = async {
        while let Some(change) = changes.next().await {
            if is(&change) {
                return Ok(change);
            }
        }
        Err("the subscription ended".into())
    };
    timeout(HANG, wanted)
        .await
        .map_err(|_| "an expected change never came")?
}
