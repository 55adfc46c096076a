//! What a request looks like on the wire, set for each attempt and taken back after it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;

use crate::{model::Address, transport::body::request::Body};

/// Who an instance is asked as unless the caller says: ip:port, as it is registered.
#[derive(Clone, Debug)]
pub(super) struct Named {
    authority: Authority,
    host: HeaderValue,
}

/// What an attempt over HTTP/1 changed in a request.
pub(super) struct Former {
    uri: Uri,
    version: Version,
    host_added: bool,
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
        }
    }
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
    Former {
        uri: std::mem::replace(request.uri_mut(), origin),
        version: std::mem::replace(request.version_mut(), Version::HTTP_11),
        host_added,
    }
}

impl Former {
    pub(super) fn restore(self, request: &mut Request<Body>) {
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
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
    let mut headers = parts.headers.clone();
    strip(&mut headers);
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH))
        && !headers.contains_key(CONTENT_LENGTH)
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

fn path(uri: &Uri) -> PathAndQuery {
    match uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    }
}

fn strip(headers: &mut HeaderMap) {
    headers.remove(HOST);
    if let Some(connection) = headers.remove(CONNECTION)
        && let Ok(named) = connection.to_str()
    {
        for name in named.split(',') {
            headers.remove(name.trim());
        }
    }
    for name in [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Named {
        Named::new(&"10.0.0.3:8080".parse().unwrap())
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
            .header("x-hop", "1")
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
}
