//! tower's own layers, put together as its documentation has them: p2c over the calls in flight behind a
//! `Buffer`, a time-out for each try, `Retry` with its `TpsBudget`, `Hedge`.

use std::{future::Ready, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    hedge::{self, Hedge},
    load::{CompleteOnResponse, PendingRequestsDiscover},
    retry::{
        self, Retry,
        budget::{Budget, TpsBudget},
    },
    timeout::Timeout,
    util::{BoxCloneService, BoxService},
};
use tower_nacos::{Instance, Subscription, balance::Random};

use crate::{
    Tries,
    field::{Field, Seen, instances},
};

/// As ours by its defaults: two tries more, one for five calls, after an answer of 500 or a time-out. It
/// does not rest before them, which is to its good here.
#[derive(Clone)]
struct Again {
    left: u32,
    budget: Arc<TpsBudget>,
}

impl retry::Policy<(), u16, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<u16, BoxError>) -> Option<Ready<()>> {
        if matches!(result, Ok(200)) {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// Every request may be.
#[derive(Clone)]
struct Every;

impl hedge::Policy<()> for Every {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}

pub(crate) async fn stock(seed: u64, tries: Tries) -> Seen {
    Random::seed_thread(seed);
    let field = Field::new(seed);
    let orders = Subscription::fixed(instances());
    let maker = field.clone();
    let discover = orders.discover(move |instance: &Instance| maker.make(instance));
    let loads = PendingRequestsDiscover::new(discover, CompleteOnResponse::default());
    let balance = Buffer::new(Balance::new(loads), 4096);
    let service = match tries.retry {
        false => BoxCloneService::new(balance),
        true => {
            let limited = Timeout::new(balance, crate::PER_TRY);
            let again = Again {
                left: 2,
                budget: Arc::new(TpsBudget::default()),
            };
            BoxCloneService::new(Retry::new(again, limited))
        }
    };
    let mut service = match tries.hedge {
        false => BoxService::new(service),
        true => BoxService::new(Hedge::new(service, Every, 20, 0.95, PERIOD)),
    };
    field
        .load(|| {
            let ready = service.ready().now_or_never().expect("the buffer is large");
            let called = ready.map(|service| service.call(()));
            async { called?.await }
        })
        .await
}

/// How long its histogram of latencies goes back.
const PERIOD: Duration = Duration::from_secs(10);
