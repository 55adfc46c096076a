//! The HTTP interface of the main port, as far as operators and tests use it.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};

use crate::model::{DEFAULT_GROUP, PUBLIC_NAMESPACE};

use super::{
    Machine, OperatorCall, ServiceId,
    instance::{Edit, EditKey},
    services::Publisher,
};

/// The answer to an [`OperatorCall`].
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorAnswer {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or plain text where Nacos's first interface answers so.
    pub body: String,
}

/// The generation of an interface, which decides how answers look.
#[derive(Clone, Copy, PartialEq)]
enum Api {
    V1,
    V2,
    V3,
}

pub(super) type Answered = Result<Value, (u16, String)>;

impl Machine {
    /// Answers a call of the main port: instances (register, deregister, update, list), services
    /// (create, update, delete, list), asking a client to leave, readiness. What is registered here
    /// needs no heartbeat.
    pub fn operator(&mut self, call: &OperatorCall, now: Instant) -> OperatorAnswer {
        let Some((api, tail)) = split(&call.path) else {
            return answer(Api::V1, Err((404, "no such path".to_owned())));
        };
        let v3 = self.settings.profile.is_v3();
        let result = if api == Api::V3 && !v3 {
            Err((404, "no such path".to_owned()))
        } else {
            self.operate(api, tail, call, now)
        };
        self.settle(now);
        match result {
            // No envelope around a token, whatever the interface.
            Ok(token) if token.get("accessToken").is_some() => OperatorAnswer {
                status: 200,
                body: token.to_string(),
            },
            result => answer(api, result),
        }
    }

