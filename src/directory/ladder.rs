//! Which of the listed instances may be called: selection first, then the health ladder.

use crate::directory::{
    Entry, Mode, OnAllUnhealthy, Standing, health::Health, selection::Selection,
};

/// What forbids an instance whatever its health is.
fn barred(entry: &Entry, selection: &Selection) -> Option<Standing> {
    let instance = &*entry.instance;
    if !selection.takes(instance) {
        Some(Standing::OutsideSelection)
    } else if entry.leaving {
        Some(Standing::GoingOffline)
    } else if !instance.is_enabled() {
        Some(Standing::Disabled)
    } else if instance.weight().is_zero() {
        Some(Standing::WeightZero)
    } else {
        None
    }
}

/// Sets each entry's standing; returns the mode and how many are callable.
///
/// `health` runs parallel to `entries`.
pub(super) fn climb(
    entries: &mut [Entry],
    health: &[Health],
    selection: &Selection,
    protected: bool,
    on_all_unhealthy: OnAllUnhealthy,
) -> (Mode, usize) {
    let mut rung = None;
    for (entry, health) in entries.iter_mut().zip(health) {
        entry.health = *health;
        entry.standing = match barred(entry, selection) {
            Some(standing) => standing,
            None => {
                rung = Some(rung.map_or(*health, |best: Health| best.min(*health)));
                Standing::Callable
            }
        };
    }
    let ordinary = if protected {
        Mode::Flagged
    } else {
        Mode::Normal
    };
    let (mode, rung) = match (rung, on_all_unhealthy) {
        (Some(Health::Unhealthy), OnAllUnhealthy::FailFast) => (ordinary, None),
        (Some(Health::Unhealthy), OnAllUnhealthy::Panic) => (Mode::Panic, rung),
        _ => (ordinary, rung),
    };
    let mut callable = 0;
    for (entry, health) in entries.iter_mut().zip(health) {
        if !entry.standing.is_callable() {
            continue;
        }
        if Some(*health) == rung {
            callable += 1;
        } else {
            entry.standing = match health {
                Health::Unknown => Standing::HealthUnknown,
                _ => Standing::Unhealthy,
            };
        }
    }
    (mode, callable)
}
