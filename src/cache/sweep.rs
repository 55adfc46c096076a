//! What nobody wants any more goes, a file at a time: whoever starts does not wait for it.

use std::{
    fs::{self, DirEntry, ReadDir},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::name::{is_file_name, is_temporary};

/// A file that is being written is not so old.
const LEFT: Duration = Duration::from_secs(3600);

/// What is wanted is not so old; see [`Sweep`].
const UNWANTED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Takes away what writers left that were killed, and the files of services that nobody has wanted
/// for long.
///
/// Whoever wants a service and has a connection writes its file once an hour. A process that has had
/// none for longer may still start with it, if it believes older files than we do; so what is not
/// of use to us stays for as long again, and for a month at least. How long that is says the newest
/// file of the folder, too: a clock that is ahead of time takes nothing away. If somebody writes a
/// file as it is taken away, it is there again with his next write.
#[derive(Debug)]
pub(crate) struct Sweep {
    limit: Duration,
    now: SystemTime,
    rest: Rest,
}

/// What is yet to be looked at, or to be taken away.
#[derive(Debug)]
enum Rest {
    Folder(PathBuf),
    Files(ReadDir, Vec<(SystemTime, PathBuf)>),
    Unwanted(Vec<PathBuf>),
}

impl Sweep {
    pub(super) fn new(folder: &Path, max_age: Duration, now: SystemTime) -> Self {
        Self {
            limit: max_age.saturating_mul(2).max(UNWANTED),
            now,
            rest: Rest::Folder(folder.to_owned()),
        }
    }

    /// Asks the disk of one file at most. False once all is done.
    pub(super) fn step(&mut self) -> bool {
        match &mut self.rest {
            Rest::Folder(path) => {
                let Ok(files) = fs::read_dir(path) else {
                    return false; // it is not there yet, or saving will tell
                };
                self.rest = Rest::Files(files, Vec::new());
            }
            Rest::Files(files, kept) => match files.next() {
                Some(Ok(file)) => kept.extend(look(&file, self.now)),
                Some(Err(_)) => {}
                None => {
                    let newest = kept.iter().map(|(written, _)| *written).max();
                    let now = newest.map_or(self.now, |newest| self.now.min(newest));
                    kept.retain(|(written, _)| is_older(*written, self.limit, now));
                    let unwanted = kept.drain(..).map(|(_, path)| path);
                    self.rest = Rest::Unwanted(unwanted.collect());
                }
            },
            Rest::Unwanted(paths) => {
                let Some(path) = paths.pop() else {
                    return false;
                };
                let _ = fs::remove_file(path); // another process may have been faster
            }
        }
        true
    }
}

/// A service's file, and when it was written. What was left half written goes at once.
fn look(file: &DirEntry, now: SystemTime) -> Option<(SystemTime, PathBuf)> {
    let name = file.file_name();
    let name = name.to_str()?;
    let temporary = is_temporary(name);
    if !temporary && !is_file_name(name) {
        return None;
    }
    let written = file.metadata().and_then(|data| data.modified()).ok()?;
    if !temporary {
        return Some((written, file.path()));
    }
    if is_older(written, LEFT, now) {
        let _ = fs::remove_file(file.path()); // another process may have been faster
    }
    None
}

fn is_older(written: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(written).is_ok_and(|is| is > age)
}
