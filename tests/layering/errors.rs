//! The rule for errors (ARCHITECTURE.md): `Display` says all of it, so that `source` repeats nothing.

use std::{fs, path::Path};

/// Where a source is right: tonic looks for that status; and what nobody but this crate sees.
const ALLOWED: [&str; 4] = [
    "grpc/error.rs",
    "session/error.rs",
    "transport/dial/error.rs",
    "endpoint/said.rs",
];

#[test]
fn no_error_has_a_source_whose_words_it_says_itself() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut offences) = (0, Vec::new());
    for file in super::rust_files(&src) {
        let path = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        if super::is_test_file(&path) {
            continue;
        }
        let found = sources(&fs::read_to_string(&file).unwrap());
        seen += found.len();
        if !ALLOWED.contains(&&*path) {
            offences.extend(found.iter().map(|line| format!("src/{path}:{line}")));
        }
    }
    assert!(seen >= 2, "only {seen} found: this test reads them no more");
    assert!(
        offences.is_empty(),
        "say the cause in `Display` (`endpoint::in_full`), and give it to programs by a method: {offences:#?}"
    );
}

#[test]
fn a_source_is_found_however_it_is_written() {
    let by_hand = "impl Error for E {\n    fn source(&self) -> Option<&(dyn Error + 'static)> {";
    assert_eq!(sources(by_hand), [2]);
    assert_eq!(sources("#[error(\"{0}\")]\nA(#[source] io::Error),"), [2]);
    assert_eq!(sources("#[error(\"a: {0}\")]\nA(#[from] io::Error),"), [2]);
    let transparent = "#[error(transparent)]\nA(#[from] io::Error),";
    assert_eq!(sources(transparent), [0_usize; 0]);
}

/// The lines that give an error a source which is not all there is to it.
fn sources(text: &str) -> Vec<usize> {
    let mut transparent = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.contains("#[error(") {
            transparent = line.contains("#[error(transparent)]");
        }
        let by_hand = line.contains("fn source(&self)") && line.contains("dyn ");
        let derived = line.contains("#[source]") || line.contains("#[from]") && !transparent;
        if by_hand || derived {
            found.push(at + 1);
        }
    }
    found
}
