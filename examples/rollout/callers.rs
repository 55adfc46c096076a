//! A steady load: short calls that must not be done twice, and long answers that must not be cut.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    Error, HANG,
    books::{Books, Call, Failure, Outcome, Way},
    wires::Wires,
};

/// Callers of each way, one call at a time each. One more reads long answers.
const CALLERS: u32 = 8;
const WAYS: [Way; 3] = [Way::Http1, Way::Http2, Way::Grpc];

pub(crate) struct Callers {
    tasks: JoinSet<()>,
    running: watch::Sender<bool>,
}

impl Callers {
    /// Makes so many calls a second, for as long as providers keep up.
    pub(crate) fn start(books: &Arc<Books>, wires: &Wires, rate: u32) -> Self {
        let running = watch::channel(true).0;
        let mut tasks = JoinSet::new();
        let period = Duration::from_secs(1) * CALLERS * WAYS.len() as u32 / rate;
        for way in WAYS {
            for caller in 0..=CALLERS {
                let long = caller == CALLERS;
                let period = if long {
                    Duration::from_millis(1)
                } else {
                    period
                };
                let running = running.subscribe();
                tasks.spawn(call_for_ever(
                    books.clone(),
                    wires.clone(),
                    way,
                    long,
                    period,
                    running,
                ));
            }
        }
        Self { tasks, running }
    }

    /// Lets the calls that are under way end.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.running.send_replace(false);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        timeout(2 * HANG, all).await.map_err(|_| "callers hang")?;
        Ok(())
    }
}

async fn call_for_ever(
    books: Arc<Books>,
    wires: Wires,
    way: Way,
    long: bool,
    period: Duration,
    running: watch::Receiver<bool>,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *running.borrow() {
        ticks.tick().await;
        let (id, began) = (books.next_id(), books.now());
        let outcome = match timeout(HANG, wires.call(way, long, id)).await {
            Ok(Ok(by)) => Outcome::Answered(by),
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_) => Outcome::Failed(Failure {
                at: None,
                taken_and_lost: false,
                text: "it hangs".to_owned(),
            }),
        };
        let ended = books.now();
        books.ended(Call {
            id,
            way,
            began,
            ended,
            outcome,
        });
    }
}
