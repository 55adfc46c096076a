//! The house's plan, kept by a test: which room may import which (ARCHITECTURE.md has the reasons).
//!
//! Reads `src/`, collects `crate::room` and first-level `super::room` uses outside of test code,
//! and names file and line of every use that the plan does not allow.

use std::{collections::BTreeMap, fs, path::Path};

/// Each room and what it may import. Rooms further down may be imported by rooms further up.
const PLAN: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("model", &[]),
    ("metrics", &["model"]),
    ("tls", &[]),
    ("wire", &["model"]),
    ("session", &["model", "wire"]),
    ("directory", &["model", "sync", "metrics"]),
    ("endpoint", &["model", "sync", "directory", "metrics"]),
    ("link", &["model", "wire", "tls"]),
    ("discover", &["model", "sync", "directory", "endpoint"]),
    ("balance", &["model", "sync", "directory", "endpoint"]),
    ("transport", &["model", "sync", "tls", "endpoint"]),
    (
        "client",
        &["model", "metrics", "wire", "session", "directory", "link"],
    ),
    (
        "http",
        &[
            "transport",
            "balance",
            "endpoint",
            "directory",
            "client",
            "model",
            "sync",
        ],
    ),
    (
        "grpc",
        &[
            "transport",
            "balance",
            "endpoint",
            "directory",
            "client",
            "model",
            "sync",
        ],
    ),
    ("provider", &["client", "model"]),
    ("testing", &["model", "wire"]),
];

/// The one file that names arc-swap, so that the primitive can be exchanged.
const ARC_SWAP: &str = "sync/published.rs";

#[test]
fn rooms_import_only_what_the_plan_allows() {
    let plan: BTreeMap<_, _> = PLAN.iter().copied().collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offences = Vec::new();
    let mut files = 0;
    for file in rust_files(&src) {
        let path = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        let Some((room, _)) = path.split_once('/') else {
            continue;
        }; // lib.rs may see all
        let Some(allowed) = plan.get(room) else {
            offences.push(format!("src/{path}: the plan has no room `{room}`"));
            continue;
        };
        files += 1;
        let text = fs::read_to_string(&file).unwrap();
        if path != ARC_SWAP && text.contains("arc_swap") && !is_test_file(&path) {
            offences.push(format!("src/{path}: only src/{ARC_SWAP} names arc_swap"));
        }
        if is_test_file(&path) {
            continue;
        }
        let depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
        for (line, used) in imports(&text, depth) {
            if used != room && plan.contains_key(&*used) && !allowed.contains(&&*used) {
                offences.push(format!(
                    "src/{path}:{line}: `{room}` may not import `{used}`"
                ));
            }
        }
    }
    assert!(files > 20, "only {files} files found");
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn the_plan_has_no_cycle() {
    let at = |room: &str| PLAN.iter().position(|(name, _)| *name == room).unwrap();
    for (room, allowed) in PLAN {
        for used in *allowed {
            let both = PLAN[at(used)].1.contains(room);
            assert!(!both, "{room} and {used} import each other");
            // `http` and `grpc` stand beside each other; everything else imports upwards only.
            assert!(at(used) < at(room), "{room} stands above {used}");
        }
    }
}

#[test]
fn the_reader_of_imports_sees_each_way_to_write_one() {
    let text = "use crate::{\n    model::{Address, self},\n    sync,\n};\nfn f() { crate::wire::g() }\n\
                // crate::client in a comment\nuse super::super::session::X;\n\
                #[cfg(test)]\nmod tests { use crate::client::C; }\nuse super::local;\n\
                /// [`crate::directory`]\nuse crate::link as l;\n";
    let found: Vec<String> = imports(text, 1).into_iter().map(|(_, used)| used).collect();
    assert_eq!(found, ["model", "sync", "wire", "link", "session"]);
}

fn rust_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("_tests.rs")
}

/// The first segments after `crate::`, or after as many `super::` as lead out of the room, with
/// their lines. `depth` is how many folders below the room's own the file's module lies.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let code = without_comments_and_tests(text);
    let mut found = Vec::new();
    let out_of_room = format!("{}::", vec!["super"; depth + 1].join("::"));
    for root in ["crate::", &*out_of_room] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => top_level_names(group),
                None => vec![first_name(rest)],
            };
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    found
}

fn first_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The names at the first level of a `{…}` group, whose opening brace is already read.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut expect) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect = true,
            c if expect && !c.is_whitespace() => {
                names.push(first_name(&group[at..]));
                expect = false;
            }
            _ => {}
        }
    }
    names
}

/// The text with comments, and items behind `#[cfg(test)]`, blanked out; lines stay where they are.
fn without_comments_and_tests(text: &str) -> String {
    let mut out = String::new();
    let mut skipping: Option<i32> = None;
    let mut armed = false;
    for line in text.lines() {
        let code = line.split("//").next().unwrap();
        let braces = code.matches('{').count() as i32 - code.matches('}').count() as i32;
        if let Some(open) = &mut skipping {
            *open += braces;
            if *open <= 0 {
                skipping = None;
            }
        } else if code.trim_start().starts_with("#[cfg(test)]") {
            armed = true;
        } else if armed {
            let opens = code.contains('{');
            if opens && braces > 0 {
                skipping = Some(braces);
            }
            // An attribute between `#[cfg(test)]` and its item keeps it armed.
            armed = !(opens || code.contains(';')) || code.trim_start().starts_with("#[");
        } else {
            out.push_str(code);
        }
        out.push('\n');
    }
    out
}
