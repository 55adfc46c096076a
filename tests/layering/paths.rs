//! The paths that a source file names, read without a compiler.

use std::collections::BTreeSet;

/// What a file defines, imports and names.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Its own items, at the first level.
    pub(crate) items: BTreeSet<String>,
    /// Its `use` declarations, re-exports among them.
    pub(crate) imports: Vec<Import>,
    /// The paths that stand in its code and begin with `crate`, `self` or `super`.
    pub(crate) paths: Vec<Path>,
    /// The identifiers in its code outside of `use` declarations; no fields, no methods.
    pub(crate) words: BTreeSet<String>,
    /// Those of them that a `::` follows, with their lines.
    pub(crate) heads: Vec<Path>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Path,
    /// What it is called here; `*` for all that there is.
    pub(crate) name: String,
    /// Whether others may import it from here.
    pub(crate) exported: bool,
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let code = bare(text);
        let tokens = tokens(&code);
        let mut source = Self::default();
        let (mut at, mut depth) = (0, 0);
        let mut exported = false;
        while at < tokens.len() {
            let text = tokens[at].text;
            let follows = |what: &str| at > 0 && tokens[at - 1].text == what;
            match text {
                "{" => depth += 1,
                "}" => depth -= 1,
                "#" => {
                    if let Some(end) = test_item(&tokens, at) {
                        at = end;
                        continue;
                    }
                }
                "use" => {
                    let mut found = Vec::new();
                    at = tree(&tokens, at + 1, &mut Vec::new(), &mut found);
                    source
                        .imports
                        .extend(found.into_iter().map(|(path, name)| Import {
                            path,
                            name,
                            exported,
                        }));
                    exported = false;
                    continue;
                }
                "pub" => {
                    exported = true;
                    if tokens.get(at + 1).is_some_and(|t| t.text == "(") {
                        while tokens[at].text != ")" {
                            at += 1;
                        }
                    }
                    at += 1;
                    continue;
                }
                "crate" | "self" | "super"
                    if !follows("$")
                        && !follows("::")
                        && tokens.get(at + 1).is_some_and(|t| t.text == "::") =>
                {
                    let mut found = Vec::new();
                    at = tree(&tokens, at, &mut Vec::new(), &mut found);
                    source.paths.extend(found.into_iter().map(|(path, _)| path));
                    continue;
                }
                word if is_word(word) && !follows(".") && !follows("::") => {
                    if depth == 0
                        && at > 0
                        && (ITEMS.contains(&tokens[at - 1].text)
                            || follows("!") && at > 1 && tokens[at - 2].text == "macro_rules")
                    {
                        source.items.insert(word.to_owned());
                    } else if !ITEMS.contains(&word) {
                        source.words.insert(word.to_owned());
                        if tokens.get(at + 1).is_some_and(|t| t.text == "::") {
                            let mut found = Vec::new();
                            tree(&tokens, at, &mut Vec::new(), &mut found);
                            source.heads.extend(found.into_iter().map(|(path, _)| path));
                        }
                    }
                }
                _ => {}
            }
            exported = false;
            at += 1;
        }
        source
    }
}

/// Reads a path or a tree of them; returns what comes after it.
fn tree(
    tokens: &[Token<'_>],
    mut at: usize,
    before: &mut Vec<String>,
    found: &mut Vec<(Path, String)>,
) -> usize {
    let base = before.len();
    let mut end = |before: &Vec<String>, line, name: String| {
        let mut segments = before.clone();
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let name = if name == "self" {
            segments.last().cloned().unwrap_or_default()
        } else {
            name
        };
        found.push((Path { segments, line }, name));
    };
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t.text != "}") {
                    at = tree(tokens, at, before, found);
                    if tokens.get(at).is_some_and(|t| t.text == ",") {
                        at += 1;
                    } else if tokens.get(at).is_some_and(|t| t.text != "}") {
                        break; // not a tree after all
                    }
                }
                at += 1;
                break;
            }
            "*" => {
                end(before, token.line, "*".to_owned());
                at += 1;
                break;
            }
            "::" => at += 1, // in front of a name from outside
            word if is_word(word) => {
                before.push(word.to_owned());
                at += 1;
                let next = |n: usize| tokens.get(at + n).map_or("", |t| t.text);
                let on = next(0) == "::" && (is_word(next(1)) || ["{", "*"].contains(&next(1)));
                if on {
                    at += 1;
                    continue;
                }
                let mut name = word.to_owned();
                if next(0) == "as" {
                    name = next(1).to_owned();
                    at += 2;
                }
                end(before, token.line, name);
                break;
            }
            _ => {
                at += 1;
                break;
            }
        }
    }
    before.truncate(base);
    at
}

