//! The few things that are asked of a file system, so that a test can stand in for one that breaks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::name::{is_file_name, is_temporary};

/// A folder. Names have no slash in them.
pub(crate) trait Disk {
    /// Makes a file that was not there, for this user alone, with this in it.
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Returns when what the file holds would outlast the machine.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, whose file is no more.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Returns when which files there are would outlast the machine.
    fn sync_folder(&mut self) -> io::Result<()>;
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
}

/// More than 100,000 instances with metadata; who finds more finds something else.
const MOST: u64 = 256 << 20;
/// A file that is being written is not so old.
const LEFT: Duration = Duration::from_secs(3600);

/// What is wanted is not so old; see [`Folder::sweep`].
const UNWANTED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A folder of this machine, made when the first file is.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes away what writers left that were killed, and the files of services that nobody has wanted
    /// for long.
    ///
    /// Whoever wants a service and has a connection writes its file once an hour. A process that has had
    /// none for longer may still start with it, if it believes older files than we do; so what is not
    /// of use to us stays for as long again, and for a month at least. How long that is says the newest
    /// file of the folder, too: a clock that is ahead of time takes nothing away. If somebody writes a
    /// file as it is taken away, it is there again with his next write.
    pub(super) fn sweep(&self, max_age: Duration, now: SystemTime) {
        let Ok(files) = fs::read_dir(&self.path) else {
            return; // it is not there yet, or saving will tell
        };
        let mut kept = Vec::new();
        for file in files.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            let temporary = is_temporary(name);
            if !temporary && !is_file_name(name) {
                continue;
            }
            let Ok(written) = file.metadata().and_then(|data| data.modified()) else {
                continue;
            };
            if !temporary {
                kept.push((written, file.path()));
            } else if is_older(written, LEFT, now) {
                let _ = fs::remove_file(file.path()); // another process may have been faster
            }
        }
        let Some(newest) = kept.iter().map(|(written, _)| *written).max() else {
            return;
        };
        let limit = max_age.saturating_mul(2).max(UNWANTED);
        for (written, path) in kept {
            if is_older(written, limit, now.min(newest)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path)
    }
}

impl Disk for Folder {
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.path.join(name))?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        // Elsewhere a folder cannot be opened, and a rename is written with the file.
        if cfg!(unix) {
            let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
            // Some file systems cannot, and the file is written; a folder may be closed to readers.
            use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
            return synced.or_else(|error| match error.kind() {
                InvalidInput | PermissionDenied | Unsupported => Ok(()),
                _ => Err(error),
            });
        }
        Ok(())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let path = self.path.join(name);
        let data = fs::metadata(&path)?;
        if !data.is_file() {
            // To open a pipe would wait for somebody who writes to it.
            return Err(io::Error::other("it is not a file"));
        }
        let mut bytes = Vec::new();
        File::open(&path)?.take(MOST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST {
            return Err(io::Error::other("it is larger than any list"));
        }
        Ok(bytes)
    }
}

fn is_older(written: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(written).is_ok_and(|is| is > age)
}
