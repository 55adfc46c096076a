//! What a request looks like on the wire, set for each attempt and taken back after it.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use tokio::time::Instant;

use crate::{
    endpoint,
    model::{Address, Callee, SERVICE_HEADER},
    transport::body::request::Body,
};

/// Who an instance is asked as unless the caller says: ip:port, as it is registered, and the service
/// that is meant.
#[derive(Clone, Debug)]
pub(super) struct Named {
    authority: Authority,
    host: HeaderValue,
    callee: Option<HeaderValue>,
    limit: Option<TryLimit>,
    /// What says so.
    limited: Option<(HeaderName, HeaderValue)>,
}

/// What an attempt over HTTP/1 changed in a request.
pub(super) struct Former {
    uri: Uri,
    version: Version,
    host_added: bool,
    callee_added: bool,
}

impl Named {
    pub(super) fn new(address: &Address) -> Self {
        let text = address.to_string();
        let authority = Authority::try_from(text.as_str());
        let host = HeaderValue::from_str(&text);
        // An `Address` displays as host:port, of characters that both admit (RFC 3986).
        Self {
            authority: authority.unwrap_or_else(|_| Authority::from_static("instance")),
            host: host.unwrap_or_else(|_| HeaderValue::from_static("instance")),
            callee: None,
            limit: None,
            limited: None,
        }
    }

    /// Each attempt says that it is waited for no longer than that.
    pub(super) fn limited(mut self, limit: Option<TryLimit>) -> Self {
        self.limit = limit;
        self.limited = limit.map(|limit| (limit.header)(limit.within));
        drop(self.limited.clone()); // as the callee's, below
        self
    }

    /// Each request says that it is meant for this one.
    pub(super) fn telling(mut self, callee: Option<&Callee>) -> Self {
        let value = callee.and_then(|callee| HeaderValue::from_str(&callee.to_string()).ok());
        // The first clone of bytes that nobody shares allocates; this is not to be a request's.
        drop(value.clone());
        self.callee = value;
        self
    }

    /// What to add to these headers; nothing to what the caller says.
    fn callee(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.callee.clone().filter(|_| self.tells(headers))
    }

    /// Whether this request is told whom it is meant for, and not by its caller.
    pub(super) fn tells(&self, headers: &HeaderMap) -> bool {
        self.callee.is_some() && !headers.contains_key(CALLEE)
    }
}

/// In a request's extensions: when its caller stops waiting, and the header that says at each
/// attempt how long that is.
#[derive(Clone, Copy)]
pub(crate) struct TimeLeft {
    pub(crate) until: Instant,
    pub(crate) header: fn(Duration) -> (HeaderName, HeaderValue),
}

/// How long an attempt may last, and the header that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TryLimit {
    pub(crate) within: Duration,
    pub(crate) header: fn(Duration) -> (HeaderName, HeaderValue),
}

/// Origin-form and a Host.
pub(super) fn for_http1(request: &mut Request<Body>, named: &Named) -> Former {
    let origin = if request.method() == Method::CONNECT {
        request.uri().clone()
    } else {
        Uri::from(path(request.uri()))
    };
    let host_added = !request.headers().contains_key(HOST);
    if host_added {
        request.headers_mut().insert(HOST, named.host.clone());
    }
    let callee = named.callee(request.headers());
    let callee_added = callee.is_some();
    if let Some(callee) = callee {
        request.headers_mut().insert(CALLEE, callee);
    }
    Former {
        uri: std::mem::replace(request.uri_mut(), origin),
        version: std::mem::replace(request.version_mut(), Version::HTTP_11),
        host_added,
        callee_added,
    }
}

impl Former {
    pub(super) fn restore(self, request: &mut Request<Body>) {
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        if self.callee_added {
            request.headers_mut().remove(CALLEE);
        }
        if self.host_added {
            request.headers_mut().remove(HOST);
        }
    }
}

/// The head of a request over HTTP/2: scheme and authority, and no header that belongs to a
/// connection (RFC 9113, 8.2.2). A copy: the request stays as it is.
pub(super) fn for_http2(
    parts: &Parts,
    body: &Body,
    named: &Named,
    secure: bool,
) -> Result<Request<()>, &'static str> {
    if parts.method == Method::CONNECT {
        return Err("CONNECT is not sent over HTTP/2");
    }
    let authority = match parts.headers.get(HOST) {
        None => named.authority.clone(),
        Some(host) => {
            Authority::try_from(host.as_bytes()).map_err(|_| "its Host is no host and port")?
        }
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(authority);
    uri.path_and_query = Some(path(&parts.uri));
    let uri = Uri::from_parts(uri).map_err(|_| "its URI cannot be written")?;
    let mut headers = without_hops(&parts.headers);
    if let Some(callee) = named.callee(&headers) {
        headers.insert(CALLEE, callee);
    }
    if let Some((name, value)) = time_left(parts, named) {
        headers.insert(name, value);
    }
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH))
        && !headers.contains_key(CONTENT_LENGTH)
        && !is_grpc(&headers)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut head = Request::new(());
    *head.method_mut() = parts.method.clone();
    *head.uri_mut() = uri;
    *head.headers_mut() = headers;
    *head.version_mut() = Version::HTTP_2;
    Ok(head)
}

/// What is left of the call's time, or of this attempt's, whichever is less.
fn time_left(parts: &Parts, named: &Named) -> Option<(HeaderName, HeaderValue)> {
    let Some(left) = parts.extensions.get::<TimeLeft>() else {
        return named.limited.clone();
    };
    let time = left.until.saturating_duration_since(endpoint::now());
    let within = named.limit.map(|limit| limit.within);
    Some((left.header)(
        within.map_or(time, |within| time.min(within)),
    ))
}

