use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;
use crate::client::{exchange::LONGEST_QUOTE, scripted};

const PASSWORD: &str = "s3cret & more";

/// A server that answers the connections it gets with these texts, one each. A text that does not end
/// the answer leaves the connection open.
async fn server(answers: &[&str]) -> (Target, Arc<Mutex<Vec<String>>>) {
    let answers = answers.iter().map(|answer| (*answer).to_owned());
    scripted::server(answers.collect(), "more").await // as the password ends
}

fn login() -> Arc<Login> {
    Arc::new(Login {
        username: "jo@x".to_owned(),
        password: PASSWORD.into(),
        context_path: "/nacos".to_owned(),
        security: Security::Plain,
        timeout: Duration::from_secs(5),
    })
}

const GRANTED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 47\r\n\r\n{\"accessToken\":\"t.t\",\"tokenTtl\":7,\"extra\":null}";
const GONE: &str = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
const MISSING: &str = "HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn the_newest_path_is_tried_first_and_the_older_on_404_405_410_and_501() {
    for (answers, paths) in [
        (&[GRANTED][..], &["/nacos/v3/auth/user/login"][..]),
        (
            &[GONE, GRANTED],
            &["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"],
        ),
        (
            &[MISSING, GRANTED],
            &["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"],
        ),
        (
            &["HTTP/1.1 405 \r\ncontent-length: 0\r\n\r\n", GRANTED],
            &["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"],
        ),
        (
            &["HTTP/1.1 501 \r\ncontent-length: 0\r\n\r\n", GRANTED],
            &["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"],
        ),
    ] {
        let (target, requests) = server(answers).await;
        let token = login().at(target).await.unwrap();
        assert_eq!(token.text(), "t.t");
        assert_eq!(token.ttl, Duration::from_secs(7));
        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), paths.len());
        for (request, path) in requests.iter().zip(paths) {
            assert!(
                request.starts_with(&format!("POST {path} HTTP/1.1\r\n")),
                "{request}"
            );
            assert!(
                request.ends_with("username=jo%40x&password=s3cret+%26+more"),
                "{request}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_quotes_status_and_body_and_never_the_password() {
    for (answer, status, quoted) in [
        (
            "HTTP/1.1 403 \r\ncontent-length: 13\r\n\r\nunknown user!",
            "status 403, saying ",
            "'unknown user!'; check",
        ),
        (
            "HTTP/1.1 500 \r\ncontent-length: 0\r\n\r\n",
            "status 500 and no word; check user name and password",
            "",
        ),
        (
            "HTTP/1.1 500 \r\ncontent-length: 35\r\n\r\nbad {\"p\":\"s3cret & more\",\n \"q\":\"x\"}",
            "status 500",
            "bad {\"p\":\"<secret>\", \"q\":\"x\"}",
        ),
    ] {
        let (target, _) = server(&[answer]).await;
        let error = login().at(target).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(status) && text.contains(quoted), "{text}");
        assert!(text.contains("\"jo@x\""), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn what_no_starting_server_answers_is_a_verdict() {
    // As genuine 3.1.0 was heard to say it.
    let page = r#"{"timestamp":"2026-11-28T19:14:02.269+00:00","status":500,"error":"Internal Server Error","path":"/nacos/v3/auth/user/login"}"#;
    for (status, body, verdict) in [
        (500, "", Verdict::Wrong),
        (500, page, Verdict::Wrong),
        (401, "", Verdict::Wrong),
        (500, "{\"message\":\"unknown user!\"}", Verdict::Wrong),
        (403, "", Verdict::Doubted),
        (403, "unknown user!", Verdict::Doubted),
        (403, "User nacos not found", Verdict::Doubted),
        (500, "caused: user not found!", Verdict::Doubted),
        (400, "wrong password", Verdict::Doubted),
        (500, "java.lang.NullPointerException", Verdict::None),
        (503, "", Verdict::None),
        (302, "", Verdict::None),
    ] {
        let refused = |path: &str| LoginError::Refused {
            url: format!("http://nacos:8848/nacos{path}"),
            username: String::new(),
            status,
            body: body.to_owned(),
        };
        assert_eq!(refused(PATHS[0]).verdict(), verdict, "{status} {body}");
        if status == 500 && verdict == Verdict::Wrong {
            let older = refused(PATHS[1]).verdict();
            assert_eq!(older, Verdict::Doubted, "{status} {body}");
        }
    }
}

#[test]
fn a_life_is_read_however_it_is_written() {
    for (json, ttl) in [
        ("7", 7),
        ("\"7\"", 7),
        ("0", 0),
        ("null", 18_000),
        ("-1", 18_000),
        ("1e3", 18_000),
        ("{}", 18_000),
    ] {
        assert_eq!(
            seconds(serde_json::from_str(json).ok().as_ref()),
            ttl,
            "{json}"
        );
    }
    assert_eq!(seconds(None), 18_000);
}

#[test]
fn a_quote_is_short_and_moves_no_cursor() {
    let quote = login().quote(&format!("a\u{1b}[2J\r\n{}", "é".repeat(1_000)));
    assert!(
        quote.starts_with("a?[2J é") && quote.ends_with("é…"),
        "{quote}"
    );
    assert_eq!(quote.chars().count(), LONGEST_QUOTE + 1);
}

#[tokio::test]
async fn an_answer_without_a_token_says_what_came() {
    let rubbish = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<html>hi</html>";
    let (target, _) = server(&[rubbish]).await;
    let error = login().at(target).await.unwrap_err().to_string();
    assert!(error.contains("<html>hi</html>"), "{error}");
}

#[tokio::test]
async fn no_path_at_all_points_at_the_context_path() {
    let (target, _) = server(&[MISSING, MISSING]).await;
    let error = login().at(target).await.unwrap_err().to_string();
    assert!(
        error.contains("`context_path`, which is now \"/nacos\""),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    let (target, _) = server(&["-ERR unknown command\r\n"]).await;
    let error = login().at(target).await.unwrap_err().to_string();
    assert!(
        error.contains("is this a Nacos server's main port?"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_answers_rubbish_slowly_is_given_up_in_time() {
    let slow = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{";
    let (target, _) = server(&[slow]).await;
    let login = Login {
        timeout: Duration::from_millis(200),
        ..(*login()).clone()
    };
    let error = Arc::new(login).at(target).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 200ms"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let long = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n{}",
        "x".repeat(900_000)
    );
    let (target, _) = server(&[&long]).await;
    let error = login().at(target).await.unwrap_err().to_string();
    assert!(error.contains("length limit exceeded"), "{error}");
}

#[tokio::test]
async fn a_closed_port_says_that_the_login_needs_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let target = Target {
        addr,
        host: Host::Ip(addr.ip()),
        authority: "nacos:8848".to_owned(),
    };
    let error = login().at(target).await.unwrap_err().to_string();
    assert!(error.contains("the main port cannot be reached"), "{error}");
    assert!(
        error.contains("http://nacos:8848/nacos/v3/auth/user/login"),
        "{error}"
    );
}

#[test]
fn nothing_of_a_login_shows_its_secrets() {
    let token = Token::new("t0ken".to_owned(), Duration::ZERO);
    let shown = format!("{:?} {token:?}", login());
    assert!(
        !shown.contains("s3cret") && !shown.contains("t0ken"),
        "{shown}"
    );
}