    fn operate(&mut self, api: Api, tail: &str, call: &OperatorCall, now: Instant) -> Answered {
        let method = call.method.as_str();
        // A 3.x server has switched the old operators' interface off, not the old clients' one.
        let gone = self.settings.profile.is_v3() && api != Api::V3;
        let of_client = matches!(
            (method, tail),
            ("POST" | "DELETE" | "GET", "ns/instance") | ("GET", "ns/instance/list")
        );
        let of_login = method == "POST" && tail.starts_with("auth/");
        let of_health = tail.ends_with("readiness") || tail.ends_with("liveness");
        if gone && !of_client && !of_login && !of_health {
            let message = "Current API will be deprecated, please use v3";
            return Err((410, message.to_owned()));
        }
        let ok = || Ok(json!("ok"));
        match (method, tail) {
            ("GET", _) if of_health => Ok(json!(if api == Api::V1 { "OK" } else { "ok" })),
            ("POST", "auth/login" | "auth/users/login") if api == Api::V1 => self.login(call, now),
            ("POST", "auth/user/login") if api == Api::V3 => self.login(call, now),
            ("POST", "ns/instance") => {
                let (service, instance) = (call.service()?, call.instance()?);
                let mut stored = instance.completed(&service);
                let publisher = if stored.ephemeral {
                    Publisher::Scripted(format!("{}:{}@{}", stored.ip, stored.port, stored.cluster))
                } else {
                    if self.settings.profile.is_v3() {
                        stored.id.clear(); // as recorded: persistent ones from HTTP have none
                    }
                    Publisher::Persistent(stored.key())
                };
                self.publish(&service, publisher, vec![stored], now);
                ok()
            }
            ("DELETE", "ns/instance") => {
                let (service, instance) = (call.service()?, call.instance()?);
                let publisher = if instance.ephemeral {
                    Publisher::Scripted(format!(
                        "{}:{}@{}",
                        instance.ip, instance.port, instance.cluster
                    ))
                } else {
                    Publisher::Persistent(instance.key())
                };
                self.publish(&service, publisher, Vec::new(), now);
                ok()
            }
            ("PUT", "ns/instance") => {
                let (service, instance) = (self.existing(call)?, call.instance()?);
                let edit = Edit {
                    weight: instance.weight,
                    enabled: instance.enabled,
                    metadata: instance.metadata.clone(),
                };
                self.edit(&service, instance.key(), edit, now);
                ok()
            }
            ("PATCH", "ns/instance") | ("PUT", "ns/instance/partial") => {
                self.patch(call, now)?;
                ok()
            }
            ("GET", "ns/instance" | "ns/instance/list") => self.http_list(api, tail, call, now),
            ("POST", "ns/service") => {
                let service = call.service()?;
                let exists = self.services.get(&service).is_some_and(|s| s.exists);
                if exists {
                    let service = service.grouped();
                    return Err((400, format!("specified service {service} already exists!")));
                }
                let threshold = call.parsed("protectThreshold", 0.0)?;
                let ephemeral = call.parsed("ephemeral", true)?;
                let metadata = call.metadata()?;
                self.set_protect_threshold(service.clone(), threshold, now);
                if let Some(state) = self.services.get_mut(&service) {
                    state.persistent = !ephemeral;
                    state.metadata = metadata;
                }
                ok()
            }
            ("PUT", "ns/service") => {
                let service = self.existing(call)?;
                let threshold = call.parsed("protectThreshold", 0.0)?;
                let metadata = call.metadata()?;
                self.set_protect_threshold(service.clone(), threshold, now);
                if let Some(state) = self.services.get_mut(&service) {
                    state.metadata = metadata;
                }
                ok()
            }
            ("GET", "ns/service") => self.http_service(api, call),
            ("DELETE", "ns/service") => {
                let service = self.existing(call)?;
                match self.services.get_mut(&service) {
                    Some(state) if !state.publications.is_empty() => {
                        let service = service.grouped();
                        let message = format!(
                            "Service {service} is not empty, can't be delete. Please unregister instance first"
                        );
                        return Err((400, message));
                    }
                    Some(state) => {
                        state.exists = false;
                        state.threshold = None;
                        state.metadata.clear();
                        state.data = None;
                        state.empty_since = None;
                    }
                    None => {}
                }
                ok()
            }
            ("GET", "ns/service/list") => Ok(self.http_services(call)),
            ("PUT", "ns/cluster") => {
                call.service()?;
                ok()
            }
            ("PUT", "ns/health" | "ns/health/instance") => {
                let service = call.service()?.grouped();
                let message =
                    format!("health check is still working, specifying service: {service}");
                Err((400, message))
            }
            ("GET" | "POST", "core/loader/reloadClient") => {
                let name = call.needed("connectionId")?;
                let conn = self.conns.iter().find(|(_, c)| c.name == name);
                let conn = conn.map(|(conn, _)| *conn);
                let conn = conn.ok_or_else(|| (404, format!("no connection {name}")))?;
                let redirect = call.param("redirectAddress").map(str::to_owned);
                self.reset_connection(conn, redirect.as_deref(), now);
                Ok(json!("success"))
            }
            _ => Err((404, "no such path".to_owned())),
        }
    }

    /// The service of a call that only makes sense for one that exists.
    fn existing(&self, call: &OperatorCall) -> Result<ServiceId, (u16, String)> {
        let service = call.service()?;
        if self.services.get(&service).is_some_and(|s| s.exists) {
            return Ok(service);
        }
        let (namespace, service) = (&service.namespace, service.grouped());
        Err((
            400,
            format!("service not found, namespace: {namespace}, service: {service}"),
        ))
    }

    /// Changes only what a call names.
    fn patch(&mut self, call: &OperatorCall, now: Instant) -> Result<(), (u16, String)> {
        let (service, named) = (self.existing(call)?, call.instance()?);
        let key: EditKey = named.key();
        let state = self.services.get(&service);
        let shown = state.and_then(|state| {
            state
                .publications
                .values()
                .flatten()
                .find(|instance| instance.key() == key)
        });
        let standing = state.and_then(|state| state.edits.get(&key));
        let mut edit = match (standing, shown) {
            (Some(edited), _) => edited.edit.clone(),
            (None, Some(instance)) => Edit {
                weight: instance.weight,
                enabled: instance.enabled,
                metadata: BTreeMap::new(),
            },
            (None, None) => return Err((400, "instance not found".to_owned())),
        };
        if call.param("weight").is_some() {
            edit.weight = named.weight;
        }
        if call.param("enabled").is_some() {
            edit.enabled = named.enabled;
        }
        edit.metadata.extend(named.metadata);
        self.edit(&service, key, edit, now);
        Ok(())
    }

