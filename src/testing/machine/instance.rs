use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::model::{self, Host};

use super::{
    ServiceId,
    body::{Fields, Malformed},
};

/// An instance as a server keeps it: whatever the provider sent, within what Jackson can hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) ip: String,
    pub(super) port: i32,
    pub(super) weight: f64,
    pub(super) healthy: bool,
    pub(super) enabled: bool,
    pub(super) ephemeral: bool,
    pub(super) cluster: String,
    pub(super) metadata: BTreeMap<String, String>,
}

/// What an operator's edit is kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EditKey {
    pub(super) ip: String,
    pub(super) port: i32,
    pub(super) cluster: String,
}

/// An operator's edit: replaces weight and enabled, adds to the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edit {
    pub(super) weight: f64,
    pub(super) enabled: bool,
    pub(super) metadata: BTreeMap<String, String>,
}

/// An instance as it stands in a list; `instanceIdGenerator` and the three times are what Java's
/// getters make of the metadata.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    instance_id: &'a str,
    ip: &'a str,
    port: i32,
    #[serde(serialize_with = "number")]
    weight: f64,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    cluster_name: &'a str,
    service_name: &'a str,
    metadata: &'a BTreeMap<String, String>,
    instance_heart_beat_interval: i64,
    instance_heart_beat_time_out: i64,
    ip_delete_timeout: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id_generator: Option<&'a str>,
}

impl Stored {
    /// Reads the `instance` of a registration. A weight of `null` is 0, as Jackson reads it.
    pub(super) fn read(fields: &Fields, ephemeral: bool) -> Result<Self, Malformed> {
        fields.boolean("ephemeral", true)?;
        Ok(Self {
            id: fields.text("instanceId")?.unwrap_or_default(),
            ip: fields.text("ip")?.unwrap_or_default(),
            port: fields.integer("port", 0)?,
            weight: fields.number("weight", 1.0)?,
            healthy: fields.boolean("healthy", true)?,
            enabled: fields.boolean("enabled", true)?,
            ephemeral,
            cluster: fields.text("clusterName")?.unwrap_or_default(),
            metadata: fields.texts("metadata")?,
        })
    }

    /// Fills in what the server chooses: the cluster, and an id unless one was sent.
    pub(super) fn completed(mut self, service: &ServiceId) -> Self {
        if self.cluster.is_empty() {
            self.cluster = model::DEFAULT_CLUSTER.to_owned();
        }
        if self.id.is_empty() {
            let (group, name) = (&service.group, &service.name);
            self.id = format!("{}#{}#{}#{group}@@{name}", self.ip, self.port, self.cluster);
        }
        self
    }

    pub(super) fn key(&self) -> EditKey {
        EditKey {
            ip: self.ip.clone(),
            port: self.port,
            cluster: self.cluster.clone(),
        }
    }

    pub(super) fn edited(&self, edit: &Edit) -> Self {
        let mut edited = self.clone();
        edited.weight = edit.weight;
        edited.enabled = edit.enabled;
        edited
            .metadata
            .extend(edit.metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
        edited
    }

    /// What makes the server refuse an instance after the parameter check.
    pub(super) fn illegal(&self) -> Option<&'static str> {
        let interval = self.millis("preserved.heart.beat.interval", 5_000);
        let timeout = self.millis("preserved.heart.beat.timeout", 15_000);
        let delete = self.millis("preserved.ip.delete.timeout", 30_000);
        (timeout < interval || delete < interval).then_some(
            "Instance 'heart beat interval' must less than 'heart beat timeout' and 'ip delete timeout'.",
        )
    }

    pub(super) fn listed<'a>(&'a self, grouped: &'a str, healthy: bool) -> Listed<'a> {
        Listed {
            instance_id: &self.id,
            ip: &self.ip,
            port: self.port,
            weight: self.weight,
            healthy,
            enabled: self.enabled,
            ephemeral: self.ephemeral,
            cluster_name: &self.cluster,
            service_name: grouped,
            metadata: &self.metadata,
            instance_heart_beat_interval: self.millis("preserved.heart.beat.interval", 5_000),
            instance_heart_beat_time_out: self.millis("preserved.heart.beat.timeout", 15_000),
            ip_delete_timeout: self.millis("preserved.ip.delete.timeout", 30_000),
            instance_id_generator: if self.metadata.is_empty() {
                Some("simple")
            } else {
                // Java's getter falls back to the default only if there is no metadata at all.
                self.metadata
                    .get("preserved.instance.id.generator")
                    .map(String::as_str)
            },
        }
    }

    fn millis(&self, key: &str, absent: i64) -> i64 {
        self.metadata
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(absent)
    }
}

impl From<&model::Instance> for Stored {
    fn from(instance: &model::Instance) -> Self {
        let ip = match instance.address().host() {
            Host::Ip(ip) => ip.to_string(),
            host => host.to_string(),
        };
        Self {
            id: String::new(),
            ip,
            port: i32::from(instance.address().port()),
            weight: instance.weight().get(),
            healthy: instance.is_healthy(),
            enabled: instance.is_enabled(),
            ephemeral: instance.is_ephemeral(),
            cluster: instance.cluster().to_string(),
            metadata: instance
                .metadata()
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

/// A double as Jackson writes it: what JSON has no number for becomes a text.
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value.is_infinite() {
        serializer.serialize_str(if *value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        })
    } else {
        serializer.serialize_f64(*value)
    }
}
