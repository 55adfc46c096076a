use http::Method;

use super::support::{ask, get, json, read, service};
use crate::status::StatusPage;

#[tokio::test]
async fn only_reading_is_answered_and_only_here() {
    let (_writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    for uri in ["/", "/?page=1", "/?x", "http://h/"] {
        assert_eq!(get(&status, uri).await.status, 200, "{uri}");
    }
    for uri in ["/x", "//", "/status.js", "/../", "/nacos"] {
        assert_eq!(get(&status, uri).await.status, 404, "{uri}");
    }
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW",
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = read(ask(&status, method, "/", "*/*")).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    let status = status.mounted_at("/nacos/");
    for (uri, code) in [
        ("/nacos", 200),
        ("/nacos/", 200),
        ("/", 404),
        ("/nacosx", 404),
        ("/nacos/x", 404),
    ] {
        assert_eq!(get(&status, uri).await.status, code, "{uri}");
    }
}

#[tokio::test]
async fn bad_questions_are_told_what_to_ask() {
    let (_writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    for (uri, code, says) in [
        ("/?page=0", 400, "`page` is a number from 1 on"),
        ("/?limit=many", 400, "`limit`"),
        ("/?format=xml", 400, "html, json or events"),
        ("/?file=../../etc/passwd", 404, "no such file"),
        (
            "/?service=bills",
            404,
            "no service &quot;bills&quot; is subscribed to here now, of 1 that are",
        ),
        ("/?service=%00%ff@@@%3Cscript%3E", 404, "group@@name"),
        ("/?service=x@@orders", 404, "x@@orders"),
        ("/?service=orders&registry=7", 404, "orders"),
    ] {
        let answer = get(&status, uri).await;
        assert_eq!(answer.status, code, "{uri}");
        assert!(answer.text.contains(says), "{uri}: {}", answer.text);
        assert!(!answer.text.contains("<script>"), "{}", answer.text);
    }
    let error = json(&status, "/?service=bills").await;
    assert!(error["error"].as_str().unwrap().contains("bills"));
}

#[tokio::test]
async fn a_head_is_that_of_the_page_and_every_answer_says_what_may_run() {
    let (_writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    for uri in [
        "/",
        "/?format=json",
        "/?file=status.js",
        "/?file=status.css",
        "/x",
        "/?page=0",
        "/?format=events",
    ] {
        let head = read(ask(&status, Method::HEAD, uri, "text/html")).await;
        assert_eq!(head.text, "", "{uri}");
        let policy = head.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        assert_eq!(head.headers["cache-control"], "no-store");
        if !uri.contains("events") {
            let got = get(&status, uri).await;
            assert_eq!(got.headers["content-type"], head.headers["content-type"]);
            assert!(got.headers["content-length"] == got.text.len().to_string());
            assert!(head.headers.contains_key("content-length"));
        }
    }
    assert_eq!(status.shared().streams(), 0, "a head is no stream");
}

/// Below any path, with a slash at its end or none: links that name a path would lead elsewhere from one of
/// the two.
#[tokio::test]
async fn links_work_wherever_it_is_mounted() {
    let (_writer, orders) = service("orders");
    let status = StatusPage::empty().with(&orders);
    for uri in ["/", "/?service=orders", "/?service=none"] {
        let page = get(&status, uri).await.text;
        for attribute in ["href=\"", "src=\"", "action=\""] {
            for link in page.split(attribute).skip(1) {
                assert!(
                    link.starts_with('?') || link.starts_with('#'),
                    "{}",
                    &link[..20]
                );
            }
        }
        for inline in ["<style", " style=", "onclick", "<script>"] {
            assert!(!page.contains(inline), "{inline}");
        }
    }
    let script = get(&status, "/?file=status.js").await.text;
    assert!(!script.contains("innerHTML") && !script.contains("eval"));
}
