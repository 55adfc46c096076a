//! Inside a room, as between rooms, no two files need each other: such a ring can only be read,
//! tested and changed as a whole. What a file needs of its user it gets from a file below both.
//!
//! Counted are `crate::` and `super::` paths outside of test code. A name that a `mod.rs` hands on
//! counts as the file's that defines it. What is not seen: methods, which need no path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::paths::{Path, Source};

/// Rooms that are still to be mended, and how many of their files lie in rings. No entry may grow,
/// and one that is mended has to go.
const RINGS: &[(&str, usize)] = &[("testing", 12)];

/// A room's files by their modules: `["driver", "news"]`.
type Room = BTreeMap<Vec<String>, (String, Source)>;
/// Who names whom, and the first line where.
type Uses = BTreeMap<(usize, usize), usize>;

#[test]
fn no_files_of_a_room_lie_in_a_ring() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (name, room) in rooms() {
        seen += room.len();
        let rings = rings(&name, &room);
        let files = rings.iter().map(|(files, _)| files).sum::<usize>();
        let allowed = RINGS.iter().find(|(known, _)| *known == name);
        let allowed = allowed.map(|(_, files)| *files);
        if files > allowed.unwrap_or_default() {
            complaints.push(format!(
                "{name}: {files} of {} files lie in rings, {} may",
                room.len(),
                allowed.unwrap_or_default()
            ));
            complaints.extend(rings.into_iter().map(|(_, text)| text));
        } else if files == 0 && allowed.is_some() {
            complaints.push(format!("{name} has no ring: take it out of RINGS"));
        } else if files < allowed.unwrap_or_default() {
            complaints.push(format!(
                "{name}: only {files} files lie in rings: say so in RINGS"
            ));
        }
    }
    for (name, _) in RINGS {
        let known = rooms().contains_key(*name);
        assert!(known, "RINGS has {name}, and the house has no such room");
    }
    assert!(seen > 100, "only {seen} files found");
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_ring_is_found_however_its_files_name_each_other() {
    let ring = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(path, text)| (*path, *text));
        let room = room(sources.map(|(path, text)| (path.to_owned(), text.to_owned())));
        let found = rings("room", &room).into_iter();
        found.map(|(files, _)| files).collect::<Vec<_>>()
    };
    let facade = (
        "mod.rs",
        "mod a; mod b; pub use self::{a::A, b::{B, C as D}};",
    );
    // By the file's own name, by what the facade hands on, under another name, and by `super`.
    assert_eq!(
        ring(&[
            ("a.rs", "use super::b::B; pub struct A(B);"),
            ("b.rs", "use super::a::A; pub struct B(A);"),
        ]),
        [2]
    );
    let a = ("a.rs", "use crate::{room::{B}, other::X}; pub struct A(B);");
    assert_eq!(
        ring(&[facade, a, ("b.rs", "pub struct B; fn f(_: super::A) {}")]),
        [2]
    );
    let a = ("a.rs", "pub struct A; fn f() { crate::room::D::new() }");
    assert_eq!(
        ring(&[facade, a, ("b.rs", "use super::*; pub struct C(A);")]),
        [2]
    );
    // What only the facade knows of both is none, nor what tests name.
    let b = ("b.rs", "#[cfg(test)] mod tests { use super::super::A; }");
    assert_eq!(ring(&[facade, a, b]), [0; 0]);
    // A facade with code of its own is a file like others.
    let root = ("mod.rs", "mod a; use a::A; struct Root(A);");
    assert_eq!(ring(&[root, ("a.rs", "pub struct A(super::Root);")]), [2]);
    let root = ("mod.rs", "mod a; struct Root(a::A);");
    assert_eq!(ring(&[root, ("a.rs", "pub struct A(super::Root);")]), [2]);
    // Over three files, one of them in a folder.
    assert_eq!(
        ring(&[
            ("a.rs", "use super::b::c::C;"),
            ("b/mod.rs", "pub mod c;"),
            ("b/c.rs", "use super::super::d::D; pub struct C;"),
            ("d.rs", "use crate::room::a;"),
            ("e.rs", "use super::d::D;"),
        ]),
        [3]
    );
}

fn rooms() -> BTreeMap<String, Room> {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::<String, Vec<_>>::new();
    for file in super::rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let path = path.replace('\\', "/");
        if let Some((room, rest)) = path.split_once('/')
            && !super::is_test_file(&path)
        {
            let text = fs::read_to_string(&file).unwrap();
            let room = files.entry(room.to_owned()).or_default();
            room.push((rest.to_owned(), text));
        }
    }
    let rooms = files.into_iter();
    rooms.map(|(name, files)| (name, room(files))).collect()
}

fn room(files: impl IntoIterator<Item = (String, String)>) -> Room {
    let read = files.into_iter().map(|(path, text)| {
        let module = path.trim_end_matches(".rs").split('/');
        let mut module: Vec<_> = module.map(str::to_owned).collect();
        module.pop_if(|last| last == "mod");
        (module, (path, Source::read(&text)))
    });
    read.collect()
}