/// If a `#[cfg(test)]` begins here: where what it stands before ends.
fn test_item(tokens: &[Token<'_>], mut at: usize) -> Option<usize> {
    let texts = |from: usize| tokens[from..].iter().map(|t| t.text);
    if !texts(at)
        .take(7)
        .eq(["#", "[", "cfg", "(", "test", ")", "]"])
    {
        return None;
    }
    at += 7;
    let mut depth = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ";" | "," if depth == 0 => break,
            _ => {}
        }
    }
    Some(at)
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let len = if c.is_alphanumeric() || c == '_' {
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        line += usize::from(c == '\n');
        if !c.is_whitespace() {
            let text = &rest[..len];
            tokens.push(Token { text, line });
        }
        at += len;
    }
    tokens
}

/// The text without its comments, strings and characters; lines stay where they are.
pub(crate) fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !word_before) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = rest.find('"').unwrap_or_default() + 1;
            rest[start..]
                .find(&end)
                .map_or(rest.len(), |at| start + at + end.len())
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && is_char(rest) {
            quoted(rest, '\'')
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest[..len].chars().filter(|c| *c == '\n'));
        out.push(' ');
        rest = &rest[len..];
    }
    out
}

fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('b').unwrap_or(text);
    let text = text.strip_prefix('r')?;
    let opening = text.trim_start_matches('#');
    opening.starts_with('"').then(|| text.len() - opening.len())
}

/// Not a lifetime.
fn is_char(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

const ITEMS: &[&str] = &[
    "struct", "enum", "union", "trait", "fn", "const", "static", "type", "mod",
];

#[test]
fn what_a_file_names_is_read_however_it_is_written() {
    let source = Source::read(
        "//! crate::a::comment\n\
         use std::{fmt, sync::Arc};\n\
         pub(super) use self::b::{C, d as e, self};\n\
         use super::*;\n\
         pub struct Own<'a> { text: &'a str, quote: char }\n\
         impl Own<'_> { fn method(&self) { super::f::<u8>('\"', \"crate::g::h\"); self.n.o(p::q()) } }\n\
         #[cfg(test)]\n\
         mod tests { use crate::i::j; }\n\
         fn k() -> crate::l::{M} {}\n",
    );
    assert_eq!(Vec::from_iter(&source.items), ["Own", "k"]);
    let imports = source.imports.iter();
    let imports: Vec<_> = imports
        .map(|i| (i.path.segments.join("::"), &*i.name, i.exported))
        .collect();
    let expected = [
        ("std::fmt", "fmt", false),
        ("std::sync::Arc", "Arc", false),
        ("self::b::C", "C", true),
        ("self::b::d", "e", true),
        ("self::b", "b", true),
        ("super", "*", false),
    ];
    assert!(
        imports
            .iter()
            .map(|(path, name, exported)| (&**path, *name, *exported))
            .eq(expected),
        "{imports:?}"
    );
    let paths = source.paths.iter().map(|p| (p.segments.join("::"), p.line));
    assert_eq!(
        Vec::from_iter(paths),
        [("super::f".to_owned(), 6), ("crate::l::M".to_owned(), 9)]
    );
    assert_eq!(source.heads[0].segments, ["p", "q"]);
    assert!(source.words.contains("Own") && !source.words.contains("n"));
}
