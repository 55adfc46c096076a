//! Every line of the log has one of the public targets, and never a module's path, which would
//! change with the next move of a file.

use std::{fs, path::Path};

const TARGETS: [&str; 6] = [
    "REGISTRY",
    "DIRECTORY",
    "BALANCE",
    "TRANSPORT",
    "PROVIDER",
    "TRACES",
];
const MACROS: [&str; 7] = [
    "trace", "debug", "info", "warn", "error", "event", "enabled",
];
/// Ours, which takes the level and the target's name.
const OURS: &str = "of_service!(";

#[test]
fn every_line_of_the_log_has_a_public_target() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    let mut without = Vec::new();
    for file in super::rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().display().to_string();
        if super::is_test_file(&path) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let (calls, bare) = lines(&text);
        seen += calls;
        without.extend(bare.iter().map(|line| format!("src/{path}:{line}")));
    }
    assert!(seen > 30, "only {seen} lines found");
    assert!(
        without.is_empty(),
        "begin these with `target: logs::REGISTRY` or another of src/logs.rs: {without:#?}"
    );
}

#[test]
fn a_line_without_a_target_is_found_however_it_is_written() {
    for good in [
        "tracing::warn!(target: logs::REGISTRY, \"x\")",
        "tracing::info!(\n    target: logs::BALANCE,\n    cause = 1\n)",
        "warn!(target: logs::DIRECTORY, \"x\")",
        "logs::of_service!(\n    warn, BALANCE, client, key,\n    \"x\"\n)",
    ] {
        assert_eq!(lines(good), (1, vec![]), "{good}");
    }
    for bad in [
        "tracing::warn!(\"x\")",
        "tracing::debug!(\n    cause = 1,\n)",
        "use tracing::warn;\nwarn!(\"x\")",
        "tracing::info!(target: \"mine\", \"x\")",
        "tracing::info!(target: logs::OTHER, \"x\")",
        "tracing::enabled!(tracing::Level::INFO)",
        "logs::of_service!(warn, OTHER, client, key, \"x\")",
        "logs::of_service!(client, BALANCE, key, \"x\")",
    ] {
        let (calls, bare) = lines(bad);
        assert_eq!((calls, bare.len()), (1, 1), "{bad}");
    }
    assert_eq!(lines("// tracing::warn!(\"x\")\nwrite!(f, \"x\")").0, 0);
}

/// How many lines of the log a text writes, and where those stand that have no public target.
fn lines(text: &str) -> (usize, Vec<usize>) {
    let (mut calls, mut bare) = (0, Vec::new());
    for name in MACROS {
        for (at, found) in text.match_indices(&format!("{name}!(")) {
            let before = &text[..at];
            let line = before.rsplit('\n').next().unwrap_or_default();
            let longer = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if longer || line.trim_start().starts_with("//") {
                continue;
            }
            calls += 1;
            let target = text[at + found.len()..].trim_start();
            let target = target.strip_prefix("target: logs::").unwrap_or_default();
            if !TARGETS.iter().any(|name| target.starts_with(name)) {
                bare.push(before.matches('\n').count() + 1);
            }
        }
    }
    for (at, found) in text.match_indices(OURS) {
        let before = &text[..at];
        let line = before.rsplit('\n').next().unwrap_or_default();
        if line.trim_start().starts_with("//") {
            continue;
        }
        calls += 1;
        let mut arguments = text[at + found.len()..].split(',').map(str::trim);
        let (level, target) = (arguments.next(), arguments.next());
        let known = |of: &[&str], what: Option<&str>| what.is_some_and(|what| of.contains(&what));
        if !known(&MACROS, level) || !known(&TARGETS, target) {
            bare.push(before.matches('\n').count() + 1);
        }
    }
    (calls, bare)
}
