use std::{sync::Arc, time::Instant};

use serde::Serialize;

use super::{
    Machine, ServiceId,
    instance::{Listed, Stored},
};

/// `serviceInfo`, of a push and of an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    name: &'a str,
    group_name: &'a str,
    clusters: &'a str,
    cache_millis: u32,
    hosts: Vec<Listed<'a>>,
    last_ref_time: i64,
    checksum: &'static str,
    #[serde(rename = "allIPs", skip_serializing_if = "Option::is_none")]
    all_ips_v2: Option<bool>,
    #[serde(rename = "allIps", skip_serializing_if = "Option::is_none")]
    all_ips_v3: Option<bool>,
    reach_protection_threshold: bool,
    valid: bool,
}

impl Machine {
    /// The instances as reads see them: as of the last push task, up to 600 ms old.
    pub(super) fn readable(&mut self, service: &ServiceId) -> Arc<Vec<Arc<Stored>>> {
        match self.services.get_mut(service) {
            Some(state) => match &state.data {
                Some(data) => data.clone(),
                None if state.exists => state.refresh(self.seed),
                None => Arc::default(),
            },
            None => Arc::default(),
        }
    }

    /// The JSON of a list after its filters: clusters, disabled, unhealthy if asked, and only
    /// then protection.
    pub(super) fn info(
        &self,
        service: &ServiceId,
        list: &[Arc<Stored>],
        clusters: &str,
        healthy_only: bool,
        with_disabled: bool,
        now: Instant,
    ) -> String {
        let wanted: Vec<&str> = clusters.split(',').filter(|c| !c.is_empty()).collect();
        let shown: Vec<&Stored> = list
            .iter()
            .map(|instance| &**instance)
            .filter(|instance| wanted.is_empty() || wanted.contains(&instance.cluster.as_str()))
            .filter(|instance| instance.enabled || with_disabled)
            .filter(|instance| instance.healthy || !healthy_only)
            .collect();
        let threshold = self.services.get(service).and_then(|state| state.threshold);
        let healthy = shown.iter().filter(|instance| instance.healthy).count();
        // An empty list has no ratio, so that it is never protected.
        let protected = !shown.is_empty()
            && threshold.is_some_and(|t| healthy as f64 / shown.len() as f64 <= t.max(0.0));
        let grouped = service.grouped();
        let v3 = self.settings.profile.is_v3();
        let info = Info {
            name: &service.name,
            group_name: &service.group,
            clusters,
            cache_millis: 10_000,
            hosts: shown
                .into_iter()
                .map(|instance| instance.listed(&grouped, instance.healthy || protected))
                .collect(),
            last_ref_time: self.wall_clock(now),
            checksum: "",
            all_ips_v2: (!v3).then_some(false),
            all_ips_v3: v3.then_some(false),
            reach_protection_threshold: protected,
            valid: true,
        };
        // Text keys and no map of ours can fail to serialise.
        serde_json::to_string(&info).unwrap_or_default()
    }
}
