/// What may be set of the limits of calls at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LimitRules {
    pub(crate) initial: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// How many times longer than usual answers may take before that means a queue.
    pub(crate) tolerance: f32,
}

/// What was seen of an instance in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Window {
    /// How long its answers took on the average, in seconds. Nothing if there are none.
    pub(super) average: f32,
    pub(super) answers: u32,
    /// What it refused, and what was out of time.
    pub(super) refusals: u32,
    /// The most calls at once.
    pub(super) most: u32,
}

/// The limit of one instance.
///
/// Netflix's Gradient2 and Envoy's adaptive concurrency, but for three things. What is usual is measured at a
/// quarter of the limit now and then, and not at 3 calls (Envoy), nor is it what the average drifts to
/// (Netflix): while an instance is held back others have its calls, and a queue that lasts is not taken for usual.
/// Refusals lower the limit by half of their part (DCTCP, RFC 8257), so that a few cost little. And it doubles
/// until there is a first sign of a queue, as TCP's slow start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Machine {
    limit: f32,
    /// How long an answer takes without a queue, in seconds; 0 if that is not known.
    usual: f32,
    phase: Phase,
}

/// Where it stands, in a word: windows under pressure since what is usual was measured, and whether no queue was
/// seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    windows: u16,
    starting: bool,
}

impl Machine {
    pub(super) fn new(rules: &LimitRules) -> Self {
        Self {
            limit: rules.initial.clamp(rules.min, rules.max) as f32,
            usual: 0.0,
            phase: Phase {
                windows: 0,
                starting: true,
            },
        }
    }

    /// As it is kept.
    pub(super) fn packed(self) -> [u64; 2] {
        let halves = u64::from(self.limit.to_bits()) << 32 | u64::from(self.usual.to_bits());
        let phase = u64::from(self.phase.windows) << 1 | u64::from(self.phase.starting);
        [halves, phase]
    }

    pub(super) const fn unpack([halves, phase]: [u64; 2]) -> Self {
        Self {
            limit: f32::from_bits((halves >> 32) as u32),
            usual: f32::from_bits(halves as u32),
            phase: Phase {
                windows: (phase >> 1) as u16,
                starting: phase & 1 == 1,
            },
        }
    }

    /// How many calls it gets at once now.
    pub(super) fn in_force(self, rules: &LimitRules) -> u32 {
        let limit = if self.phase.windows >= EVERY {
            self.limit * MEASURED_AT
        } else {
            self.limit
        };
        (limit as u32).clamp(rules.min, rules.max)
    }

    /// How long an answer takes without a queue, in seconds; 0 if that is not known.
    pub(super) const fn usual(self) -> f32 {
        self.usual
    }

    /// A window has ended.
    pub(super) fn step(mut self, window: Window, rules: &LimitRules) -> Self {
        let pressed = window.most.saturating_mul(2) >= self.in_force(rules);
        let measured = self.phase.windows > EVERY;
        if window.answers > 0 {
            self.learn(window.average, pressed, measured);
        }
        let calm = self.phase.windows >= EVERY;
        if measured {
            self.phase.windows = 0;
        } else if pressed || calm {
            self.phase.windows += 1; // what the queue holds is answered first, and measured after that
        }
        if window.refusals > 0 {
            let all = window.answers.saturating_add(window.refusals);
            self.limit *= 1.0 - window.refusals as f32 / all as f32 / 2.0;
            self.phase.starting = false;
        } else if window.answers > 0 && pressed && !calm {
            self.follow(window.average, rules);
        }
        self.limit = self.limit.clamp(rules.min as f32, rules.max as f32);
        self
    }

    /// Takes note of how long answers take. Under pressure that may be for a queue of our own making.
    fn learn(&mut self, average: f32, pressed: bool, measured: bool) {
        let part = match (self.usual > 0.0, measured) {
            (false, _) => 1.0,
            (true, true) => HALF,
            (true, false) if !pressed || average < self.usual => SLOWLY,
            (true, false) => 0.0,
        };
        self.usual = (self.usual + (average - self.usual) * part).max(FLOOR);
    }

    /// Lowers the limit by how much longer than usual answers take, and leaves room to grow.
    fn follow(&mut self, average: f32, rules: &LimitRules) {
        let gradient = rules.tolerance * self.usual / average.max(FLOOR);
        if gradient >= 1.0 && self.phase.starting {
            self.limit *= 2.0;
            return;
        }
        self.phase.starting = false;
        let target = self.limit * gradient.clamp(HALF, 1.0) + self.limit.sqrt();
        self.limit += (target - self.limit) * SMOOTHED;
    }
}

/// Windows under pressure, after which what is usual is measured: in one the queue ends, in the next it is.
const EVERY: u16 = 30;
/// At which part of the limit, below what makes a queue.
const MEASURED_AT: f32 = 0.25;
/// How far the limit goes in one step, as in Gradient2.
const SMOOTHED: f32 = 0.2;
const HALF: f32 = 0.5;
const SLOWLY: f32 = 0.125;
/// Below this, differences say more about the clock than about the instance.
const FLOOR: f32 = 1e-6;
