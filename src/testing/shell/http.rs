use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use crate::testing::machine::OperatorCall;

use super::core::Shared;

const LONGEST: usize = 10 * 1024 * 1024;

pub(super) async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut call = OperatorCall::new(parts.method.as_str(), parts.uri.path());
    call.params = form(parts.uri.query().unwrap_or_default());
    let Ok(body) = Limited::new(body, LONGEST).collect().await else {
        return Ok(respond(400, "the body could not be read".to_owned()));
    };
    let body = body.to_bytes();
    call.params.extend(form(&String::from_utf8_lossy(&body)));
    let answer = shared.with(|machine, now| machine.operator(&call, now));
    Ok(respond(answer.status, answer.body))
}

fn respond(status: u16, body: String) -> Response<Full<Bytes>> {
    let kind = if body.starts_with(['{', '[']) {
        "application/json;charset=UTF-8"
    } else {
        "text/plain;charset=UTF-8"
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `application/x-www-form-urlencoded`, of a query or a body.
fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let form = form("a=1&metadata=%7B%22k%22%3A%22v+w%22%7D&bare&bad=%zz");
        assert_eq!(form["metadata"], r#"{"k":"v w"}"#);
        assert_eq!((&*form["bare"], &*form["bad"]), ("", "%zz"));
    }
}