    fn http_list(&mut self, api: Api, tail: &str, call: &OperatorCall, now: Instant) -> Answered {
        let service = call.service()?;
        let list = self.readable(&service);
        let clusters = call.param("clusters").unwrap_or_default();
        let healthy_only = call.parsed("healthyOnly", false)?;
        let info = self.info(&service, &list, clusters, healthy_only, false, now);
        let mut info: Value =
            serde_json::from_str(&info).map_err(|error| (500, error.to_string()))?;
        if tail == "ns/instance" {
            let ip = call.needed("ip")?;
            let port: i64 = call.parsed("port", 0)?;
            let hosts = info["hosts"].as_array().into_iter().flatten();
            let mut named = hosts.filter(|h| h["ip"] == ip && h["port"] == port);
            let found = named.next().cloned();
            return found.ok_or_else(|| (404, "no matched ip found!".to_owned()));
        }
        match api {
            // The first interface names the service with its group, unlike the wire.
            Api::V1 => {
                info["name"] = json!(service.grouped());
                Ok(info)
            }
            Api::V2 => Ok(info),
            Api::V3 => Ok(info["hosts"].take()),
        }
    }

    /// What an operator set of a service, as 2.2.4 and 3.1.0 were seen to tell it.
    fn http_service(&self, api: Api, call: &OperatorCall) -> Answered {
        let service = self.existing(call)?;
        let state = self.services.get(&service);
        let threshold = state.and_then(|state| state.threshold).unwrap_or_default();
        let metadata = state.map(|state| &state.metadata);
        let (namespace, group, name) = (&service.namespace, &service.group, &service.name);
        Ok(if api == Api::V3 {
            let ephemeral = state.is_none_or(|state| !state.persistent);
            json!({
                "namespaceId": namespace, "serviceName": name, "groupName": group, "clusterMap": {},
                "metadata": metadata, "protectThreshold": threshold,
                "selector": {"type": "NoneSelector", "contextType": "NONE"}, "ephemeral": ephemeral
            })
        } else {
            json!({
                "namespaceId": namespace, "groupName": group, "name": name,
                "protectThreshold": threshold, "metadata": metadata,
                "selector": {"type": "none", "contextType": "NONE"}, "clusters": []
            })
        })
    }

    fn http_services(&self, call: &OperatorCall) -> Value {
        let namespace = call.param("namespaceId").unwrap_or(PUBLIC_NAMESPACE);
        let group = call.param("groupName").unwrap_or(DEFAULT_GROUP);
        let names: Vec<&str> = self
            .services
            .iter()
            .filter(|(s, state)| state.exists && s.namespace == namespace && s.group == group)
            .map(|(service, _)| service.name.as_str())
            .collect();
        json!({"count": names.len(), "doms": names})
    }
}

fn split(path: &str) -> Option<(Api, &str)> {
    let path = path.strip_prefix("/nacos/")?;
    let (api, tail) = path.split_once('/')?;
    let api = match api {
        "v1" => Api::V1,
        "v2" => Api::V2,
        "v3" => Api::V3,
        _ => return None,
    };
    let tail = match (api, tail) {
        (Api::V3, tail) => tail
            .strip_prefix("admin/")
            .or_else(|| tail.strip_prefix("client/"))
            .unwrap_or(tail),
        (_, tail) => tail,
    };
    Some((api, tail))
}

fn answer(api: Api, result: Answered) -> OperatorAnswer {
    let (status, body) = match (api, result) {
        (Api::V1, Ok(Value::String(text))) => (200, text),
        (Api::V1, Ok(value)) => (200, value.to_string()),
        (Api::V1, Err((status, message))) => (status, message),
        (_, Ok(data)) => {
            let body = json!({"code": 0, "message": "success", "data": data});
            (200, body.to_string())
        }
        (_, Err((status, message))) => {
            let body = json!({"code": status, "message": message, "data": null});
            (status, body.to_string())
        }
    };
    OperatorAnswer { status, body }
}
