//! The command `tower-nacos`, as a process beside the embedded registry.
//!
//! `cargo test --features cli --test cli`; without the feature there is no command, and one line says so.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};
use tower_nacos::{
    Client, Instance,
    testing::{Fault, Login, Registry, Script},
};

const HANG: Duration = Duration::from_secs(60);
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_tower-nacos");

struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// The command with these arguments; `None` where there is none.
fn command(server: &str, arguments: &[&str]) -> Option<Command> {
    // Its path is told even where it is not built.
    let Some(program) = PROGRAM.filter(|_| cfg!(feature = "cli")) else {
        println!("skipped: the command is not built without --features cli");
        return None;
    };
    let mut command = Command::new(program);
    command
        .env_clear()
        .args(["--server", server])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Some(command)
}

async fn ended(mut command: Command) -> Ended {
    let output = timeout(HANG, command.output())
        .await
        .expect("it ends")
        .unwrap();
    Ended {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it to its end.
macro_rules! run {
    ($server:expr, $($argument:expr),* $(,)?) => {
        match command(&$server, &[$(&$argument),*]) {
            Some(command) => ended(command).await,
            None => return,
        }
    };
}

async fn line(child: &mut BufReader<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut line = String::new();
    let read = timeout(HANG, child.read_line(&mut line)).await;
    read.expect("it says something").unwrap();
    line
}

fn interrupt(child: &Child) {
    let id = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(killed.unwrap().success());
}

fn instance(text: &str) -> Instance {
    Instance::parse(text).unwrap()
}

async fn registry() -> Registry {
    Registry::builder().push_delay(None).start().await.unwrap()
}

/// An HTTP server that says its name.
async fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = axum::Router::new().fallback(async || "a pen");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn ls_and_get_show_what_there_is() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080").with_weight(2.0));
    registry.register("orders", &instance("10.0.0.4:8080").with_weight(0.0));
    registry.register("billing@order-items", &instance("10.0.0.5:8080"));

    let ls = run!(registry.addr(), "ls");
    assert_eq!(
        (ls.code, &*ls.out),
        (0, "GROUP          SERVICE\nDEFAULT_GROUP  orders\n")
    );
    let ls = run!(registry.addr(), "ls", "billing@order-*", "--long", "--json");
    let one: Value = serde_json::from_str(&ls.out).unwrap();
    assert_eq!(
        (one["name"].as_str(), one["instances"].as_u64()),
        (Some("order-items"), Some(1))
    );
    let none = run!(registry.addr(), "ls", "nothing-*");
    assert_eq!(none.code, 1, "{}", none.err);

    let get = run!(registry.addr(), "get", "orders");
    assert_eq!(get.code, 0);
    let lines: Vec<_> = get.out.lines().collect();
    assert!(lines[0].starts_with("ADDRESS"), "{lines:?}");
    assert!(lines[1].contains("10.0.0.3:8080  callable"), "{lines:?}");
    assert!(
        lines[2].contains("10.0.0.4:8080  its weight is 0"),
        "{lines:?}"
    );
    let get = run!(registry.addr(), "--json", "get", "orders");
    let value: Value = serde_json::from_str(&get.out).unwrap();
    assert_eq!(value["callable"], 1);
    assert_eq!(value["instances"][0]["weight"], 2.0);

    let other = run!(registry.addr(), "get", "order");
    assert_eq!(other.code, 1);
    assert!(
        other.err.contains("did you mean \"orders\""),
        "{}",
        other.err
    );
}

#[tokio::test]
async fn what_cannot_be_read_or_reached_has_codes_of_its_own() {
    let registry = registry().await;
    let usage = run!(registry.addr(), "get");
    assert_eq!(usage.code, 2, "{}", usage.err);
    let bad = run!("a b c:x", "get", "orders");
    assert_eq!(bad.code, 2, "{}", bad.err);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let away = run!(nobody, "get", "orders", "--connect-timeout", "500ms");
    assert_eq!(away.code, 3, "{}", away.err);
    assert!(away.err.contains("doctor"), "{}", away.err);
}

#[tokio::test]
async fn what_a_registry_says_moves_no_cursor() {
    let registry = registry().await;
    let evil = [("k", "\u{1b}[2Jgone\r\n")].into_iter().collect();
    registry.register("orders", &instance("10.0.0.3:8080").with_metadata(evil));
    let get = run!(registry.addr(), "get", "orders");
    assert!(!get.out.contains('\u{1b}'), "{:?}", get.out);
    assert_eq!(get.out.lines().count(), 2, "{:?}", get.out);
}

#[tokio::test]
async fn watch_tells_each_change_and_ends_by_a_signal() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080"));
    let Some(mut watch) = command(&registry.addr(), &["watch", "orders"]) else {
        return;
    };
    let mut child = watch.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("10.0.0.3:8080 added") {
        seen += &line(&mut said).await;
    }
    registry.deregister("orders", "10.0.0.3:8080");
    while !seen.contains("10.0.0.3:8080 removed") {
        seen += &line(&mut said).await;
    }
    interrupt(&child);
    let code = timeout(HANG, child.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn explain_says_why() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080"));
    registry.register("orders", &instance("10.0.0.4:8080").with_weight(0.0));
    registry.set_protect_threshold("orders", 0.5);
    let all = run!(registry.addr(), "explain", "orders");
    assert!(all.out.contains("protection threshold 0.5"), "{}", all.out);
    assert_eq!(all.code, 0, "{}", all.err);
    assert!(
        all.out.contains("10.0.0.3:8080: picked, 100.0 %"),
        "{}",
        all.out
    );
    let one = run!(registry.addr(), "explain", "orders", "10.0.0.4:8080");
    assert_eq!(one.code, 1);
    assert!(one.out.contains("weight is 0"), "{}", one.out);
}

#[tokio::test]
async fn call_calls_and_counts() {
    let registry = registry().await;
    for _ in 0..2 {
        registry.register("orders", &instance(&provider().await));
    }
    let once = run!(registry.addr(), "call", "nacos://orders/v1/items/7");
    assert_eq!((once.code, &*once.out), (0, "a pen"));
    for pace in [
        &["--repeat", "40"][..],
        &["--repeat", "40", "--rate", "1000"],
    ] {
        let mut arguments = vec!["--json", "call", "nacos://orders/"];
        arguments.extend(pace);
        let Some(command) = command(&registry.addr(), &arguments) else {
            return;
        };
        let many: Value = serde_json::from_str(&ended(command).await.out).unwrap();
        assert_eq!((&many["calls"], &many["failed"]), (&40.into(), &0.into()));
        assert_eq!(many["statuses"]["200"], 40);
        let shares = many["instances"].as_object().unwrap();
        let calls: u64 = shares.values().filter_map(Value::as_u64).sum();
        assert_eq!((shares.len(), calls), (2, 40));
    }
    let nobody = run!(registry.addr(), "call", "nacos://nobody/");
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("no instance"), "{}", nobody.err);
}

