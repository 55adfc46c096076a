use crate::directory::Generation;

/// Finds what of a list is still there, asked for in about the list's own order: mostly it is the next one.
pub(crate) struct Known<'a> {
    list: &'a [Generation],
    next: usize,
    /// How many may still be looked at for those that are not the next, before looks become short: where most
    /// of a list is new, nobody looks through all of it for each.
    effort: usize,
}

impl<'a> Known<'a> {
    pub(crate) const fn new(list: &'a [Generation]) -> Self {
        Self {
            list,
            next: 0,
            effort: 4 * list.len(),
        }
    }

    /// Its place in the list, which is behind those found before. `None` if it is not there; also if it
    /// is far off and much was looked for, so that has to be an answer that is merely dearer.
    #[inline]
    pub(crate) fn find(&mut self, wanted: Generation) -> Option<usize> {
        if self.list.get(self.next) != Some(&wanted) {
            self.skip_to(wanted)?;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    #[cold]
    fn skip_to(&mut self, wanted: Generation) -> Option<()> {
        let left = self.list.get(self.next..)?;
        let reach = left.len().min(self.effort.max(SHORT));
        let found = left[..reach].iter().position(|known| *known == wanted);
        let looked = found.map_or(reach, |found| found + 1);
        self.effort = self.effort.saturating_sub(looked);
        self.next += found?;
        Some(())
    }
}

/// How far a look goes that is short.
const SHORT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &[u64], wanted: &[u64]) -> Vec<Option<usize>> {
        let list: Vec<_> = list.iter().copied().map(Generation).collect();
        let mut known = Known::new(&list);
        wanted.iter().map(|w| known.find(Generation(*w))).collect()
    }

    #[test]
    fn what_is_there_is_found_whatever_came_or_went() {
        let some = |at: &[usize]| at.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(found(&[5, 3, 9], &[5, 3, 9]), some(&[0, 1, 2]));
        assert_eq!(found(&[5, 3, 9], &[3, 9]), some(&[1, 2]));
        assert_eq!(found(&[5, 3, 9], &[5, 9]), some(&[0, 2]));
        let new = [Some(0), None, Some(1), None, Some(2), None];
        assert_eq!(found(&[5, 3, 9], &[5, 1, 3, 2, 9, 4]), new);
        assert_eq!(found(&[], &[5]), [None]);
        // A rack is gone.
        let list: Vec<u64> = (0..1_000).collect();
        let left: Vec<u64> = (0..100).chain(900..1_000).collect();
        let places = left.iter().map(|at| Some(*at as usize));
        assert_eq!(found(&list, &left), places.collect::<Vec<_>>());
    }

    #[test]
    fn nobody_looks_for_ever_for_those_that_are_new() {
        let list: Vec<Generation> = (0..1_000).map(Generation).collect();
        let mut known = Known::new(&list);
        for new in 2_000..3_000 {
            assert_eq!(known.find(Generation(new)), None);
        }
        assert_eq!(known.effort, 0);
        assert_eq!(known.find(Generation(0)), Some(0));
        assert_eq!(known.find(Generation(10)), Some(10));
    }
}
