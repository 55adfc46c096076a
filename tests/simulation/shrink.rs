//! Leaves out of a failing life what it does not need to fail (Zeller and Hildebrandt, "Simplifying
//! and isolating failure-inducing input", 2002: ddmin, complements only).

/// The numbers of those of `all` steps that are enough for `fails`: without any one of them it holds,
/// unless `tries` runs were not enough to find out.
pub(crate) fn shrink(
    all: usize,
    tries: u32,
    mut fails: impl FnMut(&[usize]) -> bool,
) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..all).collect();
    let (mut size, mut left) = (all.div_ceil(2).max(1), tries);
    loop {
        let mut from = 0;
        let before = kept.len();
        while from < kept.len() {
            if left == 0 {
                return kept;
            }
            left -= 1;
            let until = (from + size).min(kept.len());
            let rest = [&kept[..from], &kept[until..]].concat();
            if fails(&rest) {
                kept = rest;
            } else {
                from = until;
            }
        }
        match size {
            // What is left out last may make another one needless.
            1 if kept.len() == before => return kept,
            1 => {}
            _ => size = size.div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_is_left_is_what_the_failure_needs() {
        for needed in [&[][..], &[0], &[41], &[3, 4], &[0, 17, 29, 41]] {
            let fails = |kept: &[usize]| needed.iter().all(|n| kept.contains(n));
            assert_eq!(shrink(42, 1_000, fails), needed);
        }
    }

    #[test]
    fn either_of_two_causes_will_do() {
        let fails = |kept: &[usize]| kept.contains(&5) || kept.contains(&30);
        assert_eq!(shrink(42, 1_000, fails).len(), 1);
    }

    #[test]
    fn what_needs_more_runs_than_there_are_is_shrunk_as_far_as_they_go() {
        let mut runs = 0;
        let kept = shrink(42, 10, |kept| {
            runs += 1;
            kept.contains(&40)
        });
        assert!(kept.contains(&40) && kept.len() < 42, "{kept:?}");
        assert_eq!(runs, 10);
    }
}
