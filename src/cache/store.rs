//! One file a service in a folder, replaced whole or not at all.

use std::{
    fmt, io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    disk::{Disk, Folder},
    name::{file_name, temporary_name},
    record::{self, Unusable},
    sweep::Sweep,
};
use crate::{
    directory::Snapshot,
    model::{Listing, ServiceKey},
};

/// A folder of services' files.
#[derive(Debug)]
pub(crate) struct Store<D = Folder> {
    disk: D,
    folder: PathBuf,
    /// What tells temporary names apart: those of other processes, and the last one's.
    salt: u64,
}

/// What a file said.
#[derive(Debug)]
pub(crate) struct Found {
    /// The last set, never empty.
    pub(crate) listing: Listing,
    /// For how long it has not been known whether it still is what the registry says.
    pub(crate) age: Duration,
    /// Whether the clock says that it was written in the time to come, so that its age is a guess.
    pub(crate) from_the_future: bool,
}

/// What is wrong with a file or its folder.
#[derive(Debug)]
pub(crate) struct Problem {
    path: PathBuf,
    what: What,
}

#[derive(Debug)]
enum What {
    Unusable(Unusable),
    Old { age: Duration, limit: Duration },
    Read(io::Error),
    Write(io::Error),
}

/// Clocks of two machines, or of one before and after it asked for the time, differ by less.
const CLOCKS_DIFFER: Duration = Duration::from_secs(300);

impl Store {
    pub(crate) fn new(folder: PathBuf, salt: u64) -> Self {
        Self::on(Folder::new(folder.clone()), folder, salt)
    }

    pub(super) fn sweep(&self, max_age: Duration, now: SystemTime) -> Sweep {
        Sweep::new(&self.folder, max_age, now)
    }
}

impl<D: Disk> Store<D> {
    pub(crate) const fn on(disk: D, folder: PathBuf, salt: u64) -> Self {
        Self { disk, folder, salt }
    }

    #[cfg(feature = "testing")]
    pub(crate) const fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    #[cfg(test)]
    pub(super) fn into_disk(self) -> D {
        self.disk
    }

    /// Puts `set`, last heard `age` ago, in the place of what the file of `key` holds. At every moment
    /// the file holds what it held or what it shall, whatever becomes of this process or machine. The
    /// file of a service that has nobody goes, so that names that were asked for once leave none.
    pub(crate) fn save(
        &mut self,
        key: &ServiceKey,
        set: &Snapshot,
        age: Duration,
        now: SystemTime,
    ) -> Result<(), Problem> {
        let name = file_name(key);
        let saved = if set.entries().is_empty() {
            self.remove(&name)
        } else {
            let heard = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            self.replace(&name, &record::encode(key, set, heard))
        };
        saved.map_err(|error| self.problem(&name, What::Write(error)))
    }

    /// What the file of `key` says, if there is one and it is not older than `limit`.
    pub(crate) fn load(
        &mut self,
        key: &ServiceKey,
        limit: Duration,
        now: SystemTime,
    ) -> Result<Option<Found>, Problem> {
        let name = file_name(key);
        let bytes = match self.disk.read(&name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.problem(&name, What::Read(error))),
        };
        let record = record::decode(key, &bytes)
            .map_err(|what| self.problem(&name, What::Unusable(what)))?;
        let ahead = record.heard.duration_since(now).unwrap_or_default();
        let age = now.duration_since(record.heard).unwrap_or_default();
        if age > limit {
            return Err(self.problem(&name, What::Old { age, limit }));
        }
        let somebody = !record.listing.instances().is_empty();
        Ok(somebody.then_some(Found {
            listing: record.listing,
            age,
            from_the_future: ahead > CLOCKS_DIFFER,
        }))
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.salt = self.salt.wrapping_add(1);
        let temporary = temporary_name(name, self.salt);
        // Before it takes the other's place all of it must be there: a rename may outlast what was
        // written into the file before.
        let written = (self.disk.create(&temporary, bytes))
            .and_then(|()| self.disk.sync(&temporary))
            .and_then(|()| self.disk.rename(&temporary, name));
        if written.is_err() {
            let _ = self.disk.remove(&temporary); // what went wrong is told already
            return written;
        }
        self.disk.sync_folder()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match self.disk.remove(name) {
            Ok(()) => self.disk.sync_folder(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn problem(&self, name: &str, what: What) -> Problem {
        let path = self.folder.join(name);
        Problem { path, what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Unusable(what) => write!(f, "{path}: {what}"),
            What::Old { age, limit } => write!(
                f,
                "{path}: it is {} h old, and `cache_max_age` is {} h",
                age.as_secs() / 3600,
                limit.as_secs() / 3600
            ),
            What::Read(error) => write!(f, "{path}: it cannot be read: {error}"),
            What::Write(error) => write!(f, "{path}: it cannot be written: {error}"),
        }
    }
}
