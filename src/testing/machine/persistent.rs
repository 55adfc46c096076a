//! Persistent instances, whose health is what the server's own checks of them found.

use std::{sync::Arc, time::Instant};

use super::{Machine, Output, ServiceId, instance::Stored, services::Publisher};

impl Machine {
    /// A persistent instance was registered.
    pub(super) fn check_from_now(&mut self, instances: &[Stored], now: Instant) {
        let Some(every) = self.settings.tcp_checks else {
            return;
        };
        for instance in instances.iter().filter(|instance| !instance.ephemeral) {
            self.checks.begin(&instance.ip, instance.port, now + every);
        }
    }

    pub(super) fn run_checks(&mut self, now: Instant) {
        for (ip, port) in self.checks.take_due(now) {
            if self.persistent_at(&ip, port).is_empty() {
                self.checks.end(&ip, port);
                continue;
            }
            self.outputs.push_back(Output::Check { ip, port });
        }
    }

    /// What came of [`Output::Check`]: whether somebody accepts connections there.
    pub fn handle_checked(&mut self, ip: &str, port: i32, accepts: bool, now: Instant) {
        let Some(every) = self.settings.tcp_checks else {
            return;
        };
        // `None` too if the server was started again meanwhile.
        if let Some(healthy) = self.checks.answered(ip, port, accepts, now + every) {
            for service in self.persistent_at(ip, port) {
                self.found_healthy(&service, (ip, port), healthy, now);
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
