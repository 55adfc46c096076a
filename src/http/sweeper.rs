use std::sync::{Arc, Mutex, PoisonError};

use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

use crate::{
    endpoint,
    http::services::{Busy, Services},
};

/// The task that gives up what became idle, on the runtime of whoever made the first service; on
/// another's once that is gone.
#[derive(Default)]
pub(super) struct Sweeper {
    /// Rung when there is something to sweep, or nothing ever again.
    bell: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sweeper {
    /// Sees to it that these services are swept. Without a runtime they are given up when others
    /// need their places.
    pub(super) fn sweep<T>(&self, services: &Arc<Services<T>>)
    where
        T: Busy + Send + Sync + 'static,
    {
        self.bell.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (weak, bell) = (Arc::downgrade(services), Arc::clone(&self.bell));
        // Owned by this: it ends when the services are gone, and the bell rings then.
        *task = Some(runtime.spawn(async move {
            while let Some(services) = weak.upgrade() {
                let next = services.sweep(endpoint::now());
                drop(services);
                match next {
                    Some(due) => {
                        let _ = tokio::time::timeout_at(due, bell.notified()).await;
                    }
                    None => bell.notified().await,
                }
            }
        }));
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        http::services::{Full, Limits},
        model::ServiceKey,
    };

    struct Held;

    impl Busy for Held {
        fn is_busy(&self) -> bool {
            false
        }
    }

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn what_is_not_called_for_five_minutes_is_given_up_by_itself() {
        let limits = Limits {
            most: 9,
            idle_release: FIVE_MINUTES,
        };
        let begin = endpoint::now();
        let services = Arc::new(Services::new(limits, begin));
        let sweeper = Sweeper::default();
        let call = |name: &str| {
            let key = ServiceKey::new("public", name.parse().unwrap()).unwrap();
            let made = services.get_or_make(&key, endpoint::now(), || Ok::<_, Full>(Held));
            assert!(made.is_ok());
            sweeper.sweep(&services);
        };
        let names = || {
            let keys = services.keys();
            keys.iter()
                .map(|key| key.name().to_string())
                .collect::<Vec<_>>()
        };
        let at = |seconds| tokio::time::sleep_until(begin + Duration::from_secs(seconds));
        call("a");
        call("b");
        at(100).await;
        call("b");
        at(299).await;
        assert_eq!(names(), ["a", "b"]);
        at(302).await;
        assert_eq!(names(), ["b"]);
        at(399).await;
        assert_eq!(names(), ["b"]);
        at(402).await;
        assert!(names().is_empty());
        // Asleep with nothing to do, it hears of what comes later.
        at(5_000).await;
        call("c");
        at(5_299).await;
        assert_eq!(names(), ["c"]);
        at(5_302).await;
        assert!(names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_what_it_sweeps() {
        let limits = Limits {
            most: 9,
            idle_release: FIVE_MINUTES,
        };
        let services = Arc::new(Services::<Held>::new(limits, endpoint::now()));
        let sweeper = Sweeper::default();
        sweeper.sweep(&services);
        tokio::task::yield_now().await;
        let task = sweeper.task.lock().unwrap().take().unwrap();
        assert!(!task.is_finished());
        drop(services);
        drop(sweeper);
        task.await.unwrap();
    }
}
