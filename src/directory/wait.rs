//! Waiting for a subscription: for its first answer, for enough instances, for a revision.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use tokio::task::coop::consume_budget;

use crate::{
    directory::{Revision, Snapshot, Standing, Status, Subscription},
    model::{Address, ServiceKey},
};

const OTHERS_SHOWN: usize = 5;

/// Why a subscription did not become ready. The subscription goes on unless it is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// It was closed before the registry answered.
    #[error("the subscription of {service} was closed before the registry answered")]
    #[non_exhaustive]
    Closed {
        /// The service.
        service: ServiceKey,
    },
    /// The registry answered, and nothing of it could be used.
    #[error("the registry's answer for {service} cannot be used: {reason}")]
    #[non_exhaustive]
    Undecodable {
        /// The service.
        service: ServiceKey,
        /// What is wrong with the answer.
        reason: Box<str>,
    },
}

/// A subscription was closed before a revision was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscription of {service} is closed at revision {newest}, before {wanted}")]
#[non_exhaustive]
pub struct AppliedError {
    service: ServiceKey,
    newest: Revision,
    wanted: Revision,
}

/// A subscription was closed before its snapshot was as somebody waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscription of {service} was closed, and its snapshot never was as waited for")]
#[non_exhaustive]
pub struct WaitUntilError {
    service: ServiceKey,
}

/// There were not enough callable instances in time. Nothing changed; wait again if you like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitForError {
    service: ServiceKey,
    status: Status,
    wanted: usize,
    callable: usize,
    others: Vec<(Address, Standing)>,
    total_others: usize,
    remedy: Option<&'static str>,
    hint: Option<Arc<str>>,
}

impl Subscription {
    /// Waits until the registry has answered for the first time, or a set was found on disk. The answer
    /// may be an empty list.
    /// Without limit: put a timeout around it.
    ///
    /// # Errors
    ///
    /// When the subscription is closed, or the answer could not be read. The latter stays so until a
    /// better answer comes, which the client asks for by itself, with growing pauses.
    pub async fn ready(&self) -> Result<(), ReadyError> {
        self.ready_since(0).await
    }

    /// The same, but an answer that cannot be read counts only if it is later than the first
    /// `unreadable` of them.
    pub(crate) async fn ready_since(&self, unreadable: u64) -> Result<(), ReadyError> {
        consume_budget().await;
        self.until(|subscription| {
            let shared = &subscription.handle.shared;
            let (answered, closed) = {
                let state = shared.lock();
                (state.answered, state.closed)
            };
            let service = || subscription.key().clone();
            if answered {
                Some(Ok(()))
            } else if closed {
                Some(Err(ReadyError::Closed { service: service() }))
            } else {
                let reason = shared.unreadable(unreadable)?;
                Some(Err(ReadyError::Undecodable {
                    service: service(),
                    reason,
                }))
            }
        })
        .await
    }

    /// Waits until at least `instances` may be called, and returns the snapshot that says so. The
    /// error tells how many there are and why others may not be called.
    ///
    /// Needs a tokio runtime with time.
    pub async fn wait_for(
        &self,
        instances: usize,
        timeout: Duration,
    ) -> Result<Arc<Snapshot>, WaitForError> {
        consume_budget().await; // not within the time: what is there is found, be that nothing
        let enough = self.until(|subscription| {
            // Closed is read first: what is published comes before it.
            let closed = subscription.status() == Status::Closed;
            let snapshot = subscription.snapshot();
            let known = snapshot.is_known() || snapshot.revision() > Revision::default();
            if known && snapshot.callable_len() >= instances {
                Some(Some(snapshot))
            } else {
                closed.then_some(None)
            }
        });
        match tokio::time::timeout(timeout, enough).await {
            Ok(Some(snapshot)) => Ok(snapshot),
            Ok(None) | Err(_) => Err(WaitForError::new(self, instances)),
        }
    }

