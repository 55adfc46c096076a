use std::sync::Arc;

use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    request::Parts,
};

use super::{
    body::StatusBody,
    clock::Moment,
    events::events,
    find::{self, Missing},
    html,
    query::{Format, Query},
    shared::{Refused, Shared},
};

/// What is answered to a request with this head.
pub(super) fn respond(shared: &Arc<Shared>, request: &Parts) -> Response<StatusBody> {
    let answer = if !shared.is_mounted_at(request.uri.path()) {
        Answer::plain(
            StatusCode::NOT_FOUND,
            "there is nothing here; the status page is one level up",
        )
    } else if !matches!(request.method, Method::GET | Method::HEAD) {
        let text = "the status page is only read: GET or HEAD";
        Answer::plain(StatusCode::METHOD_NOT_ALLOWED, text).with(ALLOW, "GET, HEAD")
    } else {
        match Query::read(request.uri.query(), &request.headers) {
            Ok(query) => answer(shared, &query, request.method == Method::HEAD),
            Err(what) => Answer::plain(StatusCode::BAD_REQUEST, &what),
        }
    };
    answer.into_response(request.method == Method::HEAD)
}

struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Content,
    headers: Vec<(HeaderName, &'static str)>,
}

enum Content {
    Whole(Vec<u8>),
    Stream(StatusBody),
}

fn answer(shared: &Arc<Shared>, query: &Query, head_only: bool) -> Answer {
    if let Some(file) = &query.file {
        return match html::file(file) {
            Some((kind, text)) => Answer::new(kind, text.into()),
            None => Answer::plain(StatusCode::NOT_FOUND, "there is no such file"),
        };
    }
    if query.format == Format::Events {
        return listen(shared, head_only);
    }
    let (seen, now) = (shared.look(), Moment::now());
    let found = find::page(&seen, query, now);
    match (found, query.format) {
        (Ok(page), Format::Json) => match serde_json::to_vec(&page) {
            Ok(json) => Answer::new(JSON, json),
            Err(error) => Answer::plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        (Ok(page), _) => Answer::new(HTML, html::page(&page, query).into()),
        (Err(missing), Format::Json) => {
            let error = serde_json::json!({ "error": missing.text() });
            Answer::new(JSON, error.to_string().into()).of(missing.status())
        }
        (Err(missing), _) => {
            Answer::new(HTML, html::missing(&missing.text()).into()).of(missing.status())
        }
    }
}

fn listen(shared: &Arc<Shared>, head_only: bool) -> Answer {
    let kind = "text/event-stream";
    if head_only {
        return Answer::new(kind, Vec::new());
    }
    let _ = shared.look(); // so that the first event is of now
    match shared.listen() {
        Ok((news, place)) => Answer {
            status: StatusCode::OK,
            kind,
            body: Content::Stream(StatusBody::events(events(news, place))),
            // Proxies that gather a body before they pass it on.
            headers: vec![(HeaderName::from_static("x-accel-buffering"), "no")],
        },
        // To a browser's event source this says: do not come back.
        Err(Refused::Closed) => Answer::new(kind, Vec::new()).of(StatusCode::NO_CONTENT),
        Err(Refused::Full) => {
            let text =
                "too many listen already (`StatusPage::max_streams`); ask for the page instead";
            Answer::plain(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, "10")
        }
    }
}

impl Missing {
    const fn status(&self) -> StatusCode {
        StatusCode::NOT_FOUND
    }
}

impl Answer {
    const fn new(kind: &'static str, body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            kind,
            body: Content::Whole(body),
            headers: Vec::new(),
        }
    }

    fn plain(status: StatusCode, text: &str) -> Self {
        Self::new("text/plain; charset=utf-8", format!("{text}\n").into()).of(status)
    }

    const fn of(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn into_response(self, head_only: bool) -> Response<StatusBody> {
        let length = match &self.body {
            Content::Whole(bytes) if self.status != StatusCode::NO_CONTENT => Some(bytes.len()),
            _ => None,
        };
        let streams = self.kind == "text/event-stream";
        let body = match self.body {
            Content::Whole(bytes) if !head_only => StatusBody::whole(bytes),
            Content::Whole(_) => StatusBody::whole(Vec::new()),
            Content::Stream(body) => body,
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let fixed = [
            (CONTENT_TYPE, self.kind),
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
            (VARY, "accept"),
        ];
        for (name, value) in fixed.into_iter().chain(self.headers) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(length) = length.filter(|_| !(streams && head_only)) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        response
    }
}

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// Nothing from elsewhere, nothing inline, nowhere to be framed in and nowhere to send to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
