//! The few things that are asked of a file system, so that a test can stand in for one that breaks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::PathBuf,
};

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
/// A folder of this machine, made when the first file is.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
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
