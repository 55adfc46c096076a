use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::*;
use crate::{client::scripted, model::Host};

/// A server that answers the connections it gets with these statuses and bodies, one each.
async fn server(answers: &[(&'static str, &str)]) -> (Target, Arc<Mutex<Vec<String>>>) {
    let answer = |(status, body): &(&str, &str)| {
        let length = body.len();
        format!("HTTP/1.1 {status} \r\ncontent-length: {length}\r\n\r\n{body}")
    };
    scripted::server(answers.iter().map(answer).collect(), "\r\n\r\n").await
}

fn http() -> Http {
    Http {
        context_path: "/nacos".to_owned(),
        security: Security::Plain,
        timeout: Duration::from_secs(5),
    }
}

fn key() -> ServiceKey {
    ServiceKey::new("dev", "G@@or/ders?x=1".parse().unwrap()).unwrap()
}

const NEWER: &str = r#"{"code":0,"message":"success","data":{"namespaceId":"dev","serviceName":"orders","groupName":"G",
    "clusterMap":{},"metadata":{"owner":"team \u00e4","n":7},"protectThreshold":0.5,"ephemeral":true}}"#;
const OLDER: &str = r#"{"namespaceId":"dev","groupName":"G","name":"orders","protectThreshold":0.25,
    "metadata":{},"selector":{"type":"none"},"clusters":[]}"#;

#[tokio::test]
async fn the_newer_path_is_tried_first_and_no_name_leads_out_of_the_query() {
    let (target, requests) = server(&[("410", ""), ("200", OLDER)]).await;
    let details = http().details(&target, &key(), None).await.unwrap();
    assert_eq!(details.protection_threshold, Some(0.25));
    assert!(details.metadata.is_empty() && details.ephemeral.is_none());
    let query = "?namespaceId=dev&groupName=G&serviceName=or%2Fders%3Fx%3D1 HTTP/1.1\r\n";
    assert_eq!(requests.lock().unwrap().len(), PATHS.len());
    for (request, path) in requests.lock().unwrap().iter().zip(PATHS) {
        let line = format!("GET /nacos{path}{query}");
        assert!(request.starts_with(&line), "{request}");
        assert!(!request.to_lowercase().contains("authorization"));
    }
    let (target, requests) = server(&[("200", NEWER)]).await;
    let token = Secret::from("t0ken".to_owned());
    let told = http().details(&target, &key(), Some(&token)).await.unwrap();
    let text = "protection threshold 0.5, ephemeral, metadata n=7, owner=team ä";
    assert_eq!(told.to_string(), text);
    let request = requests.lock().unwrap()[0].to_lowercase();
    assert!(
        request.contains("authorization: bearer t0ken\r\n"),
        "{request}"
    );
    assert!(request.contains("accesstoken: t0ken\r\n"), "{request}");
}

#[tokio::test]
async fn an_answer_that_says_nothing_is_an_error_without_the_token() {
    let long = "x".repeat(100_000);
    for (status, body, says) in [
        ("403", "no right for t0ken", "denied access"),
        ("400", "service not found", "status 400: service not found"),
        ("500", "t0ken", "status 500"),
        ("200", "", "says nothing"),
        ("200", "<html>", "says nothing"),
        ("200", "{}", "says nothing"),
        ("200", "[1]", "says nothing"),
        ("200", r#"{"data":null}"#, "says nothing"),
        ("200", r#"{"protectThreshold":"a lot"}"#, "says nothing"),
        ("200", &long, "length limit exceeded"),
        ("502", "a\u{1b}[2J\r\nb", "status 502: a?[2J b"),
        ("404", "", "no path for that"),
    ] {
        let (target, _) = server(&[(status, body), (status, body)]).await;
        let token = Secret::from("t0ken".to_owned());
        let error = http().details(&target, &key(), Some(&token)).await;
        let error = error.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(says), "{status} {body:.20}: {error}");
        assert!(!text.contains("t0ken"), "{text}");
        assert!(text.len() < 1_500, "{}", text.len());
        assert_eq!(error.is_denied(), status == "403");
    }
}

#[tokio::test]
async fn more_metadata_than_people_read_is_left_out() {
    let pairs: Vec<String> = (0..1_000).map(|n| format!(r#""k{n:04}":"v""#)).collect();
    let body = format!(r#"{{"metadata":{{{}}}}}"#, pairs.join(","));
    let (target, _) = server(&[("200", &body)]).await;
    let details = http().details(&target, &key(), None).await.unwrap();
    assert_eq!(details.metadata.len(), MOST_PAIRS);
    assert_eq!(details.protection_threshold, None);
}

#[tokio::test]
async fn a_server_that_says_nothing_at_all_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let target = Target {
        addr,
        host: Host::Ip(addr.ip()),
        authority: addr.to_string(),
    };
    let impatient = Http {
        timeout: Duration::from_millis(50),
        ..http()
    };
    let error = impatient.details(&target, &key(), None).await.unwrap_err();
    assert!(
        error.to_string().contains("no answer within 50ms"),
        "{error}"
    );
    drop(listener);
    let error = http().details(&target, &key(), None).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
