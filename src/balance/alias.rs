use crate::balance::{Candidate, Random};

/// Draws by weight in constant time: Walker's alias method, built as Vose says. 8 bytes an
/// instance; nothing if all weights are equal, so that there is no line to miss.
///
/// ```
/// use tower_nacos::balance::{Alias, Random};
///
/// assert_eq!(Alias::new(&[]).draw(&mut Random::seeded(7)), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alias {
    len: usize,
    /// None if all weights are equal.
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    /// The slot's own index is drawn up to here, of 2³², and the alias beyond.
    up_to: u32,
    alias: u32,
}

impl Alias {
    /// A table of these weights. Those that are not positive numbers count as 0; if all are 0,
    /// all are equal.
    pub fn new(candidates: &[Candidate]) -> Self {
        Self::of_weights(candidates.iter().map(Candidate::weight))
    }

    pub(super) fn of_weights(weights: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let n = weights.len();
        let sane = weights.map(|w| if w > 0.0 && w < f64::INFINITY { w } else { 0.0 });
        // Nothing is allocated where all are equal, which is the usual case.
        let first = sane.clone().next().unwrap_or_default();
        let (mut apart, mut total) = (false, 0.0);
        for w in sane.clone() {
            apart |= w != first;
            total += w;
        }
        let scale = n as f64 / total;
        if !apart || total <= 0.0 || !scale.is_finite() {
            return Self {
                len: n,
                slots: Box::default(),
            };
        }
        let mut scaled: Vec<f64> = sane.map(|w| w * scale).collect();
        let mut slots: Box<[Slot]> = (0..n as u32)
            .map(|alias| Slot {
                up_to: u32::MAX,
                alias,
            })
            .collect();
        // Two stacks in one: those below 1 from the front up to `small`, the others from the back down
        // to `large`.
        let mut stacks = vec![0_u32; n];
        let (mut small, mut large) = (0, n);
        for (at, w) in scaled.iter().enumerate() {
            if *w < 1.0 {
                stacks[small] = at as u32;
                small += 1;
            } else {
                large -= 1;
                stacks[large] = at as u32;
            }
        }
        while small > 0 && large < n {
            let (low, alias) = (stacks[small - 1] as usize, stacks[large]);
            let part = scaled[low];
            slots[low] = Slot {
                up_to: (part * SPAN) as u32,
                alias,
            };
            let left = &mut scaled[alias as usize];
            *left -= 1.0 - part;
            if *left < 1.0 {
                stacks[small - 1] = alias;
                large += 1;
            } else {
                small -= 1;
            }
        }
        // What is left stands at 1, but for rounding.
        Self { len: n, slots }
    }

    /// How many instances it draws from.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to draw.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How often each is drawn.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.len()];
        if self.slots.is_empty() {
            shares.fill(1.0 / self.len() as f64);
        }
        for (at, slot) in self.slots.iter().enumerate() {
            let own = f64::from(slot.up_to) / SPAN;
            shares[at] += own / self.len() as f64;
            shares[slot.alias as usize] += (1.0 - own) / self.len() as f64;
        }
        shares
    }

    /// The place of one, or `None` if there is none.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> Option<usize> {
        // One number for both: the upper half says which slot, the lower whether its alias.
        let bits = random.next_u64();
        let at = (((bits >> 32) * self.len as u64) >> 32) as usize;
        if self.slots.is_empty() {
            return (at < self.len).then_some(at);
        }
        let slot = self.slots.get(at)?;
        let own = (bits as u32) <= slot.up_to && slot.up_to > 0;
        Some(if own { at } else { slot.alias as usize })
    }
}

const SPAN: f64 = u32::MAX as f64;
