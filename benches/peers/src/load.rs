//! A small load over a subscription: tower's own balancer on services in this process.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::timeout};
use tower::{Service, ServiceExt, balance::p2c::Balance, service_fn};
use tower_nacos::{Instance, Subscription};

/// A call here takes microseconds; one that takes this long found nobody to go to.
const DEADLINE: Duration = Duration::from_millis(500);

/// Calls every millisecond until it is ended.
pub(crate) struct Load {
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    pub(crate) fn start(subscription: &Subscription) -> Self {
        let mut balance = Balance::new(subscription.discover(|instance: &Instance| {
            let port = instance.address().port();
            service_fn(move |()| ready(Ok::<_, Infallible>(port)))
        }));
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(1));
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let call = async { balance.ready().await?.call(()).await };
                    let failed = match timeout(DEADLINE, call).await {
                        Ok(Ok(_)) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(_) => Some(format!("nothing for {DEADLINE:?}")),
                    };
                    counts.calls.fetch_add(1, Relaxed);
                    if let Some(error) = failed {
                        if counts.failed.fetch_add(1, Relaxed) == 0 {
                            eprintln!("a call failed: {error}");
                        }
                    }
                }
            }
        });
        Self { counts, task }
    }

    /// Ends it: calls, and how many of them failed.
    pub(crate) fn end(self) -> (u64, u64) {
        self.task.abort();
        (
            self.counts.calls.load(Relaxed),
            self.counts.failed.load(Relaxed),
        )
    }
}
