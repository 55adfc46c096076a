use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::{
    balance::{
        Balance, BalanceCounters, BalanceExplanation, Hints, Lease, P2c, Policy, choose::Chosen,
        lease::Outside, passage::Passage,
    },
    directory::Subscription,
    endpoint::{self, CallError, Fate, NeverRecover, Pick, Picked, Place, Tried, Waiter},
    model::Address,
    sync::poll_budget,
};

/// Picks instances for callers who make their calls themselves.
///
/// For clients that are no tower services, such as reqwest: [`pick`](Self::pick) says whom to call
/// and counts that call until its [`Lease`] is dropped. Everything else is as with a
/// [`Balance`]: the same gates, so that no instance is handed out that may not be called; the same
/// policies; the same limits and errors. `Clone`, and its clones share everything.
///
/// Take a tower service through a `Balance` instead where there is one: it picks, makes the
/// connections, closes those of evicted instances and judges errors by itself.
///
/// ```
/// use tower_nacos::{Instance, Subscription, balance::Balance, endpoint::Verdict};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// # async fn get(url: String) -> std::io::Result<u16> { Ok(url.len() as u16) }
/// let orders = Subscription::fixed([Instance::parse("10.0.0.3:8080")?]);
/// let picker = Balance::builder(&orders).picker();
/// let mut lease = picker.pick().await?;
/// match get(format!("http://{}/v1/items/7", lease.address())).await {
///     Ok(_) => lease.succeeded(),
///     Err(error) => lease.failed(Verdict::unreachable(error)), // nobody is sent there until it is back
/// }
/// assert!(picker.explain(&"10.0.0.3:8080".parse()?).to_string().contains("1 calls"));
/// # Ok(())
/// # }
/// ```
pub struct Picker<P: Policy = P2c> {
    balance: Ours<P>,
}

type Ours<P> = Balance<Outside, P, NeverRecover, (), ()>;

/// The future of [`Picker::pick`].
///
/// Example: [a picker](crate::balance::Picker)
#[must_use = "futures do nothing unless polled"]
pub struct Picking<P: Policy> {
    chosen: Chosen<Outside, P, NeverRecover, (), ()>,
    tried: Tried,
    /// Among those who wait for the next change of the instances.
    waiter: Waiter,
    passage: Passage,
}

impl<P: Policy> Picker<P> {
    pub(super) const fn new(balance: Ours<P>) -> Self {
        Self { balance }
    }

    /// Picks an instance, in the first poll unless it is not known yet which there are: then it
    /// waits as long as [`unknown_wait`](crate::balance::BalanceBuilder::unknown_wait) says.
    ///
    /// Allocates nothing. Dropped before it is ready it leaves all counts as they were.
    ///
    /// # Errors
    ///
    /// As a call of a [`Balance`]: there is no instance to call, none can be reached, it is not
    /// known which there are, or there are too many calls at once.
    pub fn pick(&self) -> Picking<P> {
        self.picking(Hints::new())
    }

