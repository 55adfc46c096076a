use std::{sync::Arc, time::Instant};

use http::{Method, Request, Response, header::HeaderMap};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::{Service, ServiceExt};

use crate::{
    directory::{self, Options, Subscription, Writer},
    endpoint,
    model::{Instance, ServiceKey},
    status::{StatusBody, StatusPage},
};

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

pub(super) fn ask(
    status: &StatusPage,
    method: Method,
    uri: &str,
    accept: &str,
) -> Response<StatusBody> {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("accept", accept);
    let mut status = status.clone();
    let answer = Service::call(&mut status, request.body(()).unwrap());
    match answer.into_inner() {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

pub(super) async fn read(response: Response<StatusBody>) -> Answer {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

pub(super) async fn get(status: &StatusPage, uri: &str) -> Answer {
    read(ask(status, Method::GET, uri, "text/html")).await
}

/// The same as a client of JSON.
pub(super) async fn json(status: &StatusPage, uri: &str) -> Value {
    let answer = read(ask(status, Method::GET, uri, "application/json")).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    serde_json::from_str(&answer.text).unwrap()
}

pub(super) fn service(name: &str) -> (Writer, Subscription) {
    let key = ServiceKey::new("public", name.parse().unwrap()).unwrap();
    directory::channel(key, Options::default())
}

pub(super) fn instance(address: &str) -> Instance {
    Instance::parse(address).unwrap()
}

pub(super) fn now() -> Instant {
    endpoint::now().into_std()
}

/// A service that answers each call at once.
pub(super) fn balance(
    subscription: &Subscription,
) -> impl Service<(), Response = (), Error: std::fmt::Debug> + Clone + crate::status::Observe + use<>
{
    crate::Balance::builder(subscription)
        .build(|_: &Instance| tower::service_fn(async |(): ()| Ok::<_, std::io::Error>(())))
}

pub(super) async fn call<S: Service<(), Response = (), Error: std::fmt::Debug> + Clone>(
    service: &S,
    times: usize,
) {
    for _ in 0..times {
        service.clone().oneshot(()).await.unwrap();
    }
}

/// Of a list of objects the one whose `key` is `value`.
pub(super) fn of<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let mut items = list.as_array().unwrap().iter();
    let found = items.find(|item| item[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {list:#}"))
}

pub(super) fn kinds(page: &Value) -> Vec<String> {
    let events = page["timeline"].as_array().unwrap().iter();
    events
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[expect(dead_code, reason = "held by the compiler")]
fn a_status_is_what_servers_mount(
    status: StatusPage,
) -> impl Service<
    Request<Arc<str>>,
    Response = Response<StatusBody>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    status
}
