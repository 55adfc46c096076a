//! Requests that name no service, and how they are told so.

use ::http::Request;
use tower::ServiceExt;
use tower_nacos::{ServiceKey, http::Body};

use crate::World;

const FORM: &str = "nacos://[group@]service/path";

#[tokio::test]
async fn a_malformed_address_says_what_to_write() {
    let world = World::new().await;
    for (address, said) in [
        (
            "nacos://orders:8080/v1".to_owned(),
            "the address has a port after the service \"orders\", and a service has none: the \
             registry says where each instance listens; leave it out (a service whose name holds \
             a ':' is named by a ServiceKey in the request's extensions)"
                .to_owned(),
        ),
        (
            "http://orders/v1".into(),
            format!(
                "the address begins with http://, and this client calls services by their name: \
                 {FORM}; a fixed address is called by any HTTP client"
            ),
        ),
        (
            "/v1/items".into(),
            format!(
                "the request names no service: its address is to be {FORM}, or its extensions are \
                 to hold a ServiceKey"
            ),
        ),
        (
            "nacos://or ders/".into(),
            format!("the address cannot be read: invalid uri character; expected {FORM}"),
        ),
        (
            "nacos:///v1".into(),
            format!("the address cannot be read: invalid format; expected {FORM}"),
        ),
        (
            "nacos://G@@orders/".into(),
            format!(
                "the address has two '@' in a row: one stands between group and service, {FORM}"
            ),
        ),
        (
            "nacos://a!b@orders/".into(),
            format!(
                "the group before the '@' of the address breaks Nacos's rules: 1 to 128 letters, \
                 digits and -_.: ({FORM})"
            ),
        ),
        (
            format!("nacos://{}/", "x".repeat(600)),
            "the address names no service: invalid service name".into(),
        ),
    ] {
        let error = world.http.get(&address).await.unwrap_err();
        assert!(
            error.is_uri() && error.is_unprocessed(),
            "{address}: {error:?}"
        );
        assert!(error.to_string().starts_with(&said), "{address}: {error}");
        assert!(error.service().is_none());
    }
    assert!(world.http.services().is_empty());
}

#[tokio::test]
async fn a_key_of_another_namespace_is_refused() {
    let world = World::new().await;
    let key = ServiceKey::new("dev", "orders".parse().unwrap()).unwrap();
    let mut request = Request::get("/v1").body(Body::empty()).unwrap();
    request.extensions_mut().insert(key);
    let error = world.http.clone().oneshot(request).await.unwrap_err();
    assert!(error.is_uri());
    assert_eq!(
        error.to_string(),
        "the request is for a service in namespace dev, and this client's registry connection is \
         in public: a client has one namespace, take another client for it"
    );
}

#[tokio::test]
async fn a_header_that_cannot_be_is_told_by_the_call() {
    let world = World::new().await;
    let bad = world
        .http
        .get("nacos://orders/")
        .header("x-test", "line\nbreak");
    let error = bad.await.unwrap_err();
    assert!(error.is_request() && !error.is_uri());
    assert_eq!(
        error.to_string(),
        "the request cannot be built: failed to parse header value"
    );
}
