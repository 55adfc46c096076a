use std::collections::BTreeMap;

use crate::model::{DEFAULT_CLUSTER, DEFAULT_GROUP, PUBLIC_NAMESPACE};

use super::{ServiceId, instance::Stored, params};

/// An HTTP request to the main port: query and form are one.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorCall {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The path with its `/nacos`, without the query.
    pub path: String,
    /// The parameters, decoded.
    pub params: BTreeMap<String, String>,
}

impl OperatorCall {
    /// A call without parameters.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            params: BTreeMap::new(),
        }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.params.insert(name.into(), value.to_string());
        self
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn needed(&self, name: &str) -> Result<&str, (u16, String)> {
        self.param(name)
            .ok_or_else(|| (400, format!("Param '{name}' is required.")))
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        name: &str,
        absent: T,
    ) -> Result<T, (u16, String)> {
        match self.param(name) {
            None => Ok(absent),
            Some(text) => text
                .parse()
                .map_err(|_| (400, format!("Param '{name}' is illegal: {text}"))),
        }
    }

    pub(super) fn service(&self) -> Result<ServiceId, (u16, String)> {
        let name = self.needed("serviceName")?;
        let namespace = self.param("namespaceId").unwrap_or(PUBLIC_NAMESPACE);
        let service = match name.split_once("@@") {
            Some((group, name)) => ServiceId::new(namespace, group, name),
            None => {
                let group = self.param("groupName").unwrap_or(DEFAULT_GROUP);
                ServiceId::new(namespace, group, name)
            }
        };
        params::check_service(&service).map_err(|message| (400, message))?;
        Ok(service)
    }

    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>, (u16, String)> {
        metadata(self.param("metadata").unwrap_or_default())
    }

    pub(super) fn instance(&self) -> Result<Stored, (u16, String)> {
        let cluster = self.param("clusterName").or_else(|| self.param("cluster"));
        let stored = Stored {
            id: String::new(),
            ip: self.needed("ip")?.to_owned(),
            port: {
                self.needed("port")?;
                self.parsed("port", 0)?
            },
            weight: self.parsed("weight", 1.0)?,
            healthy: self.parsed("healthy", true)?,
            enabled: self.parsed("enabled", true)?,
            ephemeral: self.parsed("ephemeral", true)?,
            cluster: cluster.unwrap_or(DEFAULT_CLUSTER).to_owned(),
            metadata: metadata(self.param("metadata").unwrap_or_default())?,
        };
        params::check_instance(&stored).map_err(|message| (400, message))?;
        Ok(stored)
    }
}

/// `{"k":"v"}` or `k=v,k=v`, as the interface takes both.
fn metadata(text: &str) -> Result<BTreeMap<String, String>, (u16, String)> {
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|_| (400, format!("metadata format incorrect: {text}")));
    }
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            pair.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| (400, format!("metadata format incorrect: {text}")))
        })
        .collect()
}