    /// Waits until a snapshot is as `wanted`, which is asked of the present one and then of each that
    /// is published, and returns it. Nothing is asked before the registry has answered, or a set was
    /// found on disk. Snapshots that follow each other faster than they are looked at are seen as the
    /// newest alone.
    /// Without limit: put a timeout around it.
    ///
    /// Of [several](Self::merge) the snapshot is asked of once one source has answered, so that one
    /// which never does stops nobody. What only the others list is not in it yet: who waits for an
    /// instance to be absent takes [`wait_gone`](Self::wait_gone), or asks besides that
    /// [`status`](Self::status) is not [`Unknown`](Status::Unknown).
    ///
    /// ```
    /// # use tower_nacos::{Instance, Subscription};
    /// # async fn example(orders: Subscription) -> Result<(), Box<dyn std::error::Error>> {
    /// let ours = "10.0.0.3:8080".parse()?;
    /// orders.wait_until(|snapshot| snapshot.find(&ours).is_some()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When the subscription is closed before.
    pub async fn wait_until(
        &self,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, WaitUntilError> {
        self.wait_once(|_| true, wanted).await
    }

    /// The same, but nothing is asked before it is `time`.
    async fn wait_once(
        &self,
        time: impl Fn(&Self) -> bool,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, WaitUntilError> {
        consume_budget().await;
        self.until(|subscription| {
            // The snapshot is read last: what is published comes before the others.
            let closed = subscription.status() == Status::Closed;
            let time = time(subscription);
            let snapshot = subscription.snapshot();
            let known = snapshot.is_known() || snapshot.revision() > Revision::default();
            if known && time && wanted(&snapshot) {
                Some(Ok(snapshot))
            } else {
                closed.then(|| {
                    let service = subscription.key().clone();
                    Err(WaitUntilError { service })
                })
            }
        })
        .await
    }

    /// Waits until no call enters the instance at `address` any more: it may not be called, or is not
    /// listed (which is so at once for one that never was), and the list that says so is [applied](Self::applied).
    /// Without limit: put a timeout around it.
    ///
    /// Of [several](Self::merge) it is believed to be gone once every source that is open has answered,
    /// or was found on disk: one that has not may list it. A registry that never answers makes this
    /// wait.
    ///
    /// # Errors
    ///
    /// When the subscription is closed while it may be called.
    pub async fn wait_gone(&self, address: &Address) -> Result<(), WaitUntilError> {
        let callable = |snapshot: &Snapshot| {
            let entry = snapshot.find(address);
            entry.is_some_and(|entry| entry.standing().is_callable())
        };
        let all_heard = |subscription: &Self| subscription.handle.shared.has_begun_whole();
        let gone = self
            .wait_once(all_heard, |snapshot| !callable(snapshot))
            .await?;
        let applied = self.applied(gone.revision()).await;
        applied.map_err(|AppliedError { service, .. }| WaitUntilError { service })
    }

    /// Waits until `revision` is *applied*: in every balancer and discovery of this service (its consumers) no call
    /// is between being let in and the end of `Service::call` on an instance that may not be called in it. Calls that
    /// had left `Service::call` before are in flight, and go on.
    ///
    /// # Errors
    ///
    /// When the subscription is closed, and will not come to that revision.
    pub async fn applied(&self, revision: Revision) -> Result<(), AppliedError> {
        consume_budget().await;
        self.until(|subscription| {
            let closed = subscription.status() == Status::Closed;
            if subscription.applied_revision() >= revision {
                return Some(Ok(()));
            }
            let newest = subscription.revision();
            (closed && newest < revision).then(|| {
                Err(AppliedError {
                    service: subscription.key().clone(),
                    newest,
                    wanted: revision,
                })
            })
        })
        .await
    }

    /// Looks whenever something was published or became quiet.
    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.handle.shared.changed.rung());
            changed.as_mut().enable(); // before the look: nothing is missed in between
            if let Some(result) = look(self) {
                return result;
            }
            changed.await;
        }
    }
}

impl WaitForError {
    fn new(subscription: &Subscription, wanted: usize) -> Self {
        let snapshot = subscription.snapshot();
        let others: Vec<_> = snapshot
            .entries()
            .iter()
            .filter(|entry| !entry.standing().is_callable())
            .take(OTHERS_SHOWN)
            .map(|entry| (entry.instance().address().clone(), entry.standing()))
            .collect();
        Self {
            service: subscription.key().clone(),
            status: subscription.status(),
            wanted,
            callable: snapshot.callable_len(),
            remedy: snapshot.remedy(),
            hint: snapshot.hint(),
            total_others: snapshot.entries().len() - snapshot.callable_len(),
            others,
        }
    }

    /// How many instances could be called when time was up.
    pub const fn callable(&self) -> usize {
        self.callable
    }

    /// Some of the listed instances that could not be called, with the reason; at most 5.
    pub fn others(&self) -> &[(Address, Standing)] {
        &self.others
    }

    /// What probably is the matter, as [`Subscription::hint`].
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the subscription was closed meanwhile.
    pub fn is_closed(&self) -> bool {
        self.status == Status::Closed
    }
}

impl fmt::Display for WaitForError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            wanted,
            callable,
            ..
        } = self;
        write!(
            f,
            "{service} has {callable} callable of the {wanted} instances waited for"
        )?;
        if self.status != Status::Fresh {
            write!(f, " ({})", self.status)?;
        }
        for (at, (address, standing)) in self.others.iter().enumerate() {
            let lead = if at == 0 { "; not " } else { ", " };
            write!(f, "{lead}{address}: {standing}")?;
        }
        match self.total_others - self.others.len() {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        if let Some(remedy) = self.remedy {
            write!(f, "; {remedy}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for WaitForError {}
