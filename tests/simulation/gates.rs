//! Whom calls reach, through a balancer that is as old as its subscription.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tower::Service;
use tower_nacos::{
    Balance,
    directory::{Snapshot, Subscription},
    model::{Address, Instance},
};

use crate::client::ensure;

/// Calls after each change: more than a pick table that is a change old would let pass.
const CALLS: usize = 4;

pub(crate) struct Gates {
    balance: Balance<Entrance>,
    entered: Entered,
}

type Entered = Arc<Mutex<Option<Address>>>;

/// An instance that notes that it was called.
struct Entrance {
    address: Address,
    entered: Entered,
}

impl Clone for Entrance {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            entered: Arc::clone(&self.entered),
        }
    }
}

impl Service<()> for Entrance {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        *self.entered.lock().unwrap() = Some(self.address.clone());
        ready(Ok(()))
    }
}

impl Gates {
    pub(crate) fn new(sub: &Subscription) -> Self {
        let entered = Entered::default();
        let at = Arc::clone(&entered);
        let make = move |instance: &Instance| Entrance {
            address: instance.address().clone(),
            entered: Arc::clone(&at),
        };
        Self {
            balance: Balance::builder(sub).build(make),
            entered,
        }
    }

    /// Calls get through as long as somebody is callable, and to nobody else.
    pub(crate) fn check(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        if snapshot.callable_len() == 0 {
            return Ok(()); // a call would fail, or wait for the clock
        }
        for _ in 0..CALLS {
            let call = pin!(self.balance.call(()));
            let result = call.poll(&mut Context::from_waker(Waker::noop()));
            let entered = self.entered.lock().unwrap().take();
            let Some(entered) = entered.filter(|_| matches!(result, Poll::Ready(Ok(())))) else {
                return Err(format!("a call gets nowhere: {result:?}"));
            };
            let callable = snapshot
                .find(&entered)
                .is_some_and(|entry| entry.standing().is_callable());
            ensure(callable, || format!("a call enters {entered}"))?;
        }
        Ok(())
    }
}
