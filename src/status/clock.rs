use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::endpoint;

/// One moment by both clocks: ages are told by the first, and people read the second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "people read it, and nothing depends on it"
        )]
        let wall = SystemTime::now();
        Self {
            instant: endpoint::now().into_std(),
            wall,
        }
    }

    /// What the wall clock showed then, unless it stepped since.
    pub(super) fn wall_at(&self, at: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(at);
        self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH)
    }

    pub(super) fn since(&self, at: Instant) -> Duration {
        self.instant.saturating_duration_since(at)
    }
}

/// As RFC 3339 has it, in UTC, to the millisecond. 1970 for what is before.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis(),
    )
}

/// The date of a day since 1970. Years are taken from March on, so that a leap day is the last of its year.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the 1st of March of the year 0
    let era = days / 146_097;
    let day = days % 146_097;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, of_month)
}

/// How long ago, for people.
pub(super) fn in_words(age: Duration) -> String {
    match age.as_secs() {
        0 => format!("{} ms", age.as_millis()),
        seconds @ 1..10 => format!("{seconds}.{} s", age.subsec_millis() / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / DAY),
    }
}

const DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        assert_eq!(
            rfc3339(UNIX_EPOCH - Duration::from_secs(1)),
            rfc3339(UNIX_EPOCH)
        );
    }

    #[test]
    fn ages_are_short() {
        let words = [0, 1_500, 59_000, 600_000, 90_000_000, u64::MAX];
        let words = words.map(|ms| in_words(Duration::from_millis(ms)));
        assert_eq!(words[..5], ["0 ms", "1.5 s", "59 s", "10 min", "25 h"]);
        assert!(in_words(Duration::MAX).ends_with(" days"));
    }
}
