/// What a balancer did so far, beside what it should.
///
/// ```
/// use tower_nacos::{Balance, Instance, Subscription};
///
/// let orders = Subscription::fixed([]);
/// let balance = Balance::builder(&orders)
///     .build(|_: &Instance| tower::service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
/// assert_eq!(balance.counters().calls_after_evict, 0);
/// # let _ = tower::ServiceExt::oneshot(balance.clone(), 7);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceCounters {
    /// Picks of a policy that named an instance that does not exist.
    pub picks_out_of_range: u64,
    /// Panics of the policy.
    pub policy_panics: u64,
    /// Calls whose policy named only instances that take no call (ejected, full, or just evicted), so that all
    /// were looked through for one that does. A few as something changes are nothing; a rate that stays
    /// means that most instances are out, or that a policy of yours picks among few.
    pub full_scans: u64,
    /// Calls that were let in to an instance after its eviction: 0, by the gates.
    pub calls_after_evict: u64,
    /// Requests that an instance was handed and provably did not process, and that set out for
    /// another one; each time counts.
    pub moved: u64,
    /// Requests that an instance had had and that were sent again all the same, by the
    /// [`Retry`](crate::retry::Retry) policy; each time counts.
    pub retries: u64,
    /// Those that would have been, had the policy's budget not been spent.
    pub retries_over_budget: u64,
    /// Tries that were out of time (`per_try_timeout`).
    pub try_timeouts: u64,
    /// Second tries that were begun beside a first one ([`Hedge`](crate::retry::Hedge)).
    pub hedges: u64,
    /// Those that were answered first.
    pub hedges_won: u64,
    /// Times that an instance was ejected: it could not be reached, or answered badly.
    pub ejections: u64,
    /// How many of these were for its answers.
    pub outlier_ejections: u64,
    /// Times that an instance was refused by its [`HealthCheck`](crate::endpoint::HealthCheck).
    pub refusals: u64,
    /// Times that ejections for answers, or what health checks refuse, were lifted because more than the
    /// [`panic_threshold`](crate::balance::Outliers::panic_threshold) was out, connections included.
    pub panics: u64,
    /// Times that an ejected instance was let back in: it was reached, did well, or too many were
    /// out.
    pub restorations: u64,
}
