use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    CallId, ConnId, Frame, Machine, Output, ServiceId, Via,
    body::{Fields, Malformed},
    faults::Fault,
    params,
};

/// Why a request is not answered as it would like.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The expected type of answer, `resultCode` 500.
    Own(i32, String),
    /// An `ErrorResponse` with this `resultCode` and `errorCode`.
    Error(i32, i32, String),
}

/// An answer that carries a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoAnswer<'a> {
    result_code: i32,
    error_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    service_info: &'a RawValue,
    success: bool,
}

/// A request whose connection and body are in order.
pub(super) struct Request<'a> {
    pub(super) conn: ConnId,
    pub(super) kind: &'a str,
    pub(super) fields: Fields,
    pub(super) service: ServiceId,
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        let message = "errCode: 101, errMsg: Nacos deserialize failed.  ";
        Self::Error(500, 502, message.to_owned())
    }
}

impl Refusal {
    /// A handler's own refusal of a parameter.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Error(400, 400, message.into())
    }
}

impl Machine {
    /// A unary call came. Its answer is an output with the same `call`, unless a fault withholds it.
    pub fn handle_unary(&mut self, conn: ConnId, call: CallId, payload: &[u8], now: Instant) {
        let frame = match Frame::decode(payload) {
            Ok(frame) => frame,
            Err(error) => {
                self.outputs.push_back(Output::Fail {
                    conn,
                    call,
                    code: 13,
                    message: error.to_string(),
                });
                return;
            }
        };
        let limit = self.settings.log_limit;
        self.log.received(conn, Via::Unary, &frame, now, limit);
        let about = Fields::parse(&frame.body)
            .and_then(|fields| read_service(&fields))
            .ok();
        let fault = self.take_fault(&frame.kind, about.as_ref(), conn);
        let answer = match fault {
            Some(Fault::Refuse(code)) => {
                let refusal = Refusal::Own(code, "refused by the test's script".to_owned());
                refused(&frame, refusal)
            }
            Some(Fault::RefuseAsError(code)) => {
                let message = "refused by the test's script".to_owned();
                refused(&frame, Refusal::Error(500, code, message))
            }
            Some(Fault::Fail(code)) => {
                let message = "failed by the test's script".to_owned();
                self.outputs.push_back(Output::Fail {
                    conn,
                    call,
                    code,
                    message,
                });
                return;
            }
            _ => self
                .respond(conn, &frame, now)
                .unwrap_or_else(|refusal| refused(&frame, refusal)),
        };
        self.answer(conn, call, answer, fault, now);
        self.settle(now);
    }

    fn answer(
        &mut self,
        conn: ConnId,
        call: CallId,
        mut answer: Frame,
        fault: Option<Fault>,
        now: Instant,
    ) {
        let mut at = now;
        if let Some(fault) = fault {
            match fault {
                Fault::Drop => return,
                Fault::Delay(delay) => at += delay,
                fault => answer.body = fault.tamper(answer.body),
            }
        }
        let payload = answer.encode();
        let output = Output::Answer {
            conn,
            call,
            payload,
        };
        self.output_at(at, output, now);
    }

    fn respond(&mut self, conn: ConnId, frame: &Frame, now: Instant) -> Result<Frame, Refusal> {
        let profile = self.settings.profile;
        let unregistered = || Refusal::Error(500, 301, "Connection is unregistered.".to_owned());
        let connection = self.conns.get_mut(&conn).ok_or_else(unregistered)?;
        if frame.kind == "ServerCheckRequest" {
            let mut body = json!({"connectionId": connection.name});
            if profile.negotiates() {
                body["supportAbilityNegotiation"] = json!(true);
            }
            return Ok(succeeded("ServerCheckResponse", frame, body));
        }
        if !profile.handles(&frame.kind) {
            let message = "RequestHandler Not Found".to_owned();
            return Err(Refusal::Error(500, 302, message));
        }
        if connection.setup.is_none() {
            return Err(unregistered());
        }
        let fields = Fields::parse(&frame.body)?;
        connection.last_active = now;
        if frame.kind == "HealthCheckRequest" {
            return Ok(succeeded("HealthCheckResponse", frame, json!({})));
        }
        let service = read_service(&fields)?;
        self.authorize(frame, &service, now)?;
        if profile.checks_params() {
            params::check_service(&service).map_err(|message| Refusal::Own(400, message))?;
        }
        let request = Request {
            conn,
            kind: &frame.kind,
            fields,
            service,
        };
        match &*frame.kind {
            "SubscribeServiceRequest" => self.subscribe(&request, frame, now),
            "ServiceQueryRequest" => self.query(&request, frame, now),
            "ServiceListRequest" => self.list(&request, frame),
            "NamingFuzzyWatchRequest" => {
                let body = self.fuzzy_watch(&request, now)?;
                Ok(succeeded("NamingFuzzyWatchResponse", frame, body))
            }
            "BatchInstanceRequest" => {
                let body = self.batch(&request, now)?;
                Ok(succeeded("BatchInstanceResponse", frame, body))
            }
            _ => {
                let body = self.instance(&request, now)?;
                Ok(succeeded("InstanceResponse", frame, body))
            }
        }
    }

