use std::sync::{
    Mutex, PoisonError, TryLockError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

/// What has been told so far.
///
/// One thread at a time tells, since differences are told, and nobody waits for it: the recorder is not ours and
/// may block. Whoever comes meanwhile leaves word, and the thread that is at it tells once more.
#[derive(Debug, Default)]
pub(crate) struct Telling<T> {
    told: Mutex<T>,
    /// Something may have changed since `told` was compared with it.
    due: AtomicBool,
}

impl<T> Telling<T> {
    /// Has `tell` compare what is with what was told, here or where somebody is at it.
    pub(crate) fn tell(&self, mut tell: impl FnMut(&mut T)) {
        self.due.store(true, SeqCst);
        // Read again after the lock has gone: who found it taken has left word before.
        while self.due.load(SeqCst) {
            let mut told = match self.told.try_lock() {
                Ok(told) => told,
                Err(TryLockError::Poisoned(told)) => told.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while self.due.swap(false, SeqCst) {
                tell(&mut told);
            }
        }
    }

    /// Of its owner, when nobody else sees it any longer.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.told.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{atomic::AtomicU64, mpsc},
        thread,
        time::Duration,
    };

    use super::*;

    const HANG: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_for_one_who_tells_and_nothing_is_left_untold() {
        let (telling, value) = (Telling::<u64>::default(), AtomicU64::new(1));
        let (entered, is_in) = mpsc::channel();
        let (let_go, waits) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (telling, value) = (&telling, &value);
            let teller = scope.spawn(move || {
                telling.tell(|told| {
                    *told = value.load(SeqCst);
                    let _ = entered.send(());
                    let _ = waits.recv_timeout(HANG);
                });
            });
            is_in.recv_timeout(HANG).unwrap();
            value.store(2, SeqCst);
            telling.tell(|_| panic!("somebody is at it"));
            drop(let_go);
            teller.join().unwrap();
        });
        let mut telling = telling;
        assert_eq!(*telling.get_mut(), 2);
    }
}
