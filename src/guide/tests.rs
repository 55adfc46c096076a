//! Links of the book lead somewhere, on GitHub and in rustdoc.

use std::{collections::HashSet, fs, path::Path};

/// The definitions of links in a text: label and target.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
        (!target.contains(' ')).then_some((label, target))
    })
}

fn chapters() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(docs).unwrap().map(|file| file.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|end| end == "md"));
    texts
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn each_link_of_a_chapter_is_known_to_rustdoc() {
    let known: HashSet<&str> = links(include_str!("links.md"))
        .map(|(label, _)| label)
        .collect();
    let mut seen = 0;
    for (file, text) in &chapters() {
        for (label, _) in links(text) {
            assert!(
                known.contains(label),
                "docs/{file}: [{label}] is not in src/guide/links.md, so its target for GitHub is what rustdoc shows"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} links found");
}

#[test]
fn each_file_that_a_chapter_names_is_there() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let chapters = chapters();
    assert!(chapters.len() > 9);
    for (file, text) in &chapters {
        let inline = text.match_indices("](").map(|(at, _)| {
            let rest = &text[at + 2..];
            &rest[..rest.find(')').unwrap_or(rest.len())]
        });
        for target in inline.chain(links(text).map(|(_, target)| target)) {
            let target = target.split('#').next().unwrap_or_default();
            let local = !target.contains("::") && !target.contains("://") && target.contains('.');
            assert!(
                !local || docs.join(target).is_file(),
                "docs/{file} names {target}, which is not there"
            );
        }
    }
}

#[test]
fn each_label_that_a_chapter_uses_is_defined() {
    for (file, text) in &chapters() {
        let defined: HashSet<&str> = links(text).map(|(label, _)| label).collect();
        if defined.is_empty() {
            continue; // links of another kind
        }
        let mut code = false;
        for line in text.lines() {
            code ^= line.starts_with("```");
            if code || line.contains("]: ") {
                continue;
            }
            for (at, _) in line.match_indices("][") {
                let label = line[at + 2..].split(']').next().unwrap_or_default();
                assert!(
                    defined.contains(label),
                    "docs/{file}: [{label}] is not defined"
                );
            }
            for (at, _) in line.match_indices("[`") {
                let label = line[at + 1..].split(']').next().unwrap_or_default();
                let after = line[at + 2 + label.len()..].chars().next();
                assert!(
                    after == Some('(') || after == Some('[') || defined.contains(label),
                    "docs/{file}: [{label}] is not defined"
                );
            }
        }
    }
}
