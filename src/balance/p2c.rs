use crate::balance::{Alias, Candidate, Loads, PickContext, Policy, Random};

/// The default: of two instances drawn by weight, the one with fewer calls in flight for its
/// weight; of equals the first.
///
/// At low load that is drawing by weight. Under load the slow get less, and a dead-slow one nearly
/// nothing. (Mitzenmacher's "power of two choices". Both are drawn by weight and the call to come
/// is not counted, since otherwise small weights starve.)
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::P2c};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).policy(P2c::new());
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct P2c {
    choices: u8,
}

/// One drawn by weight, whatever its load: what Nacos's own clients do.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::WeightedRandom};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).policy(WeightedRandom::new());
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom;

impl P2c {
    /// Of two.
    pub const fn new() -> Self {
        Self { choices: 2 }
    }

    /// Of so many, 2 to 4; others are brought into that range.
    pub fn of(choices: u8) -> Self {
        Self {
            choices: choices.clamp(2, 4),
        }
    }
}

impl WeightedRandom {
    /// The policy.
    pub const fn new() -> Self {
        Self
    }
}

impl Default for P2c {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for P2c {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        Alias::new(candidates)
    }

    #[inline]
    fn pick(
        &self,
        table: &Alias,
        loads: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        least(table, self.choices, random, |at| loads.load(at))
    }
}

impl Policy for WeightedRandom {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        Alias::new(candidates)
    }

    #[inline]
    fn pick(
        &self,
        table: &Alias,
        _: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        table.draw(random)
    }
}

/// Of `choices` drawn by weight the one of least cost, of equals the first.
#[inline]
pub(super) fn least(
    table: &Alias,
    choices: u8,
    random: &mut Random,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    best(
        table,
        choices,
        random,
        cost,
        |cost| *cost == 0.0,
        |a, b| a < b,
    )
}

/// Of `choices` drawn by weight the first that none of the others is better than. `settled` says of
/// a cost that none can be better.
#[inline]
pub(super) fn best<T>(
    table: &Alias,
    choices: u8,
    random: &mut Random,
    cost: impl Fn(usize) -> T,
    settled: impl Fn(&T) -> bool,
    better: impl Fn(&T, &T) -> bool,
) -> Option<usize> {
    let mut best = table.draw(random)?;
    if table.len() == 1 {
        return Some(best);
    }
    let mut least = cost(best);
    for _ in 1..choices {
        if settled(&least) {
            break;
        }
        // Against itself none would ever lose: a few tries for another.
        for _ in 0..TRIES {
            let other = table.draw(random)?;
            if other != best {
                let theirs = cost(other);
                if better(&theirs, &least) {
                    (best, least) = (other, theirs);
                }
                break;
            }
        }
    }
    Some(best)
}

/// With two instances of equal weight one in 256 second draws is given up.
const TRIES: usize = 8;
