//! The house's plan, kept by a test: which room may import which (ARCHITECTURE.md has the reasons).
//!
//! Reads `src/`, collects `crate::room` and first-level `super::room` uses outside of test code,
//! and names file and line of every use that the plan does not allow. `rings` looks at the files
//! inside of a room.

use std::{collections::BTreeMap, fs, path::Path};

#[path = "layering/errors.rs"]
mod errors;
#[path = "layering/paths.rs"]
mod paths;
#[path = "layering/rings.rs"]
mod rings;
#[path = "layering/targets.rs"]
mod targets;

/// Each room and what it may import. Rooms further down may be imported by rooms further up.
const PLAN: &[(&str, &[&str])] = &[
    ("guide", &[]),
    ("sync", &[]),
    ("model", &[]),
    ("metrics", &["model"]),
    ("tls", &[]),
    ("wire", &["model"]),
    ("session", &["model", "wire"]),
    ("directory", &["model", "sync", "metrics"]),
    ("cache", &["model", "directory"]),
    ("retry", &[]),
    (
        "endpoint",
        &["model", "sync", "directory", "metrics", "retry"],
    ),
    ("link", &["model", "wire", "tls"]),
    ("discover", &["model", "sync", "directory", "endpoint"]),
    (
        "balance",
        &["model", "sync", "directory", "endpoint", "retry"],
    ),
    ("transport", &["model", "sync", "tls", "endpoint", "retry"]),
    ("traces", &["model", "transport"]),
    (
        "client",
        &[
            "model",
            "metrics",
            "wire",
            "session",
            "directory",
            "cache",
            "link",
        ],
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
            "retry",
            "traces",
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
            "retry",
            "traces",
        ],
    ),
    ("provider", &["client", "model", "metrics"]),
    (
        "status",
        &[
            "model",
            "sync",
            "directory",
            "endpoint",
            "balance",
            "client",
            "http",
            "grpc",
        ],
    ),
    ("testing", &["model", "wire"]),
    (
        "simulation",
        &["model", "wire", "session", "directory", "cache", "client"],
    ),
    // The command: by the public interface alone.
    ("bin", &[]),
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
    assert_eq!(found, ["model", "sync", "wire", "session", "link"]);
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

/// The rooms that a file names: what stands after `crate::`, or after as many `super::` as lead out
/// of its room, with the lines. `depth` is how many folders below the room's own its module lies.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let source = paths::Source::read(text);
    let imports = source.imports.iter().map(|import| &import.path);
    let mut found: Vec<_> = imports
        .chain(&source.paths)
        .filter_map(|path| {
            let up = path.segments.iter().take_while(|s| *s == "super").count();
            let at = match path.segments.first()?.as_str() {
                "crate" => 1,
                _ if up == depth + 1 => up,
                _ => return None,
            };
            Some((path.line, path.segments.get(at)?.clone()))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
