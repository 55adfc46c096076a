//! What became of requests, counted where each thread has a line of its own.

#[cfg(feature = "metrics")]
pub(super) use counted::{Began, Requests};
#[cfg(not(feature = "metrics"))]
pub(super) use uncounted::{Began, Requests};

#[cfg(feature = "metrics")]
mod counted {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::Instant;

    use crate::{
        balance::random::{STRIPES, stripe},
        endpoint::{self, Buckets, FATES, Fate, Filled, Reckoning},
    };

    /// The requests of one balancer.
    #[derive(Default)]
    pub(in crate::balance) struct Requests {
        /// What becomes of most requests.
        ok: [Line; STRIPES],
        /// What becomes of others: threads may meet there.
        seldom: [AtomicU64; FATES],
        /// If they are measured.
        durations: Option<Box<[Buckets; STRIPES]>>,
    }

    #[derive(Default)]
    #[repr(align(128))]
    struct Line(AtomicU64);

    /// When a request began, if that is measured.
    #[derive(Clone, Copy, Default)]
    pub(in crate::balance) struct Began(Option<Instant>);

    impl Requests {
        pub(in crate::balance) fn new(measured: bool) -> Self {
            Self {
                durations: measured.then(Box::default),
                ..Self::default()
            }
        }

        /// One begins.
        #[inline]
        pub(in crate::balance) fn begin(&self) -> Began {
            Began(self.durations.is_some().then(endpoint::now))
        }

        /// One has ended.
        #[inline]
        pub(in crate::balance) fn end(&self, fate: Fate, began: Began) {
            let line = stripe();
            match fate {
                Fate::Ok => &self.ok[line].0,
                _ => &self.seldom[fate as usize],
            }
            .fetch_add(1, Relaxed);
            if let (Some(durations), Began(Some(began))) = (&self.durations, began)
                && fate.took_place()
            {
                let took = endpoint::now().saturating_duration_since(began);
                durations[line].observe(took);
            }
        }
    }

    impl Reckoning for Requests {
        fn read(&self) -> ([u64; FATES], Filled) {
            let mut counts = [0; FATES];
            for (count, seldom) in counts.iter_mut().zip(&self.seldom) {
                *count = seldom.load(Relaxed);
            }
            counts[Fate::Ok as usize] = self.ok.iter().map(|line| line.0.load(Relaxed)).sum();
            let mut filled = Filled::default();
            for durations in self.durations.iter().flat_map(|stripes| stripes.iter()) {
                durations.add_to(&mut filled);
            }
            (counts, filled)
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod uncounted {
    use crate::endpoint::Fate;

    #[derive(Default)]
    pub(in crate::balance) struct Requests;

    #[derive(Clone, Copy, Default)]
    pub(in crate::balance) struct Began;

    impl Requests {
        pub(in crate::balance) const fn new(_: bool) -> Self {
            Self
        }

        #[inline]
        pub(in crate::balance) const fn begin(&self) -> Began {
            Began
        }

        #[inline]
        pub(in crate::balance) const fn end(&self, _: Fate, _: Began) {}
    }
}
