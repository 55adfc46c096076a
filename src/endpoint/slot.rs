use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::sync::Published;

/// Where the idle service of an endpoint sits, alone: calls clone it and drop their clones, so
/// taking it out is all it takes to be rid of it.
pub(crate) struct Slot<S> {
    idle: Published<S>,
    phase: Mutex<Phase>,
}

/// What a call gets from a [`Slot`].
pub(crate) enum Obtained<S> {
    /// The service.
    Idle(S),
    /// The service, which this call made: those who found it [`Busy`](Self::Busy) must be told.
    Made(S),
    /// Another call is making it.
    Busy,
    /// This call tried to make it and got a panic: those who found it busy must be told.
    Panicked,
    /// It cannot be made, or no longer.
    Never,
}

enum Phase {
    Empty,
    Making,
    Made,
    /// Boxed: seldom there, and every endpoint has the room for it.
    Unusable(Box<Arc<str>>),
    Taken,
}

impl<S> Slot<S> {
    pub(crate) fn new() -> Self {
        Self {
            idle: Published::empty(),
            phase: Mutex::new(Phase::Empty),
        }
    }

    /// Clones the service, if it is there.
    #[inline]
    pub(crate) fn get(&self) -> Option<S>
    where
        S: Clone,
    {
        let idle = self.idle.load();
        idle.get().map(|service| (**service).clone())
    }

    /// Clones the service; makes it first if nobody has.
    pub(crate) fn obtain(&self, make: impl FnOnce() -> S) -> Obtained<S>
    where
        S: Clone,
    {
        if let Some(service) = self.get() {
            return Obtained::Idle(service);
        }
        if let Some(not) = self.begin() {
            return not;
        }
        let made = catch_unwind(AssertUnwindSafe(|| {
            let service = make();
            (Arc::new(service.clone()), service)
        }));
        match made {
            Ok((idle, service)) => match self.put(idle) {
                None => Obtained::Made(service),
                Some(_) => Obtained::Never, // taken while it was made; dropped here, unused
            },
            Err(panic) => self.panicked(&*panic),
        }
    }

    /// Makes the service ahead of its first use. `None`: it is there now, and those who found it
    /// [`Busy`](Obtained::Busy) must be told.
    pub(crate) fn fill(&self, make: impl FnOnce() -> S) -> Option<Obtained<S>> {
        if let Some(not) = self.begin() {
            return Some(not);
        }
        match catch_unwind(AssertUnwindSafe(|| Arc::new(make()))) {
            Ok(idle) => self.put(idle).map(|unused| {
                // It is the user's, and this is the janitor's task.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(unused)));
                Obtained::Never
            }),
            Err(panic) => Some(self.panicked(&*panic)),
        }
    }

    /// `None`: it is for the caller to make it.
    fn begin(&self) -> Option<Obtained<S>> {
        let mut phase = self.lock();
        match *phase {
            Phase::Empty => *phase = Phase::Making,
            Phase::Making | Phase::Made => return Some(Obtained::Busy),
            Phase::Unusable(_) | Phase::Taken => return Some(Obtained::Never),
        }
        None
    }

    /// Gives it back if it was taken out meanwhile.
    fn put(&self, idle: Arc<S>) -> Option<Arc<S>> {
        let mut phase = self.lock();
        if !matches!(*phase, Phase::Making) {
            return Some(idle);
        }
        *phase = Phase::Made;
        self.idle.store(idle);
        None
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Obtained<S> {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Making) {
            *phase = Phase::Unusable(Box::new(words(panic).into()));
        }
        Obtained::Panicked
    }

    /// Takes the service out for good. What is returned is the user's: drop it where a panic does
    /// no harm.
    pub(crate) fn take(&self) -> Option<Arc<S>> {
        let mut phase = self.lock();
        *phase = Phase::Taken;
        self.idle.swap(None)
    }

    /// The service, if it is there.
    pub(crate) fn idle(&self) -> Option<Arc<S>> {
        self.idle.load_full()
    }

    /// Takes out a service that can no longer be used; the next call makes another.
    pub(crate) fn discard(&self) -> Option<Arc<S>> {
        let mut phase = self.lock();
        if !matches!(*phase, Phase::Made) {
            return None;
        }
        *phase = Phase::Empty;
        self.idle.swap(None)
    }

    /// After a panic: lets it be tried again. True if that changed anything.
    pub(crate) fn retry(&self) -> bool {
        let mut phase = self.lock();
        let unusable = matches!(*phase, Phase::Unusable(_));
        if unusable {
            *phase = Phase::Empty;
        }
        unusable
    }

    /// What the panic said, if making the service panicked.
    pub(crate) fn unusable(&self) -> Option<Arc<str>> {
        match &*self.lock() {
            Phase::Unusable(reason) => Some(Arc::clone(&**reason)),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}
