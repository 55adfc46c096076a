//! Requests that name no service, and how they are told so.

use ::http::Request;
use tower::ServiceExt;
use tower_nacos::{ServiceKey, http::Body};

use crate::{World, soon};

const FORM: &str = "nacos://[group@]service/path";
const FULL_FORM: &str = "nacos://[group]@service@registry/path";

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
                "the address has two '@' and no service between them, or more than two: one stands \
                 between group and service, {FORM}, and one before the name of a registry, \
                 {FULL_FORM}"
            ),
        ),
        (
            "nacos://G@orders@eu/".into(),
            format!(
                "the address names the registry \"eu\" after its second '@', and this client was \
                 given none by name (HttpBuilder::registry): {FULL_FORM}"
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
         in public: a client has one namespace, give another one with HttpBuilder::registry"
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

#[tokio::test]
async fn a_hostile_address_names_no_service_and_subscribes_to_none() {
    let world = World::new().await;
    for address in [
        "nacos:orders",
        "nacos:orders/v1",
        "nacos:/orders",
        "nacos://",
        "nacos://@/",
        "nacos://@orders/",
        "nacos://orders@/",
        "nacos://a@b@orders/",
        "nacos://user:password@orders:80/",
        "nacos://or%64ers/",
        "nacos://%00/",
        "nacos://..%2f..%2fetc/",
        "nacos://[::1]/",
        "nacos://[::1]:80/",
        "nacos://orders:0/",
        "nacos://orders:99999999999/",
        "nacos://orders:x/",
        "nacos://:8080/",
        "nacos://\u{f6}rders/",
        "nacos://\u{8ba2}\u{5355}/",
        "nacos://orders\\@evil/",
        "nacos://orders\u{0}/",
        "nacos://orders\r\nhost: evil/",
        "*",
        "",
        "//orders/v1",
        "orders:80",
        "file:///etc/passwd",
        "nacoss://orders/",
    ] {
        let error = soon(address, world.http.get(address).send())
            .await
            .unwrap_err();
        assert!(
            error.is_uri() && error.is_unprocessed(),
            "{address}: {error:?}"
        );
        assert!(
            !error.to_string().contains("password"),
            "{address}: {error}"
        );
    }
    assert!(
        world.http.services().is_empty(),
        "{:?}",
        world.http.services()
    );
}
