use std::sync::atomic::{AtomicU64, Ordering};

/// Since when the table is of other instances than there are, and left to the janitor.
///
/// Who left came to a closed gate, so a call loses nothing by an older table but those who have just come.
pub(super) struct Behind(AtomicU64);

impl Behind {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(CURRENT))
    }

    /// Whether the janitor may still be about to come, `now` in ms: on a runtime that nobody runs any more it
    /// never does, and the call makes the table.
    pub(super) fn is_left(&self, now: u64) -> bool {
        let known = self
            .0
            .compare_exchange(CURRENT, now, Ordering::Relaxed, Ordering::Relaxed);
        let since = known.err().unwrap_or(now);
        now.saturating_sub(since) < PATIENCE
    }

    /// There is a new table.
    pub(super) fn caught_up(&self) {
        self.0.store(CURRENT, Ordering::Relaxed);
    }
}

const CURRENT: u64 = u64::MAX;
/// In ms: far more than a janitor takes to come and build, far less than anybody waits for who has come.
const PATIENCE: u64 = 250;

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        io,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use futures_util::FutureExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        balance::{
            Balance, Candidate, Hints, Loads, Maglev, PickContext, Policy, Random, WeightedRandom,
        },
        directory::{self, Subscription, Writer},
        endpoint::now,
        model::{Instance, ServiceKey},
    };

    /// Draws at random, and counts its tables.
    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Policy for Slow {
        type Table = <WeightedRandom as Policy>::Table;

        fn build(&self, candidates: &[Candidate]) -> Self::Table {
            self.0.fetch_add(1, SeqCst);
            WeightedRandom::new().build(candidates)
        }

        fn pick(
            &self,
            table: &Self::Table,
            loads: &dyn Loads,
            random: &mut Random,
            context: &PickContext,
        ) -> Option<usize> {
            WeightedRandom::new().pick(table, loads, random, context)
        }

        fn takes_long(&self, candidates: usize) -> bool {
            candidates > 1
        }
    }

    fn publish(writer: &mut Writer, instances: std::ops::Range<u8>) {
        let address = |at| format!("10.0.0.{at}:80");
        let instances = instances.map(|at| Instance::parse(&address(at)).unwrap());
        writer.publish(instances, now().into_std());
    }

    fn instances() -> (Writer, Subscription) {
        let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
        let (mut writer, orders) = directory::channel(key, directory::Options::default());
        publish(&mut writer, 1..4);
        (writer, orders)
    }

    fn slow() -> (Writer, Slow, impl Fn() -> bool) {
        let (writer, orders) = instances();
        let policy = Slow::default();
        let balance = Balance::builder(&orders).policy(policy.clone());
        let balance =
            balance.build(|_: &Instance| tower::service_fn(async |(): ()| Ok::<_, ()>(())));
        (writer, policy, move || balance.pass(&Hints::new()))
    }

    /// No call is to fail for a table that is behind, whoever is in that.
    #[tokio::test]
    async fn a_call_whose_table_has_nobody_left_goes_to_who_has_come() {
        let (mut writer, orders) = instances();
        let policy = Slow::default();
        let balance = Balance::builder(&orders).policy(policy.clone());
        let balance = balance.build(|instance: &Instance| {
            let address = instance.address().to_string();
            tower::service_fn(move |(): ()| ready(Ok::<_, io::Error>(address.clone())))
        });
        let call = || balance.clone().oneshot(()).now_or_never();
        assert!(call().is_some_and(|answered| answered.is_ok()));
        publish(&mut writer, 7..9);
        for _ in 0..100 {
            let answer = call().expect("nothing is waited for").unwrap();
            assert!(
                answer == "10.0.0.7:80" || answer == "10.0.0.8:80",
                "{answer}"
            );
        }
        assert_eq!(policy.0.load(SeqCst), 1, "the janitor has not run");
    }

    #[tokio::test]
    async fn a_call_does_not_make_the_next_table_where_that_takes_long() {
        let (mut writer, policy, pass) = slow();
        let Slow(tables) = &policy;
        assert!(pass(), "the first has none to go on with");
        assert_eq!(tables.load(SeqCst), 1);
        publish(&mut writer, 2..6);
        for _ in 0..100 {
            assert!(pass(), "who left is passed by");
        }
        assert_eq!(tables.load(SeqCst), 1, "the janitor has not run");
        while tables.load(SeqCst) == 1 {
            tokio::task::yield_now().await;
        }
        assert!(pass());
    }

    #[test]
    fn where_nobody_runs_the_janitor_a_call_makes_it_after_a_while() {
        let idle = tokio::runtime::Builder::new_current_thread().build();
        let idle = idle.unwrap();
        let (mut writer, policy, pass) = {
            let _entered = idle.enter();
            slow()
        };
        let Slow(tables) = &policy;
        assert!(pass());
        publish(&mut writer, 2..6);
        assert!(pass());
        assert_eq!(tables.load(SeqCst), 1);
        while tables.load(SeqCst) == 1 {
            assert!(pass());
            thread::yield_now();
        }
    }

    #[test]
    fn patience_ends_and_begins_anew() {
        let behind = Behind::new();
        assert!(behind.is_left(1_000));
        assert!(behind.is_left(1_000 + PATIENCE - 1));
        assert!(!behind.is_left(1_000 + PATIENCE));
        assert!(behind.is_left(900), "told late");
        behind.caught_up();
        assert!(behind.is_left(9_000));
        assert!(!behind.is_left(9_000 + PATIENCE));
    }

    #[test]
    fn a_large_table_of_maglev_takes_long() {
        assert!(!Maglev::new().takes_long(3));
        assert!(Maglev::new().takes_long(10_000));
        assert!(Maglev::with_size(1_000_003).takes_long(3));
        assert!(Maglev::new().bounded(0.25).takes_long(10_000));
    }
}
