//! Ten instances in virtual time, of which one is slow, one fails and one is overloaded; and callers at
//! random times. As in `tests/field.rs`, but for the deadline: that is the caller's here, so that further
//! tries have to come in it.

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, service_fn, util::BoxCloneSyncService};
use tower_nacos::Instance;

pub(crate) const INSTANCES: usize = 10;
const SLOW: usize = 2;
const FAILING: usize = 5;
const OVERLOADED: usize = 7;
/// Of each but the overloaded one, which has one.
const WORKERS: usize = 4;
/// On the average, exponentially distributed; ten times that for the slow one.
const TAKES: Duration = Duration::from_millis(60);
/// What part of its calls the failing one answers with an error, at once.
const FAILS: f64 = 0.6;
/// A call has so long, with all its tries.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);
/// Half of what all of them could do if all were well.
const CALLS_A_SECOND: f64 = 333.0;
const SECONDS: f64 = 32.0;
/// Of the end, once it is known who is bad.
pub(crate) const SETTLED: f64 = 16.0;

pub(crate) type Called = BoxCloneSyncService<(), u16, io::Error>;

/// The instances' side: queues, workers and chance.
#[derive(Clone)]
pub(crate) struct Field {
    random: Arc<Mutex<StdRng>>,
    workers: Arc<HashMap<String, Arc<Semaphore>>>,
    tries: Arc<Mutex<u64>>,
}

/// What the callers saw of the settled time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What part of the calls had a good answer in time.
    pub(crate) goodput: f64,
    pub(crate) p99: Duration,
    /// How many tries the instances had for each call, over the whole time.
    pub(crate) tries: f64,
}

pub(crate) fn instances() -> impl Iterator<Item = Instance> {
    (0..INSTANCES).map(|at| Instance::parse(&address(at)).unwrap())
}

fn address(at: usize) -> String {
    format!("10.0.0.{}:80", at + 1)
}

impl Field {
    pub(crate) fn new(seed: u64) -> Self {
        let workers = (0..INSTANCES).map(|at| {
            let count = if at == OVERLOADED { 1 } else { WORKERS };
            (address(at), Arc::new(Semaphore::new(count)))
        });
        Self {
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            workers: Arc::new(workers.collect()),
            tries: Arc::default(),
        }
    }

    fn exponential(&self, mean: Duration) -> Duration {
        let unit: f64 = self.random.lock().unwrap().random();
        mean.mul_f64(-(1.0 - unit).ln())
    }

    async fn answer(self, address: String) -> Result<u16, io::Error> {
        *self.tries.lock().unwrap() += 1;
        let is = |at| address == self::address(at);
        if is(FAILING) && self.random.lock().unwrap().random_bool(FAILS) {
            sleep(Duration::from_millis(1)).await;
            return Ok(500);
        }
        let workers = Arc::clone(&self.workers[&address]);
        let _worker = workers.acquire().await.map_err(io::Error::other)?;
        let mean = if is(SLOW) { TAKES * 10 } else { TAKES };
        sleep(self.exponential(mean)).await;
        Ok(200)
    }

    pub(crate) fn make(&self, instance: &Instance) -> Called {
        let (field, address) = (self.clone(), instance.address().to_string());
        Called::new(service_fn(move |()| field.clone().answer(address.clone())))
    }

    /// Calls at random times, each with its deadline.
    pub(crate) async fn load<C, A>(&self, mut call: C) -> Seen
    where
        C: FnMut() -> A,
        A: Future<Output = Result<u16, BoxError>> + Send + 'static,
    {
        let began = Instant::now();
        let mut calls = JoinSet::new();
        loop {
            sleep(self.exponential(Duration::from_secs_f64(1.0 / CALLS_A_SECOND))).await;
            let at = began.elapsed().as_secs_f64();
            if at > SECONDS {
                break;
            }
            let answer = timeout(DEADLINE, call());
            calls.spawn(async move {
                let since = Instant::now();
                let good = matches!(answer.await, Ok(Ok(200)));
                // An error is no fast answer.
                (at, good, if good { since.elapsed() } else { DEADLINE })
            });
        }
        let mut seen = calls.join_all().await;
        let tries = *self.tries.lock().unwrap() as f64 / seen.len() as f64;
        seen.retain(|(at, ..)| *at > SECONDS - SETTLED);
        let good = seen.iter().filter(|(_, good, _)| *good).count();
        let mut took: Vec<_> = seen.iter().map(|(_, _, took)| *took).collect();
        took.sort();
        Seen {
            goodput: good as f64 / seen.len() as f64,
            p99: took[took.len() * 99 / 100],
            tries,
        }
    }
}
