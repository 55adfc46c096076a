use std::sync::{Arc, Weak};

use crate::{
    balance::{Looked, Policy},
    http::{client::Client, pool::Pool, target::Balanced},
};

/// The balancers of a client, for the status page.
pub(crate) trait Balances: Send + Sync {
    /// Shows each that there is now. Keeps none, and counts as no use of any.
    fn each(&self, visit: &mut dyn FnMut(Weak<dyn Looked>));
}

impl<P: Policy> Client<P> {
    /// Its balancers, for as long as it lives.
    pub(crate) fn balances(&self) -> Weak<dyn Balances> {
        let pool: Weak<Pool<Balanced<P>>> = Arc::downgrade(&self.pool);
        pool
    }
}

impl<P: Policy> Balances for Pool<Balanced<P>> {
    fn each(&self, visit: &mut dyn FnMut(Weak<dyn Looked>)) {
        Self::each(self, |balance| visit(balance.looked()));
    }
}
