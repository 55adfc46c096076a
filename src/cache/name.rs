//! What a service's file is called.

use super::checksum::checksum;
use crate::model::ServiceKey;

/// How much of a name is for the eye. With the rest it stays far below 255 bytes, the limit of file
/// systems, where a service's name may have 1,536.
const SHOWN: usize = 80;
/// What the files' names end with.
pub(super) const EXTENSION: &str = ".nacos";
/// What the names of files end with that are being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// The name of the file of `key`: something for the eye, and a sum that tells services apart whose
/// names look alike, also where a file system takes `Orders` for `orders`. No name of a service leads
/// out of the folder, or to a hidden file, or to one that is not of this kind: of its characters only
/// ASCII letters, digits and `-` are taken as they are.
pub(super) fn file_name(key: &ServiceKey) -> String {
    let parts = [key.namespace(), key.group(), key.name()].map(|part| part.as_bytes());
    // Neither of the first two may hold a zero byte, so nothing reads two ways.
    let sum = checksum(parts.into_iter().flat_map(|part| [part, &[0]]));
    let mut name = String::with_capacity(SHOWN + EXTENSION.len() + 33);
    let shown = [key.name(), key.group(), key.namespace()].map(|part| part.chars());
    for (at, part) in shown.into_iter().enumerate() {
        if at > 0 {
            name.push('+');
        }
        name.extend(part.take(SHOWN / 2).map(plain));
    }
    name.truncate(SHOWN); // ASCII throughout
    format!("{name}~{sum:032x}{EXTENSION}")
}

/// The name under which the file `name` is written before it takes its place; `salt` differs from
/// writer to writer and from time to time.
pub(super) fn temporary_name(name: &str, salt: u64) -> String {
    format!("{name}.{salt:016x}{TEMPORARY}")
}

/// Whether a file of this name was left by a writer that did not finish.
pub(super) fn is_temporary(name: &str) -> bool {
    let rest = name.strip_suffix(TEMPORARY);
    let salted = rest.and_then(|rest| rest.rsplit_once('.'));
    salted.is_some_and(|(name, salt)| {
        let hex = salt.len() == 16 && salt.bytes().all(|b| b.is_ascii_hexdigit());
        hex && name.contains('~') && name.ends_with(EXTENSION)
    })
}

/// Whether a file of this name is one of [`file_name`]'s.
pub(super) fn is_file_name(name: &str) -> bool {
    let rest = name.strip_suffix(EXTENSION);
    let summed = rest.and_then(|rest| rest.rsplit_once('~'));
    summed.is_some_and(|(_, sum)| sum.len() == 32 && sum.bytes().all(|b| b.is_ascii_hexdigit()))
}

const fn plain(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || letter == '-' {
        letter
    } else {
        '_'
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    fn key(namespace: &str, name: &str) -> ServiceKey {
        ServiceKey::new(namespace, name.parse().unwrap()).unwrap()
    }

    #[test]
    fn no_name_of_a_service_leads_out_of_the_folder() {
        let long = "訳".repeat(512);
        for name in [
            "../../etc/passwd",
            "..",
            ".",
            "/etc/passwd",
            "C:\\boot.ini",
            "nul",
            "a:b",
            "~root",
            "-rf",
            "*",
            &long,
            "😀",
        ] {
            let file = file_name(&key("public", name));
            let mut parts = Path::new(&file).components();
            assert!(matches!(parts.next(), Some(Component::Normal(_))), "{file}");
            assert!(parts.next().is_none() && file.is_ascii(), "{file}");
            assert!(
                !file.starts_with('.') && !file.contains(['/', '\\', ':', '*']),
                "{file}"
            );
            assert!(temporary_name(&file, u64::MAX).len() < 200, "{file}");
            assert!(!is_temporary(&file) && is_temporary(&temporary_name(&file, 7)));
        }
    }

    #[test]
    fn names_that_look_alike_are_different_files() {
        let keys = [
            key("public", "orders"),
            key("public", "Orders"),
            key("public", "o/rders"),
            key("public", "o_rders"),
            key("dev", "orders"),
            key("public", "dev@@orders"),
            key("public", &"a".repeat(500)),
            key("public", &"a".repeat(501)),
        ];
        let names: std::collections::BTreeSet<_> = keys
            .iter()
            .map(|key| file_name(key).to_ascii_lowercase())
            .collect();
        assert_eq!(names.len(), keys.len(), "{names:?}");
    }

    #[test]
    fn other_peoples_files_are_not_taken_for_what_we_left() {
        for name in [
            "a.tmp",
            "a.nacos.tmp",
            "a~b.nacos.0123.tmp",
            ".tmp",
            "x.nacos.0123456789abcdef.tmp",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
