//! Whether a count is more than another, or chance.

/// Whether `ours` failures are more than `theirs`, out of as many calls of the same kind.
///
/// If both clients lost calls with the same probability, then of the `ours + theirs` losses each would be
/// ours by the toss of a coin. It counts as more what that coin does less than once in a million times,
/// so that a matrix of hundreds of cells is not red by chance once in thousands of runs.
pub(crate) fn more_than_chance(ours: usize, theirs: usize) -> bool {
    if ours <= theirs {
        return false;
    }
    let tosses = ours + theirs;
    // P(at least `ours` heads of so many tosses), summed from the most extreme one.
    let mut term = -(tosses as f64) * std::f64::consts::LN_2; // ln of C(n, n) / 2^n
    let mut tail = 0.0;
    for heads in (ours..=tosses).rev() {
        tail += term.exp();
        // C(n, k - 1) = C(n, k) * k / (n - k + 1)
        term += (heads as f64 / (tosses - heads + 1) as f64).ln();
    }
    tail < 1e-6
}

#[test]
fn a_coin_is_believed_until_it_is_one_in_a_million() {
    assert!(!more_than_chance(0, 0));
    assert!(!more_than_chance(5, 5));
    assert!(!more_than_chance(19, 0), "2^-19 is more than 10^-6");
    assert!(more_than_chance(20, 0), "2^-20 is less");
    assert!(!more_than_chance(120, 100));
    assert!(more_than_chance(200, 100));
}
