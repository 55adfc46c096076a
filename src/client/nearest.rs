//! The name that was probably meant.

/// How long a name may be to be compared: the cost is quadratic.
const LONGEST: usize = 128;

/// The name among `names` that is most like `wanted`, if one is like it: the same but for case,
/// one a part of the other, or at most a third of its letters exchanged, added, left out or
/// swapped.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = wanted.to_lowercase();
    let letters: Vec<char> = folded.chars().take(LONGEST).collect();
    let limit = (letters.len() / 3).max(1);
    names
        .filter(|name| *name != wanted)
        .filter_map(|name| {
            let other = name.to_lowercase();
            let contained = letters.len() > 3
                && other.chars().count() > 3
                && (other.contains(&folded) || folded.contains(&other));
            let others: Vec<char> = other.chars().take(LONGEST).collect();
            let distance = if letters.len().abs_diff(others.len()) > limit {
                limit + 1
            } else {
                distance(&letters, &others)
            };
            match distance {
                near if near <= limit => Some((near, name)),
                _ if contained => Some((limit + 1, name)),
                _ => None,
            }
        })
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment (Damerau 1964, restricted): letters exchanged, added, left out, and
/// neighbours swapped, each counting 1.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let exchanged = last[j] + usize::from(x != y);
            row[j + 1] = exchanged.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["orders", "users", "order-items", "billing", "Payments"];
        for (wanted, near) in [
            ("ordres", Some("orders")),
            ("order", Some("orders")),
            ("oders", Some("orders")),
            ("ORDERS", Some("orders")),
            ("payments", Some("Payments")),
            ("orders-service", Some("orders")),
            ("bill", Some("billing")),
            ("shipping", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, names.into_iter()), near, "{wanted}");
        }
    }

    #[test]
    fn distances_are_those_of_the_literature() {
        let of = |a: &str, b: &str| {
            distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        for (a, b, n) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ca", "ac", 1),
            ("ca", "abc", 3), // 2 without the restriction
            ("größe", "grösse", 2),
        ] {
            assert_eq!((of(a, b), of(b, a)), (n, n), "{a} {b}");
        }
    }
}