/// What carries messages that say their own length, as gRPC's clients send it: without one of the whole. Not gRPC-Web,
/// whose bodies are those of any request.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    kind.is_some_and(|kind| matches!(kind.first(), None | Some(b'+' | b';')))
}

fn path(uri: &Uri) -> PathAndQuery {
    match uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    }
}

/// A copy of those that are for the instance and not for the connection (RFC 9110, 7.6.1), with room for what is said
/// here.
fn without_hops(all: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity((all.keys_len() + MOST_SAID).min(MOST_ROOM));
    for (name, value) in all {
        let is_hop = *name == HOST || HOPS.contains(name) || (*name == TE && value != "trailers");
        if !is_hop {
            headers.append(name, value.clone());
        }
    }
    for names in all.get_all(CONNECTION) {
        let names = names.to_str().unwrap_or_default();
        for name in names.split(',') {
            headers.remove(name.trim());
        }
    }
    headers
}

/// Of the connection by themselves.
const HOPS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// The callee, how long it is waited for, and the length.
const MOST_SAID: usize = 3;
/// A map of more panics; it grows by itself.
const MOST_ROOM: usize = 1024;
const CALLEE: HeaderName = HeaderName::from_static(SERVICE_HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Named {
        Named::new(&"10.0.0.3:8080".parse().unwrap())
    }

    fn telling() -> Named {
        let service = crate::model::ServiceKey::new("dev", "orders".parse().unwrap()).unwrap();
        let callee = Callee::new(service, "10.0.0.3:8080".parse().unwrap());
        named().telling(Some(&callee))
    }

    #[test]
    fn each_attempt_says_whom_it_means_unless_the_caller_did() {
        let means = "DEFAULT_GROUP@@orders;namespace=dev;address=10.0.0.3:8080";
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        let former = for_http1(&mut request, &telling());
        assert_eq!(request.headers()[SERVICE_HEADER], means);
        former.restore(&mut request);
        assert!(request.headers().is_empty());
        let (parts, body) = request.into_parts();
        let head = for_http2(&parts, &body, &telling(), false).unwrap();
        assert_eq!(head.headers()[SERVICE_HEADER], means);

        let own = Request::get("/").header(SERVICE_HEADER, "stock");
        let mut request = own.body(Body::empty()).unwrap();
        let former = for_http1(&mut request, &telling());
        assert_eq!(request.headers()[SERVICE_HEADER], "stock");
        former.restore(&mut request);
        assert_eq!(request.headers()[SERVICE_HEADER], "stock");
        let (parts, body) = request.into_parts();
        let head = for_http2(&parts, &body, &telling(), false).unwrap();
        assert_eq!(head.headers()[SERVICE_HEADER], "stock");
    }

    #[test]
    fn an_attempt_over_http1_leaves_no_trace() {
        for host in [None, Some("shop.example")] {
            let mut request = Request::get("http://orders/v1/items?id=7")
                .version(Version::HTTP_2)
                .body(Body::empty())
                .unwrap();
            if let Some(host) = host {
                let host = HeaderValue::from_static(host);
                request.headers_mut().insert(HOST, host);
            }
            let before = (request.uri().clone(), request.headers().clone());
            let former = for_http1(&mut request, &named());
            assert_eq!(request.uri(), "/v1/items?id=7");
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(request.headers()[HOST], host.unwrap_or("10.0.0.3:8080"));
            former.restore(&mut request);
            assert_eq!((request.uri(), request.headers()), (&before.0, &before.1));
            assert_eq!(request.version(), Version::HTTP_2);
        }
    }

    #[test]
    fn http2_gets_scheme_and_authority_and_nothing_of_a_connection() {
        let (parts, body) = Request::post("/v1/items")
            .header("connection", "x-hop, close")
            .header("connection", "x-other-hop")
            .header("x-hop", "1")
            .header("x-other-hop", "1")
            .header("te", "gzip")
            .header("transfer-encoding", "chunked")
            .header("x-stays", "1")
            .body(Body::from("seven.."))
            .unwrap()
            .into_parts();
        let head = for_http2(&parts, &body, &named(), true).unwrap();
        assert_eq!(head.uri(), "https://10.0.0.3:8080/v1/items");
        let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-stays", "content-length"]);
        let with_host = Request::get("/").header("host", "shop.example");
        let (parts, body) = with_host.body(Body::empty()).unwrap().into_parts();
        let head = for_http2(&parts, &body, &named(), false).unwrap();
        assert_eq!(head.uri(), "http://shop.example/");
        assert!(head.headers().is_empty());
    }

    #[test]
    fn a_head_is_copied_however_many_values_it_has() {
        let mut request = Request::new(Body::empty());
        for n in 0..30_000_u32 {
            request.headers_mut().append("x-many", n.into());
        }
        let (parts, body) = request.into_parts();
        let head = for_http2(&parts, &body, &named(), true).unwrap();
        assert_eq!(*head.headers(), parts.headers);
    }

    #[test]
    fn only_grpc_itself_goes_without_a_length() {
        let says_length = |kind: &'static str| {
            let request = Request::post("/").header("content-type", kind);
            let (parts, body) = request.body(Body::from("seven..")).unwrap().into_parts();
            let head = for_http2(&parts, &body, &named(), true).unwrap();
            head.headers().contains_key(CONTENT_LENGTH)
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x",
        ] {
            assert!(!says_length(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/json"] {
            assert!(says_length(kind), "{kind}");
        }
    }
}
