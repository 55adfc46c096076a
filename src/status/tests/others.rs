//! What others say, and what they may not do with it.

use super::support::{get, instance, json, now, service};
use crate::status::StatusPage;

const EVIL: &str = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;";

#[tokio::test]
async fn nothing_that_a_registry_says_is_more_than_text() {
    let (mut writer, orders) = service("orders");
    let pairs = [
        ("evil", EVIL),
        (EVIL, "x"),
        ("turned", "a\u{202e}b\u{1b}[2J"),
    ];
    let evil = instance("evil-host.example:80")
        .with_cluster(EVIL)
        .with_metadata(pairs.into_iter().collect());
    writer.publish([evil.clone()], now());
    let status = StatusPage::empty().with(&orders);
    writer.publish([], now());
    writer.publish([evil], now());
    for uri in [
        "/",
        "/?service=orders",
        "/?service=orders&filter=%22%3E%3Cscript%3Ealert(1)",
    ] {
        let page = get(&status, uri).await.text;
        assert!(
            !page.contains("<script>") && !page.contains("<img"),
            "{page}"
        );
        assert!(
            !page.contains('\u{202e}') && !page.contains('\u{1b}'),
            "{page}"
        );
    }
    let page = get(&status, "/?service=orders").await.text;
    assert!(
        page.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    let answer = json(&status, "/?service=orders").await;
    assert_eq!(answer["service"]["instances"]["items"][0]["cluster"], EVIL);
}

#[tokio::test]
async fn secrets_are_not_shown_and_what_is_huge_is_cut() {
    let (mut writer, orders) = service("orders");
    let huge = "x".repeat(2 << 20);
    let pairs = [
        ("db.password", "hunter2"),
        ("accessToken", "hunter2"),
        ("huge", &huge),
        ("jdbc", "mysql://root:hunter2@db/x"),
    ];
    let listed = instance("10.0.0.1:80").with_metadata(pairs.into_iter().collect());
    writer.publish([listed], now());
    let status = StatusPage::empty().with(&orders);
    let page = get(&status, "/?service=orders").await.text;
    let answer = json(&status, "/?service=orders").await;
    let metadata = &answer["service"]["instances"]["items"][0]["metadata"];
    for text in [&page, &answer.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("[hidden]"));
        assert!(text.len() < 20_000, "{}", text.len());
    }
    assert_eq!(metadata[2]["key"], "huge");
    assert_eq!(
        (&metadata[2]["cut"], &metadata[2]["bytes"]),
        (&true.into(), &(2 << 20).into())
    );
    assert!(page.contains("2097152 bytes, cut"));
}
