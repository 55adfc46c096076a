//! The server's own checks of persistent instances: it dials their ports.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Machine, Output, ServiceId, instance::Stored, services::Publisher};

/// So many dials in a row have to succeed before an instance is healthy again, and so many to fail.
const GOOD: u32 = 5;

/// A dial of which nothing is heard, since the server was stopped meanwhile, is made again.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Every address that is looked at, once for all services.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<(String, i32), Check>);

#[derive(Debug)]
struct Check {
    due: Instant,
    good: u32,
}

impl Checks {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|check| check.due).min()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Machine {
    /// A persistent instance was registered.
    pub(super) fn check_from_now(&mut self, instances: &[Stored], now: Instant) {
        let Some(every) = self.settings.tcp_checks else {
            return;
        };
        for instance in instances.iter().filter(|instance| !instance.ephemeral) {
            let key = (instance.ip.clone(), instance.port);
            self.checks.0.entry(key).or_insert(Check {
                due: now + every,
                good: 0,
            });
        }
    }

    pub(super) fn run_checks(&mut self, now: Instant) {
        let due = self.checks.0.iter().filter(|(_, check)| check.due <= now);
        let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        for (ip, port) in due {
            if self.persistent_at(&ip, port).is_empty() {
                self.checks.0.remove(&(ip, port));
                continue;
            }
            if let Some(check) = self.checks.0.get_mut(&(ip.clone(), port)) {
                check.due = now + UNANSWERED;
            }
            self.outputs.push_back(Output::Check { ip, port });
        }
    }

    /// What came of [`Output::Check`]: whether somebody accepts connections there.
    pub fn handle_checked(&mut self, ip: &str, port: i32, accepts: bool, now: Instant) {
        let Some(every) = self.settings.tcp_checks else {
            return;
        };
        let Some(check) = self.checks.0.get_mut(&(ip.to_owned(), port)) else {
            return; // the server was started again meanwhile
        };
        check.due = now + every;
        check.good = if accepts { check.good + 1 } else { 0 };
        if !accepts || check.good >= GOOD {
            for service in self.persistent_at(ip, port) {
                self.found_healthy(&service, (ip, port), accepts, now);
            }
        }
        self.settle(now);
    }

    fn found_healthy(
        &mut self,
        service: &ServiceId,
        (ip, port): (&str, i32),
        healthy: bool,
        now: Instant,
    ) {
        let mut found = false;
        if let Some(state) = self.services.get_mut(service) {
            for (publisher, instances) in &mut state.publications {
                for instance in instances {
                    let is_it = matches!(publisher, Publisher::Persistent(_))
                        && (&*instance.ip, instance.port) == (ip, port);
                    if is_it && instance.healthy != healthy {
                        Arc::make_mut(instance).healthy = healthy;
                        found = true;
                    }
                }
            }
        }
        if found {
            self.changed(service, now);
        }
    }

    fn persistent_at(&self, ip: &str, port: i32) -> Vec<ServiceId> {
        let has = |publisher: &Publisher| matches!(publisher, Publisher::Persistent(key) if key.ip == ip && key.port == port);
        let services = self.services.iter();
        let services = services.filter(|(_, state)| state.publications.keys().any(has));
        services.map(|(service, _)| service.clone()).collect()
    }
}
