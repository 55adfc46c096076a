//! What a pair of caller and instance draws, and how likely an instance is to be drawn. Pure.

/// An instance as it takes part in a draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    /// The same wherever its address is.
    pub(super) hash: u64,
    /// Above 0.
    pub(super) weight: f64,
}

/// The instances of a draw.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) instances: Vec<Drawn>,
    /// Whether all weigh the same.
    even: bool,
}

impl Draw {
    /// Weights that are none are brought into what a registry may say, as those of its lists are.
    pub(super) fn new(instances: impl Iterator<Item = Drawn>) -> Self {
        let instances: Vec<_> = instances
            .map(|drawn| Drawn {
                weight: sane(drawn.weight),
                ..drawn
            })
            .collect();
        let even = instances
            .windows(2)
            .all(|two| two[0].weight == two[1].weight);
        Self { instances, even }
    }

    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    /// How early the pair comes: the less, the earlier. Weighted rendezvous hashing: an instance that
    /// weighs twice as much comes first twice as often, and nobody's place depends on who else there is.
    pub(super) fn key(&self, caller: u64, at: usize) -> u64 {
        let Drawn { hash, weight } = self.instances[at];
        self.key_of(pair(caller, hash), weight)
    }

    fn key_of(&self, drawn: u64, weight: f64) -> u64 {
        if self.even {
            return drawn;
        }
        let unit = drawn as f64 / TWO_64;
        let key = -(-unit).ln_1p() / weight; // exponential, with the weight as its rate
        key.to_bits() // of numbers that are not negative the bits sort as they do
    }

    /// Each pair's key, if it is from one of two keys' times to the other.
    pub(super) fn within(&self, caller: u64, at: usize, band: &Band) -> Option<u64> {
        let [from, to] = band.limits[at];
        let Drawn { hash, weight } = self.instances[at];
        let drawn = pair(caller, hash);
        (drawn >= from && (drawn < to || to == u64::MAX)).then(|| self.key_of(drawn, weight))
    }

    /// The rate at which callers that take `many` of the instances each come by them; infinite if that is
    /// all of them. An instance is then taken with the chance that [`chance`](Self::chance) says.
    pub(super) fn rate(&self, many: f64) -> f64 {
        let n = self.len() as f64;
        if many >= n {
            return f64::INFINITY;
        }
        if self.even {
            let weight = self.instances.first().map_or(1.0, |drawn| drawn.weight);
            return -(-many / n).ln_1p() / weight;
        }
        // How many are taken rises with the rate, ever less: from below each tangent meets `many` before
        // the curve does.
        let total: f64 = self.instances.iter().map(|drawn| drawn.weight).sum();
        let mut rate = many / total;
        for _ in 0..MOST_STEPS {
            let (mut taken, mut slope) = (0.0, 0.0);
            for Drawn { weight, .. } in &self.instances {
                let chance = -(-rate * weight).exp_m1();
                taken += chance;
                slope += weight * (1.0 - chance);
            }
            let step = (many - taken) / slope.max(f64::MIN_POSITIVE);
            if step <= rate * 1e-12 {
                break;
            }
            rate += step;
        }
        rate
    }

    /// The chance that a caller has the instance, at a rate.
    pub(super) fn chance(&self, rate: f64, at: usize) -> f64 {
        -(-rate * self.instances[at].weight).exp_m1()
    }

    /// What part of the calls of those who have it the instance is to get, so that it gets what its weight
    /// says of all calls: weight ÷ chance (Horvitz and Thompson), which is about the same for all but
    /// those that nearly everybody has. `None`: the same for all.
    pub(super) fn pull(&self, rate: f64, at: usize) -> Option<f64> {
        if self.even {
            return None;
        }
        Some(rate * self.instances[at].weight / self.chance(rate, at))
    }
}

/// Draws between two rates.
#[derive(Debug)]
pub(super) struct Band {
    limits: Vec<[u64; 2]>,
}

impl Band {
    /// What is drawn at `to` and was not at `from`.
    pub(super) fn between(draw: &Draw, from: f64, to: f64) -> Self {
        let limit = |rate: f64, at| (draw.chance(rate, at) * TWO_64) as u64; // saturates
        let limits = (0..draw.len()).map(|at| [limit(from, at), limit(to, at)]);
        Self {
            limits: limits.collect(),
        }
    }
}

/// A number of the pair's own: one multiplication, since a lot has millions of them. Both are hashes.
const fn pair(caller: u64, instance: u64) -> u64 {
    let wide = (caller as u128) * (instance as u128);
    (wide >> 64) as u64 ^ wide as u64
}

fn sane(weight: f64) -> f64 {
    if weight.is_nan() {
        1.0
    } else {
        weight.clamp(1e-6, 10_000.0)
    }
}

/// 2⁶⁴.
pub(super) const TWO_64: f64 = 18_446_744_073_709_551_616.0;
const MOST_STEPS: usize = 200;
