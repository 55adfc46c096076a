use crate::endpoint::health::rules::Outliers;

/// How many of the callable instances are out, whatever for.
///
/// The one place that says how many may be ejected for what they do with calls, and when none may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub(crate) callable: usize,
    /// Ejected for any reason, refused by their health checks (obeyed or not), or unusable.
    pub(crate) out: usize,
    /// Of these: for what they do with calls.
    pub(crate) outliers: usize,
    /// Out of those that are out: who gets no call.
    pub(crate) shut: usize,
}

impl Crowd {
    /// Whether so many are out that what calls tell of instances is not to be trusted.
    pub(crate) fn is_panic(self, rules: &Outliers) -> bool {
        let threshold = self.callable as f64 * rules.panic;
        self.out > 0 && (self.out as f64 > threshold || self.out >= self.callable)
    }

    /// Whether one more may be ejected for what it does: one may be always, if any, as in A50.
    pub(crate) fn has_room(self, rules: &Outliers) -> bool {
        let capped = (self.outliers + 1) as f64 <= self.callable as f64 * rules.most
            || (self.outliers == 0 && rules.most > 0.0);
        let then = Self {
            out: self.out + 1,
            ..self
        };
        capped && !then.is_panic(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(callable: usize, out: usize, outliers: usize) -> Crowd {
        Crowd {
            callable,
            out,
            outliers,
            shut: out,
        }
    }

    #[test]
    fn more_than_half_out_for_any_reason_is_panic_and_so_is_all_out() {
        let rules = Outliers::new();
        // Callable, out, and whether that is panic: Envoy's threshold of 50 %.
        let cases = [
            (0, 0, false),
            (1, 0, false),
            (1, 1, true),
            (2, 1, false),
            (2, 2, true),
            (3, 1, false),
            (3, 2, true),
            (10, 5, false),
            (10, 6, true),
        ];
        for (callable, out, panic) in cases {
            let is = crowd(callable, out, 0).is_panic(&rules);
            assert_eq!(is, panic, "{out} of {callable}");
        }
        let never = Outliers {
            panic: 1.0,
            ..rules
        };
        assert!(!crowd(10, 9, 9).is_panic(&never));
        assert!(crowd(10, 10, 0).is_panic(&never), "nobody is left");
    }

    #[test]
    fn the_cap_is_a_part_of_the_callable_or_one_and_never_the_last() {
        let with = |most| Outliers {
            most,
            panic: 1.0,
            ..Outliers::new()
        };
        // Callable, outliers, the cap, and whether one more may go.
        let cases = [
            (5, 0, 0.1, true), // A50: 10 %, but at least one
            (5, 1, 0.1, false),
            (20, 1, 0.1, true),
            (20, 2, 0.1, false),
            (4, 1, 0.5, true),
            (4, 2, 0.5, false),
            (3, 1, 1.0, true),
            (3, 2, 1.0, false), // the last
            (1, 0, 1.0, false),
            (9, 0, 0.0, false), // switched off
        ];
        for (callable, outliers, most, room) in cases {
            let crowd = crowd(callable, outliers, outliers);
            assert_eq!(crowd.has_room(&with(most)), room, "{crowd:?} {most}");
        }
        // Those that cannot be reached take the room of the others.
        assert!(!crowd(4, 2, 0).has_room(&Outliers::new()));
        assert!(crowd(4, 1, 0).has_room(&Outliers::new()));
    }
}