    fn subscribe(
        &mut self,
        request: &Request<'_>,
        frame: &Frame,
        now: Instant,
    ) -> Result<Frame, Refusal> {
        let Request {
            conn,
            fields,
            service,
            ..
        } = request;
        let clusters = fields.text("clusters")?.unwrap_or_default();
        if self.settings.profile.checks_params() {
            params::check_clusters(&clusters).map_err(|message| Refusal::Own(400, message))?;
        }
        not_blank(service)?;
        self.needs_naming(*conn)?;
        let list = self.readable(service);
        let disabled = self.settings.profile.subscribe_lists_disabled();
        let info = self.info(service, &list, &clusters, false, disabled, now);
        if fields.boolean("subscribe", false)? {
            let state = self.services.entry(service.clone()).or_default();
            let first = state.subscribers.insert(*conn, clusters).is_none();
            if first {
                self.schedule_push(service, Some(*conn), self.settings.push_delay, now);
            }
        } else if let Some(state) = self.services.get_mut(service) {
            state.subscribers.remove(conn);
        }
        with_info("SubscribeServiceResponse", frame, Some("success"), &info)
    }

    fn query(
        &mut self,
        request: &Request<'_>,
        frame: &Frame,
        now: Instant,
    ) -> Result<Frame, Refusal> {
        let cluster = request.fields.text("cluster")?.unwrap_or_default();
        let healthy_only = request.fields.boolean("healthyOnly", false)?;
        let list = self.readable(&request.service);
        let info = self.info(&request.service, &list, &cluster, healthy_only, false, now);
        with_info("QueryServiceResponse", frame, None, &info)
    }

    fn list(&mut self, request: &Request<'_>, frame: &Frame) -> Result<Frame, Refusal> {
        let ServiceId {
            namespace, group, ..
        } = &request.service;
        let names: Vec<&str> = self
            .services
            .iter()
            .filter(|(service, state)| {
                state.exists
                    && service.namespace == *namespace
                    && (group.is_empty() || service.group == *group)
            })
            .map(|(service, _)| service.name.as_str())
            .collect();
        let page = usize::try_from(request.fields.integer("pageNo", 0)?.max(1)).unwrap_or(1);
        let size = usize::try_from(request.fields.integer("pageSize", 0)?.max(0)).unwrap_or(0);
        let shown: Vec<&str> = names
            .iter()
            .skip((page - 1).saturating_mul(size))
            .take(size)
            .copied()
            .collect();
        let body = json!({"count": names.len(), "serviceNames": shown});
        Ok(succeeded("ServiceListResponse", frame, body))
    }

    /// A connection that did not say `module=naming` has no naming client to act for.
    pub(super) fn needs_naming(&self, conn: ConnId) -> Result<(), Refusal> {
        let Some(connection) = self.conns.get(&conn) else {
            return Ok(());
        };
        if connection.is_naming() {
            return Ok(());
        }
        let name = &connection.name;
        let message = format!(
            "errCode: -401, errMsg: Client [{name}] connection already disconnect, can't register ephemeral instance. "
        );
        Err(Refusal::Error(-401, -401, message))
    }
}

/// The three names of a request. A namespace that is missing counts as empty, and so is another
/// one than `public`.
fn read_service(fields: &Fields) -> Result<ServiceId, Malformed> {
    Ok(ServiceId::new(
        fields.text("namespace")?.unwrap_or_default(),
        fields.text("groupName")?.unwrap_or_default(),
        fields.text("serviceName")?.unwrap_or_default(),
    ))
}

pub(super) fn not_blank(service: &ServiceId) -> Result<(), Refusal> {
    for (what, text) in [
        ("serviceName", &service.name),
        ("groupName", &service.group),
    ] {
        if text.trim().is_empty() {
            let message = format!("Param '{what}' is illegal, {what} is blank");
            return Err(Refusal::Error(500, 500, message));
        }
    }
    Ok(())
}

fn request_id(frame: &Frame) -> Option<String> {
    Fields::parse(&frame.body)
        .and_then(|fields| fields.text("requestId"))
        .ok()
        .flatten()
}

fn succeeded(kind: &str, request: &Frame, mut body: Value) -> Frame {
    body["resultCode"] = json!(200);
    body["errorCode"] = json!(0);
    body["success"] = json!(true);
    if let Some(id) = request_id(request) {
        body["requestId"] = json!(id);
    }
    Frame::new(kind, body.to_string())
}

fn with_info(
    kind: &str,
    request: &Frame,
    message: Option<&str>,
    info: &str,
) -> Result<Frame, Refusal> {
    let body = serde_json::from_str::<&RawValue>(info)
        .and_then(|service_info| {
            serde_json::to_string(&InfoAnswer {
                result_code: 200,
                error_code: 0,
                message,
                request_id: request_id(request).as_deref(),
                service_info,
                success: true,
            })
        })
        .map_err(|error| Refusal::Error(500, 500, error.to_string()))?;
    Ok(Frame::new(kind, body))
}

fn refused(request: &Frame, refusal: Refusal) -> Frame {
    let (kind, result, error, message) = match refusal {
        Refusal::Own(code, message) => (answer_kind(&request.kind), 500, code, message),
        Refusal::Error(result, error, message) => {
            ("ErrorResponse".to_owned(), result, error, message)
        }
    };
    let mut body = json!({
        "resultCode": result, "errorCode": error, "message": message, "success": false
    });
    if let Some(id) = request_id(request) {
        body["requestId"] = json!(id);
    }
    Frame::new(kind, body.to_string())
}

fn answer_kind(request: &str) -> String {
    match request {
        "ServiceQueryRequest" => "QueryServiceResponse".to_owned(),
        "PersistentInstanceRequest" => "InstanceResponse".to_owned(),
        other => match other.strip_suffix("Request") {
            Some(stem) => format!("{stem}Response"),
            None => "ErrorResponse".to_owned(),
        },
    }
}
