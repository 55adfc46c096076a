use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    directory::{Entry, Generation},
    model::{Address, Instance},
};

/// How instances that are new get their calls: few at first, ever more over a while, so that a
/// process that still fills caches, compiles and connects is not buried.
///
/// The weight of an instance that is new is multiplied by `max(minimum, (age ÷ window)^(1 ÷
/// aggression))` (Envoy's formula). Its age is counted from the start time in its metadata
/// (`timestamp` or `startTime`, in ms or s since 1970), if that is there and not in the future, and
/// else from when it was first seen here; what the first list names is not new by that. If more
/// than half of the callable instances are new, none is spared: there is nobody to spare it for.
///
/// With [`after_ejection`](Self::after_ejection) an instance that was ejected is new once more when it
/// is back.
///
/// Costs a new table a second (a thirtieth of the window) while an instance warms up; with
/// [`Maglev`](crate::balance::Maglev) some keys move at each.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::SlowStart};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).slow_start(SlowStart::new().minimum(0.2));
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    minimum: f64,
    aggression: f64,
    start_time: bool,
    after_ejection: bool,
}

/// Since when instances have been there.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    since: HashMap<Address, (Generation, Since)>,
    begun: bool,
    /// Who was ejected at the last look.
    ejected: HashSet<Generation>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    /// It was there before we were: not new unless it says so itself.
    Ever,
    Seen(Instant),
    /// It is back after an ejection, whenever it started.
    Back(Instant),
    /// Not new, whatever it says.
    Warm,
}

impl SlowStart {
    /// Over 30 s, from 10 % on, in a straight line.
    pub const fn new() -> Self {
        Self {
            window: Duration::from_secs(30),
            minimum: 0.1,
            aggression: 1.0,
            start_time: true,
            after_ejection: false,
        }
    }

    /// For how long an instance is new. 30 s by default; zero for never.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// What part of its weight an instance has at least, 0.01 to 1; 0.1 by default. Others are
    /// brought into that range.
    #[must_use]
    pub const fn minimum(mut self, part: f64) -> Self {
        self.minimum = if part.is_nan() {
            0.1
        } else {
            part.clamp(0.01, 1.0)
        };
        self
    }

