//! The rolling restart: every provider, one after another.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower_nacos::{
    Address, Subscription,
    directory::{Change, ChangeKind, Changes, RemovalCause},
};

use crate::{
    Error, HANG,
    books::{Books, Happening, Killed},
    child::{Child, Place},
    options::{Mode, Options},
    view::View,
};

pub(crate) struct Fleet<'a> {
    pub(crate) options: &'a Options,
    pub(crate) place: &'a Place<'a>,
    pub(crate) changes: Changes,
    pub(crate) witness: Witness<'a>,
}

/// Enters what happens.
pub(crate) struct Witness<'a> {
    pub(crate) books: Arc<Books>,
    pub(crate) view: &'a View,
    pub(crate) orders: Subscription,
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
            let books = &self.witness.books;
            let new = Child::start(books, self.place, provider, Some(&address)).await?;
            listed(&mut self.changes, &address).await?;
            self.witness.happened(provider, Happening::Returned, "");
            self.witness.sees_calls(&new).await?;
            providers.insert(provider, new);
            sleep(self.options.steady).await;
        }
        Ok(())
    }

    /// Tells it to go, and looks on: what is to be done then it knows by itself.
    async fn take_down(&mut self, provider: usize, mut old: Child) -> Result<(), Error> {
        let (life, address) = (old.life, old.address.clone());
        let witness = &self.witness;
        old.offline().await?;
        witness.happened(provider, Happening::Offline, "");
        let gone = async {
            let report = old.ended().await?;
            witness.happened(provider, Happening::Exited, &report);
            Ok::<_, Error>(())
        };
        let heard = async {
            let change = removed(&mut self.changes, &address).await?;
            witness.applied(provider, life, &change).await
        };
        let (gone, heard) = tokio::join!(gone, heard);
        gone.and(heard)
    }

    async fn kill(&mut self, provider: usize, old: Child) -> Result<(), Error> {
        let (life, address) = (old.life, old.address.clone());
        let witness = &self.witness;
        witness.happened(provider, Happening::Killed, "nobody tells the registry");
        let from = witness.books.now();
        let killed = async {
            old.kill().await?;
            Ok::<_, Error>(witness.books.now())
        };
        let (killed, evicted) = tokio::join!(killed, removed(&mut self.changes, &address));
        let to = killed?;
        witness.books.read().lives[life].killed = Some(Killed { address, from, to });
        witness.applied(provider, life, &evicted?).await
    }
}

impl Witness<'_> {
    fn happened(&self, provider: usize, what: Happening, detail: &str) {
        self.books.mark(provider, what);
        self.view.event(&self.books, provider, what, detail);
    }

    /// Waits until the eviction is applied, and enters how long that took.
    async fn applied(&self, provider: usize, life: usize, change: &Change) -> Result<(), Error> {
        let applied = timeout(HANG, self.orders.applied(change.revision)).await;
        applied.map_err(|_| "an eviction is never applied")??;
        if change.cause() == Some(RemovalCause::GoingOffline) {
            self.books.evicted(life, None);
            self.happened(provider, Happening::Marked, "callers heard it from itself");
            return Ok(());
        }
        let now = Instant::now().into_std();
        let took = now - change.received_at.ok_or("an eviction without a push")?;
        self.books.evicted(life, Some(took));
        let detail = format!("applied {} µs after the push", took.as_micros());
        self.happened(provider, Happening::Evicted, &detail);
        Ok(())
    }

    /// Waits until calls reach it.
    async fn sees_calls(&self, new: &Child) -> Result<(), Error> {
        let reached = async {
            while self.books.read().lives[new.life].calls() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = timeout(HANG, reached).await;
        reached.map_err(|_| "a provider is back and gets no calls".into())
    }
}

async fn listed(changes: &mut Changes, address: &Address) -> Result<(), Error> {
    let is =
        |change: &Change| change.kind == ChangeKind::Added && change.instance.address() == address;
    next(changes, is).await.map(drop)
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