    /// The same for a call that asks something of the pick: a hash key, a cluster, metadata, instances
    /// to leave out.
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick).
    pub fn pick_by(&self, hints: Hints) -> Picking<P> {
        self.picking(hints)
    }

    /// Picks an instance if one is to be had at once; never waits, so it needs no runtime.
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick).
    pub fn try_pick(&self) -> Result<Lease, CallError> {
        let mut picking = self.pick();
        picking.enter()?;
        loop {
            match picking.choose() {
                Picked::Place(place) => {
                    if let Some(lease) = picking.take(place) {
                        return Ok(lease);
                    }
                }
                Picked::Nobody(error) => {
                    picking.refuse(&error);
                    return Err(*error);
                }
                Picked::Wait => {
                    let known = picking.chosen.stripe.0.set().nobody_known();
                    let error = known.unwrap_or_else(|| CallError::Unknown {
                        service: self.subscription().key().clone(),
                        reason: self.subscription().unknown_because().into(),
                    });
                    picking.refuse(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Whether leases are out or waited for. Looks at each instance.
    pub(crate) fn is_in_use(&self) -> bool {
        self.balance.is_in_use()
    }

    fn picking(&self, hints: Hints) -> Picking<P> {
        Picking {
            chosen: Chosen {
                stripe: self.balance.stripe(),
                hints,
            },
            tried: Tried::default(),
            waiter: Waiter::default(),
            passage: Passage::default(),
        }
    }

    /// The subscription that it follows.
    pub fn subscription(&self) -> &Subscription {
        self.balance.subscription()
    }

    /// The policy.
    pub fn policy(&self) -> &P {
        self.balance.policy()
    }

    /// Why the instance at `address` is picked, or is not. Displays as a sentence.
    pub fn explain(&self, address: &Address) -> BalanceExplanation {
        self.balance.explain(address)
    }

    /// What happened in it so far.
    pub fn counters(&self) -> BalanceCounters {
        self.balance.counters()
    }

    /// Leases that are out, entering and waiting, over all instances.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn counts(&self) -> [u64; 3] {
        self.balance.counts()
    }
}

impl<P: Policy> Picking<P> {
    /// Counts against the limit of calls in flight, and does what has come up meanwhile.
    fn enter(&mut self) -> Result<(), CallError> {
        let core = &*self.chosen.stripe.0;
        core.set().maintain();
        let entered = self.passage.enter(core);
        if let Err(error) = &entered {
            self.passage.fail(core, error, Fate::of(error, Fate::Error));
        }
        entered
    }

    /// A place to be admitted to, or why there is none.
    fn choose(&self) -> Picked<Outside> {
        self.chosen.pick(&self.tried)
    }

    /// A lease of the place, unless its gate closed meanwhile.
    fn take(&mut self, mut place: Place<Outside>) -> Option<Lease> {
        let core = &*self.chosen.stripe.0;
        let admitted = place.admit(core.set())?;
        // What enters the instance is the caller's affair, and in flight from here on.
        drop(admitted.enter());
        let judge = Arc::clone(&self.chosen.stripe);
        let (counted, began) = (self.passage.hand_over(), self.passage.began());
        Some(Lease::new(admitted, judge, counted, began))
    }
}

impl<P: Policy> Future for Picking<P> {
    type Output = Result<Lease, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        ready!(poll_budget(cx));
        this.enter()?;
        let mut registered = false;
        let result = loop {
            match this.choose() {
                Picked::Place(place) => {
                    if let Some(lease) = this.take(place) {
                        break Ok(lease);
                    }
                }
                Picked::Nobody(error) => break Err(*error),
                Picked::Wait if registered => {
                    let core = &*this.chosen.stripe.0;
                    break Err(ready!(this.passage.poll_wait(core, cx)));
                }
                Picked::Wait => {
                    // Looked for again after this, so that no change falls in between.
                    this.waiter.register(this.chosen.stripe.0.set(), cx.waker());
                    this.tried.wait_since(endpoint::now());
                    registered = true;
                }
            }
        };
        if let Err(error) = &result {
            this.refuse(error);
        }
        this.leave();
        Poll::Ready(result)
    }
}

impl<P: Policy> Picking<P> {
    /// Nobody is to be had.
    fn refuse(&mut self, error: &CallError) {
        let core = &*self.chosen.stripe.0;
        self.passage.fail(core, error, Fate::of(error, Fate::Error));
    }

    /// Gives back all that it took and did not hand over.
    fn leave(&mut self) {
        let core = &*self.chosen.stripe.0;
        self.waiter.leave(core.set());
        self.passage.give_up(core);
    }
}

impl<P: Policy> Drop for Picking<P> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<P: Policy> Clone for Picker<P> {
    fn clone(&self) -> Self {
        Self {
            balance: self.balance.clone(),
        }
    }
}

impl<P: Policy> fmt::Debug for Picker<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker")
            .field("balance", &self.balance)
            .finish()
    }
}

impl<P: Policy> fmt::Debug for Picking<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picking").finish_non_exhaustive()
    }
}
