use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep_until, timeout},
};

use crate::{
    endpoint::{
        checks::{config::HealthCheck, machine::Machine, question::Failure},
        clock,
        hub::Hub,
    },
    model::{Instance, ServiceKey},
};

/// The checks that run, each once for all who want the same.
pub(crate) struct Registry {
    checks: Mutex<HashMap<Arc<str>, Weak<Check>>>,
    /// For so many at once.
    room: Semaphore,
}

/// One check of one instance. Runs while somebody holds it.
struct Check {
    key: Arc<str>,
    registry: Arc<Registry>,
    health: HealthCheck,
    state: Mutex<State>,
    /// Whether there is a task.
    staffed: AtomicBool,
    /// Whether a task panicked, so that another would: on a runtime without a timer, say.
    unfit: AtomicBool,
}

struct State {
    machine: Machine,
    /// As last listed.
    instance: Arc<Instance>,
    /// Who is told of news: one for each who holds it.
    told: Vec<Weak<Hub>>,
    task: Option<AbortHandle>,
}

/// A check that is held: with the last of these it ends.
pub(crate) struct Held {
    check: Arc<Check>,
    told: Weak<Hub>,
}

impl Registry {
    pub(crate) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            checks: Mutex::default(),
            room: Semaphore::new(at_once),
        })
    }

    /// That of this process.
    pub(crate) fn of_process() -> &'static Arc<Self> {
        static REGISTRY: LazyLock<Arc<Registry>> = LazyLock::new(|| Registry::new(MOST_AT_ONCE));
        &REGISTRY
    }

    /// The check of that instance, which runs from now on: on the runtime that this is called on, if it has none.
    pub(crate) fn hold(
        self: &Arc<Self>,
        health: &HealthCheck,
        service: &ServiceKey,
        instance: &Arc<Instance>,
        told: &Arc<Hub>,
    ) -> Held {
        let key: Arc<str> = health.identity(service, instance).into();
        let told = Arc::downgrade(told);
        let check = {
            let mut checks = self.lock();
            let known = checks.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let check = Arc::new(Check::new(Arc::clone(&key), self, health, instance));
                checks.insert(key, Arc::downgrade(&check));
                check
            })
        };
        {
            let mut state = check.lock();
            state.instance = Arc::clone(instance);
            state.told.push(Weak::clone(&told));
        }
        let held = Held { check, told };
        held.attend();
        held
    }

    /// How many run.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Check>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Why the instance is refused, if it is.
    pub(crate) fn refused(&self) -> Option<Arc<str>> {
        self.check.lock().machine.refused().map(Arc::clone)
    }

    /// Sees to it that it runs: its runtime may have ended.
    pub(crate) fn attend(&self) {
        let check = &self.check;
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if check.unfit.load(Ordering::Relaxed) || check.staffed.swap(true, Ordering::AcqRel) {
            return;
        }
        // Not under the lock: on a runtime that is about to end the task ends here and now.
        let on_duty = OnDuty(Arc::downgrade(check));
        let task = runtime.spawn(run(on_duty)).abort_handle();
        check.lock().task = Some(task);
    }
}

impl Check {
    fn new(
        key: Arc<str>,
        registry: &Arc<Registry>,
        health: &HealthCheck,
        instance: &Arc<Instance>,
    ) -> Self {
        Self {
            key,
            registry: Arc::clone(registry),
            health: health.clone(),
            state: Mutex::new(State {
                machine: Machine::new(health.rules, clock::now(), random()),
                instance: Arc::clone(instance),
                told: Vec::new(),
                task: None,
            }),
            staffed: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
        }
    }

    fn ended(&self, ended: Result<(), Failure>) {
        let news = self.lock().machine.ended(ended, clock::now(), random());
        if news {
            self.tell();
        }
    }

    /// Those who hold it are to look at it.
    fn tell(&self) {
        let told = self.lock().told.clone();
        for hub in told.iter().filter_map(Weak::upgrade) {
            hub.checked.store(true, Ordering::Release);
            hub.notify_janitor();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that there is a task until it goes, with its runtime say: then who holds the check begins another.
struct OnDuty(Weak<Check>);

async fn run(on_duty: OnDuty) {
    let check = || on_duty.0.upgrade();
    loop {
        let Some((due, registry)) =
            check().map(|check| (check.lock().machine.due(), Arc::clone(&check.registry)))
        else {
            return;
        };
        sleep_until(due).await;
        let Ok(room) = registry.room.acquire().await else {
            return;
        };
        let asking = check().map(|check| {
            let instance = Arc::clone(&check.lock().instance);
            (check.health.ask(&instance), check.health.rules.timeout)
        });
        let Some((mut asking, within)) = asking else {
            return;
        };
        let asked = timeout(within, AssertUnwindSafe(&mut asking).catch_unwind()).await;
        // It is the user's, and this is everybody's task.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(asking)));
        drop(room);
        let ended = match (asked, dropped) {
            (Ok(Ok(ended)), Ok(())) => ended,
            (Err(_), Ok(())) => Err(Failure::silent(format_args!(
                "it had not answered after {within:?} (timeout)"
            ))),
            _ => Err(Failure::silent("the check panicked")),
        };
        match check() {
            Some(check) => check.ended(ended),
            None => return,
        }
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        if let Some(check) = self.0.upgrade() {
            check.unfit.fetch_or(thread::panicking(), Ordering::Relaxed);
            check.staffed.store(false, Ordering::Release);
            check.tell();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.check.lock();
        let place = state.told.iter().position(|told| told.ptr_eq(&self.told));
        if let Some(place) = place {
            state.told.swap_remove(place);
        }
    }
}

impl Drop for Check {
    /// What is under way goes with it.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = state.task.take() {
            task.abort();
        }
        let mut checks = self.registry.lock();
        // Another may have come in its place.
        let dead = |check: &Weak<Self>| check.strong_count() == 0;
        if checks.get(&self.key).is_some_and(dead) {
            checks.remove(&self.key);
        }
    }
}

/// From 0 to 1.
fn random() -> f64 {
    // Keys of its own at each call: enough for what is drawn once in an interval.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Enough for 64 answers a second where each takes 1 s, and few enough to leave a process its sockets.
const MOST_AT_ONCE: usize = 64;