    /// Above 1 most comes early, below 1 late; 1.0, the default, is a straight line. Brought into
    /// 0.1 to 10.
    #[must_use]
    pub const fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = if aggression.is_nan() {
            1.0
        } else {
            aggression.clamp(0.1, 10.0)
        };
        self
    }

    /// Counts from when an instance was first seen here, whatever its metadata says: for start
    /// times by clocks that are wrong.
    #[must_use]
    pub const fn ignore_start_time(mut self) -> Self {
        self.start_time = false;
        self
    }

    /// Treats an instance that was ejected, for whatever reason, as new when it is back: it may have
    /// restarted, or have been slow because it was overloaded, and the full share at once would put it
    /// out again. As Envoy's slow start does with hosts that become healthy. Default: not, since what
    /// comes back by a single good call mostly is well. Costs a look at all instances whenever one is
    /// ejected or restored.
    #[must_use]
    pub const fn after_ejection(mut self) -> Self {
        self.after_ejection = true;
        self
    }

    /// Whether who was ejected is new when it is back.
    pub(super) const fn minds_ejections(&self) -> bool {
        self.after_ejection
    }

    /// The part of its weight that an instance of this age has.
    pub fn part(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let age = age.as_secs_f64() / self.window.as_secs_f64();
        age.powf(1.0 / self.aggression).clamp(self.minimum, 1.0)
    }

    /// How often tables are made anew while an instance warms up.
    pub(super) fn tick(&self) -> Duration {
        (self.window / 30).clamp(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Warmth {
    /// Looks at all that is listed. `known`: the registry has answered.
    pub(super) fn look(&mut self, entries: &[Entry], known: bool, now: Instant) {
        let first = !self.begun;
        self.begun |= known;
        let mut before = std::mem::take(&mut self.since);
        for entry in entries {
            let (address, generation) = (entry.instance().address(), entry.generation());
            let since = match before.remove(address) {
                Some((seen, since)) if seen == generation => since,
                _ if first => Since::Ever,
                _ => Since::Seen(now),
            };
            self.since.insert(address.clone(), (generation, since));
        }
    }

    /// Looks at who is ejected. True if somebody is not any more, and so is new.
    pub(super) fn look_at_ejections<'a>(
        &mut self,
        instances: impl Iterator<Item = (Generation, bool, Arc<Instance>)> + 'a,
        now: Instant,
    ) -> bool {
        let before = std::mem::take(&mut self.ejected);
        let mut some_back = false;
        for (generation, ejected, instance) in instances {
            if ejected {
                self.ejected.insert(generation);
            } else if before.contains(&generation) {
                let back = (generation, Since::Back(now));
                self.since.insert(instance.address().clone(), back);
                some_back = true;
            }
        }
        some_back
    }

    /// What the weights of these are multiplied by; `None` if all are warm.
    pub(super) fn factors(
        &mut self,
        rules: &SlowStart,
        instances: &[(Generation, Arc<Instance>)],
        now: Instant,
        wall: SystemTime,
    ) -> Option<Vec<f64>> {
        let part = |(generation, instance): &(Generation, Arc<Instance>)| {
            let since = match self.since.get(instance.address()) {
                Some((seen, since)) if seen == generation => *since,
                _ => Since::Seen(now), // newer than the look
            };
            rules.part(rules.age(instance, since, now, wall))
        };
        let factors: Vec<f64> = instances.iter().map(part).collect();
        let new = factors.iter().filter(|part| **part < 1.0).count();
        if new * 2 > factors.len() {
            // They stay warm from here on, so that no weight ever falls because of this.
            for (generation, instance) in instances {
                let warm = (*generation, Since::Warm);
                self.since.insert(instance.address().clone(), warm);
            }
            return None;
        }
        (new > 0).then_some(factors)
    }
}

impl SlowStart {
    fn age(&self, instance: &Instance, since: Since, now: Instant, wall: SystemTime) -> Duration {
        match since {
            Since::Warm => return Duration::MAX,
            Since::Back(at) => return now.saturating_duration_since(at),
            Since::Ever | Since::Seen(_) => {}
        }
        let told = self.start_time.then(|| start_time(instance)).flatten();
        if let Some(age) = told.and_then(|start| wall.duration_since(start).ok()) {
            return age;
        }
        match since {
            Since::Seen(at) => now.saturating_duration_since(at),
            Since::Ever | Since::Back(_) | Since::Warm => Duration::MAX,
        }
    }
}

impl Default for SlowStart {
    fn default() -> Self {
        Self::new()
    }
}

/// When the process started, if its metadata says so in a form that is known.
fn start_time(instance: &Instance) -> Option<SystemTime> {
    let metadata = instance.metadata();
    let mut told = ["timestamp", "startTime"].into_iter();
    let since_1970 = told.find_map(|key| match metadata.get(key)?.trim().parse().ok()? {
        s @ 1_000_000_000..10_000_000_000 => Some(Duration::from_secs(s)),
        ms @ 1_000_000_000_000..10_000_000_000_000 => Some(Duration::from_millis(ms)),
        _ => None,
    })?;
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

/// The clock that start times are told by.
pub(super) fn wall() -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "start times in metadata are wall-clock times, and a table is made by nobody who has one"
    )]
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::Subscription, endpoint};

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Three old instances and one that is as old as that by its metadata, or was first seen just now.
    struct World {
        warmth: Warmth,
        instances: Vec<(Generation, Arc<Instance>)>,
        rules: SlowStart,
    }

    impl World {
        fn new(started: Option<SystemTime>, now: Instant) -> Self {
            let mut instances: Vec<_> = (1..=4)
                .map(|at| Instance::parse(&format!("10.0.0.{at}:80")).unwrap())
                .collect();
            if let Some(started) = started {
                let ms = started.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let told = [("timestamp", &*ms.as_millis().to_string())];
                instances[3] = instances[3]
                    .clone()
                    .with_metadata(told.into_iter().collect());
            }
            let snapshot = Subscription::fixed(instances).snapshot();
            let entries = snapshot.entries();
            let mut warmth = Warmth::default();
            let first = if started.is_some() { 4 } else { 3 };
            warmth.look(&entries[..first], true, now);
            warmth.look(entries, true, now);
            let instance = |entry: &Entry| (entry.generation(), Arc::clone(entry.instance()));
            Self {
                warmth,
                instances: entries.iter().map(instance).collect(),
                rules: SlowStart::new(),
            }
        }

        /// What part of its weight the last one has.
        fn part(&mut self, now: Instant, wall: SystemTime) -> f64 {
            let Self {
                warmth,
                instances,
                rules,
            } = self;
            let factors = warmth.factors(rules, instances, now, wall);
            factors.map_or(1.0, |parts| parts[3])
        }
    }

    /// A machine that was suspended, or whose wall clock is set.
    #[test]
    fn a_clock_that_jumps_makes_an_instance_old_or_new_for_one_window_at_most() {
        let now = endpoint::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let window = SlowStart::new().window;
        let mut seen = World::new(None, now);
        assert_eq!(seen.part(now, wall), 0.1);
        assert_eq!(seen.part(now + HOUR, wall), 1.0, "the monotonic one jumps");
        for set in [wall + HOUR, wall - HOUR] {
            assert_eq!(
                seen.part(now + window / 2, set),
                0.5,
                "the other is not asked"
            );
        }
        let mut told = World::new(Some(wall), now);
        assert_eq!(told.part(now, wall), 0.1);
        assert_eq!(told.part(now, wall + HOUR), 1.0, "it is set forward");
        // Set back to before it started: it says nothing then, and was there before we were.
        assert_eq!(told.part(now, wall - HOUR), 1.0);
        // By less than it is old: it is new again for what is left of a window.
        assert_eq!(told.part(now + HOUR, wall + window / 2), 0.5);
        assert_eq!(told.part(now + HOUR, wall + window), 1.0);
        // Of all of them at once, none is spared, and stays so.
        let mut all = World::new(Some(wall), now);
        for at in 0..3 {
            all.instances[at].1 = Arc::clone(&all.instances[3].1);
        }
        assert_eq!(all.part(now, wall), 1.0);
    }
}
