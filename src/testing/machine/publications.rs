use std::time::Instant;

use serde_json::{Value, json};

use super::{
    Machine, ServiceId,
    body::{Fields, Malformed},
    instance::Stored,
    params,
    requests::{Refusal, Request, not_blank},
    services::Publisher,
};

impl Machine {
    /// `InstanceRequest` and `PersistentInstanceRequest`.
    pub(super) fn instance(
        &mut self,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<Value, Refusal> {
        let Request {
            conn,
            kind,
            fields,
            service,
        } = request;
        let ephemeral = *kind == "InstanceRequest";
        let instance = match fields.raw("instance") {
            Some(value) => Some(Stored::read(&Fields::of(value)?, ephemeral)?),
            None => None,
        };
        if let Some(instance) = &instance {
            self.check(instance)?;
        }
        let instance = instance.ok_or_else(|| Refusal::invalid("Instance can not be null."))?;
        let what = fields.text("type")?.unwrap_or_default();
        let publisher = if ephemeral {
            Publisher::Connection(*conn)
        } else {
            Publisher::Persistent(instance.clone().completed(service).key())
        };
        match &*what {
            "registerInstance" => {
                not_blank(service)?;
                if let Some(message) = instance.illegal() {
                    return Err(Refusal::invalid(message));
                }
                self.of_kind(service, ephemeral)?;
                if ephemeral {
                    self.needs_naming(*conn)?;
                }
                let instance = instance.completed(service);
                self.publish(service, publisher, vec![instance], now);
            }
            // Whatever address it names: all that this client published goes.
            "deregisterInstance" => self.publish(service, publisher, Vec::new(), now),
            other => {
                return Err(Refusal::invalid(format!(
                    "Unsupported request type {other}"
                )));
            }
        }
        Ok(json!({"type": what}))
    }

    /// `BatchInstanceRequest`: replaces what this client published. An empty one is answered and
    /// changes nothing, which is the half of what real servers do that a client cannot live with.
    pub(super) fn batch(&mut self, request: &Request<'_>, now: Instant) -> Result<Value, Refusal> {
        let Request {
            conn,
            fields,
            service,
            ..
        } = request;
        let instances = match fields.raw("instances") {
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| Stored::read(&Fields::of(value)?, true))
                .collect::<Result<Vec<_>, Malformed>>()?,
            Some(_) => return Err(Malformed.into()),
            None => Vec::new(),
        };
        for instance in &instances {
            self.check(instance)?;
        }
        let what = fields.text("type")?.unwrap_or_default();
        if what != "batchRegisterInstance" {
            return Err(Refusal::invalid(format!("Unsupported request type {what}")));
        }
        not_blank(service)?;
        if let Some(message) = instances.iter().find_map(Stored::illegal) {
            return Err(Refusal::invalid(message));
        }
        self.of_kind(service, true)?;
        self.needs_naming(*conn)?;
        if !instances.is_empty() {
            let instances = instances
                .into_iter()
                .map(|instance| instance.completed(service))
                .collect();
            self.publish(service, Publisher::Connection(*conn), instances, now);
        }
        Ok(json!({"type": what}))
    }

    fn check(&self, instance: &Stored) -> Result<(), Refusal> {
        if self.settings.profile.checks_params() {
            params::check_instance(instance).map_err(|message| Refusal::Own(400, message))?;
        }
        Ok(())
    }

    /// A service holds ephemeral or persistent instances, never both.
    fn of_kind(&self, service: &ServiceId, ephemeral: bool) -> Result<(), Refusal> {
        let Some(state) = self.services.get(service).filter(|state| state.exists) else {
            return Ok(());
        };
        if state.persistent != ephemeral {
            return Ok(());
        }
        let (is, wanted) = if ephemeral {
            ("persistent", "ephemeral")
        } else {
            ("ephemeral", "persistent")
        };
        let service = service.grouped();
        Err(Refusal::invalid(format!(
            "errCode: 400, errMsg: Current service {service} is {is} service, can't register {wanted} instance. "
        )))
    }
}