#[tokio::test]
async fn register_leaves_when_it_is_told_to() {
    let registry = registry().await;
    let address = provider().await;
    let Some(mut register) = command(
        &registry.addr(),
        &[
            "register",
            "orders",
            &address,
            "--weight",
            "3",
            "-m",
            "version=2",
        ],
    ) else {
        return;
    };
    let mut child = register.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    assert!(line(&mut said).await.contains("registered"));
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    let snapshot = orders.wait_for(1, HANG).await.unwrap();
    let instance = snapshot.entries()[0].instance();
    assert_eq!(instance.weight().get(), 3.0);
    assert_eq!(instance.metadata().get("version"), Some("2"));
    interrupt(&child);
    timeout(HANG, orders.wait_gone(&address.parse().unwrap()))
        .await
        .unwrap()
        .unwrap();
    let mut rest = String::new();
    timeout(HANG, said.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.contains("acknowledged"), "{rest}");
    let code = timeout(HANG, child.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn serve_is_a_registry() {
    let Some(mut serve) = command("unused", &["serve", "--port", "0"]) else {
        return;
    };
    let mut child = serve.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let first = line(&mut said).await;
    let server = first
        .split([' ', ','])
        .find(|word| word.contains(':'))
        .unwrap();
    Client::connect(server).await.unwrap();
    interrupt(&child);
    let code = timeout(HANG, child.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(0));
}

/// The findings of a doctor who is sent there, by what was looked at.
async fn doctor(server: &str, arguments: &[&str]) -> Option<(i32, Vec<(String, String, String)>)> {
    let mut all = vec!["--json", "--connect-timeout", "2s", "doctor"];
    all.extend(arguments);
    let told = ended(command(server, &all)?).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = told.out.lines().map(|line| {
        let one: Value = serde_json::from_str(line).unwrap();
        let said = format!("{} {}", text(&one["said"]), text(&one["remedy"]));
        (text(&one["what"]), text(&one["verdict"]), said)
    });
    Some((told.code, findings.collect()))
}

/// What one fault is found as.
macro_rules! finds {
    ($told:expr, $what:literal, $verdict:literal, $words:literal) => {
        let Some((code, findings)) = $told.await else {
            return;
        };
        let found = findings.iter().any(|(what, verdict, said)| {
            (&**what, &**verdict) == ($what, $verdict) && said.contains($words)
        });
        assert!(found, "{findings:#?}");
        assert_eq!(code, i32::from($verdict == "bad"), "{findings:#?}");
    };
}

#[tokio::test]
async fn doctor_finds_nothing_where_nothing_is_wrong() {
    let registry = registry().await;
    registry.register("orders", &instance(&provider().await));
    let Some((code, findings)) = doctor(&registry.addr(), &["orders"]).await else {
        return;
    };
    assert_eq!(code, 0, "{findings:#?}");
    for what in [
        "name",
        "HTTP port",
        "clock",
        "gRPC port",
        "connection",
        "namespace",
        "pushes",
        "instances",
    ] {
        let found = findings.iter().find(|(found, ..)| *found == what);
        let verdict = found.map(|(_, verdict, _)| &**verdict);
        // A machine that stands still makes a push late, which is told.
        let late = what == "pushes" && verdict == Some("doubtful");
        assert!(verdict == Some("ok") || late, "{what}: {findings:#?}");
    }
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_with_the_network() {
    finds!(
        doctor("no.such.host.invalid:8848", &[]),
        "name",
        "bad",
        "does not resolve"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    finds!(doctor(&nobody, &[]), "HTTP port", "bad", "refused");
    finds!(doctor(&nobody, &[]), "gRPC port", "bad", "-p 9848:9848");

    // Somebody who speaks HTTP/1 where gRPC should be, and whose clock is an hour late.
    let proxy = saying("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let port = proxy.rsplit_once(':').unwrap().1;
    finds!(
        doctor(&format!("{proxy}/{port}"), &[]),
        "gRPC port",
        "bad",
        "HTTP/1"
    );
    let old = saying(
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    finds!(doctor(&old, &[]), "clock", "bad", "ahead of the registry's");

    // TLS that one side alone wants.
    let registry = registry().await;
    finds!(
        doctor(&registry.addr(), &["--tls"]),
        "gRPC port",
        "bad",
        "leave --tls out"
    );
    let secured = saying("\u{15}\u{3}\u{3}\0\u{2}\u{2}F").await;
    let port = secured.rsplit_once(':').unwrap().1.to_owned();
    finds!(
        doctor(&format!("{secured}/{port}"), &[]),
        "gRPC port",
        "bad",
        "give --tls"
    );
}

/// Answers each connection so.
async fn saying(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 1024]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_with_the_registry() {
    let closed = Registry::builder().login(Login::new("nacos", "secret"));
    let closed = closed.start().await.unwrap();
    finds!(
        doctor(&closed.addr(), &[]),
        "login",
        "bad",
        "NACOS_PASSWORD"
    );
    let wrong = ["--username", "nacos", "--password", "wrong"];
    finds!(doctor(&closed.addr(), &wrong), "login", "bad", "--username");

    let empty = ["--namespace", "dev"];
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080"));
    finds!(
        doctor(&registry.addr(), &empty),
        "namespace",
        "doubtful",
        "its id"
    );

    let slow = Registry::builder().push_delay(Some(Duration::from_secs(3)));
    let slow = slow.start().await.unwrap();
    finds!(doctor(&slow.addr(), &[]), "pushes", "doubtful", "slow");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap().to_string();
    drop(listener);
    registry.register("carts", &instance(&dead));
    finds!(
        doctor(&registry.addr(), &["carts"]),
        "instances",
        "bad",
        "do not answer"
    );
    finds!(
        doctor(&registry.addr(), &["nobody"]),
        "instances",
        "bad",
        "may be called"
    );
}

/// What ends HTTP/2 between here and there: the stream goes to one connection and the calls to another, or what
/// the server says by itself does not come.
#[tokio::test]
async fn doctor_finds_a_proxy_between() {
    let split = registry().await;
    for kind in [
        "HealthCheckRequest",
        "ServiceQueryRequest",
        "ServiceListRequest",
        "SubscribeServiceRequest",
    ] {
        split.script(Script::every(kind, Fault::RefuseAsError(301)));
    }
    finds!(
        doctor(&split.addr(), &[]),
        "connection",
        "bad",
        "an L7 proxy splits the connection; use TCP"
    );

    let mute = registry().await;
    mute.script(Script::every_push(Fault::Drop));
    finds!(
        doctor(&mute.addr(), &[]),
        "pushes",
        "bad",
        "closes or buffers streams"
    );
}

#[tokio::test]
async fn a_reader_who_leaves_is_no_fault() {
    let script = run!("unused", "completions", "bash");
    assert_eq!(script.code, 0);
    assert!(script.out.contains("tower-nacos"));
    let Some(mut command) = command("unused", &["completions", "bash"]) else {
        return;
    };
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = timeout(HANG, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}