/// Each ring of a room: how many files, and which.
fn rings(name: &str, room: &Room) -> Vec<(usize, String)> {
    let uses = uses(name, room);
    let n = room.len();
    let mut reaches = vec![vec![false; n]; n];
    for (from, to) in uses.keys() {
        reaches[*from][*to] = true;
    }
    for by in 0..n {
        let onwards = reaches[by].clone();
        for from in &mut reaches {
            if from[by] {
                from.iter_mut().zip(&onwards).for_each(|(to, on)| *to |= on);
            }
        }
    }
    let paths: Vec<_> = room.values().map(|(path, _)| path).collect();
    let mut rings = Vec::new();
    let mut told = BTreeSet::new();
    for (one, reached) in reaches.iter().enumerate() {
        let others = (0..n).filter(|other| reached[*other] && reaches[*other][one]);
        let ring: Vec<_> = others.collect();
        if ring.is_empty() || !told.insert(ring.clone()) {
            continue;
        }
        let files: Vec<_> = ring.iter().map(|file| &**paths[*file]).collect();
        let mut text = format!("  a ring of {}: {}", files.len(), files.join(", "));
        for ((from, to), line) in &uses {
            if ring.contains(from) && ring.contains(to) {
                let (from, to) = (&paths[*from], &paths[*to]);
                text += &format!("\n    src/{name}/{from}:{line} needs {to}");
            }
        }
        rings.push((files.len(), text));
    }
    rings
}

fn uses(name: &str, room: &Room) -> Uses {
    let places: BTreeMap<_, _> = room.keys().enumerate().map(|(at, key)| (key, at)).collect();
    let mut uses = Uses::new();
    for (from, (module, (_, source))) in room.iter().enumerate() {
        let imports = source.imports.iter();
        // What is only handed on is not needed here.
        let needed = imports.filter(|i| !i.exported || source.words.contains(&i.name));
        let paths = needed.map(|import| &import.path).chain(&source.paths);
        let children = source.heads.iter().filter(|path| {
            let mut child = module.clone();
            child.extend(path.segments.first().cloned());
            room.contains_key(&child)
        });
        // A word may be one of what `*` brings in.
        let globs = source.imports.iter().filter(|import| import.name == "*");
        let by_glob = globs.flat_map(|glob| {
            let from = absolute(name, module, &glob.path.segments, room);
            let from = from.and_then(|path| room.get(&path));
            let words = source.words.iter().filter(move |word| {
                from.is_some_and(|(_, from)| from.imports.iter().any(|i| i.name == **word))
            });
            words.map(|word| {
                let mut path = glob.path.clone();
                path.segments.push(word.clone());
                path
            })
        });
        let by_glob: Vec<_> = by_glob.collect();
        for path in paths.chain(children).chain(&by_glob) {
            let target = absolute(name, module, &path.segments, room);
            let target = target.and_then(|path| resolve(name, room, &[], &path, 0));
            if let Some(target) = target
                && places[&target] != from
            {
                let line = uses.entry((from, places[&target])).or_insert(path.line);
                *line = path.line.min(*line);
            }
        }
    }
    uses
}

/// A path from the room's root, if it stays in the room.
fn absolute(name: &str, module: &[String], path: &[String], room: &Room) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            if path.get(1)? != name {
                return None;
            }
            rest = &path[2..];
        }
        "self" => rest = &path[1..],
        "super" => {}
        first => {
            base.push(first.to_owned());
            if !room.contains_key(&base) {
                return None; // another crate's
            }
            rest = &path[1..];
        }
    }
    while rest.first().is_some_and(|segment| segment == "super") {
        base.pop()?;
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The file that defines what a path from the room's root names; `None` if that is another crate's.
fn resolve(
    name: &str,
    room: &Room,
    module: &[String],
    rest: &[String],
    hops: usize,
) -> Option<Vec<String>> {
    let Some((first, rest)) = rest.split_first() else {
        return room.contains_key(module).then(|| module.to_vec());
    };
    let mut child = module.to_vec();
    child.push(first.clone());
    if room.contains_key(&child) {
        return resolve(name, room, &child, rest, hops);
    }
    let (_, source) = room.get(module)?;
    if source.items.contains(first) || hops > 20 {
        return Some(module.to_vec());
    }
    let follow = |path: &Path, more: &[String]| {
        let mut path = absolute(name, module, &path.segments, room)?;
        path.extend_from_slice(more);
        resolve(name, room, &[], &path, hops + 1)
    };
    if let Some(import) = source.imports.iter().find(|import| import.name == *first) {
        return follow(&import.path, rest);
    }
    let globs = source.imports.iter().filter(|import| import.name == "*");
    let mut defined = globs.filter_map(|glob| {
        let target = follow(&glob.path, &[])?;
        room[&target].1.items.contains(first).then_some(target)
    });
    let defined = defined.next();
    defined.or_else(|| Some(module.to_vec()))
}
