use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;

use super::{Account, Error};

/// `$TMPDIR` may be too long: the path of a Unix socket has at most 107 bytes.
const PLACE: &str = "/tmp";
const PREFIX: &str = "pgsaga-pg-";
const OWNER: &str = "owner";
const TAIL_BYTES_MAX: usize = 4096;

/// Directory of one server: `data`, `socket`, `log`, and `owner`, a file that the owning process
/// keeps locked.
///
/// A killed process deletes nothing, but the kernel releases its lock. Each new server therefore
/// first deletes the directories without an owner. Unlike a pid, a lock never passes to another
/// process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Keeps the lock and is never read.
    _owner: File,
}

impl Directory {
    pub(super) fn new(account: Option<Account>) -> Result<Self, Error> {
        sweep();
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Directory { path, source }
        };
        let place = Path::new(PLACE);
        let temporary = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place).map_err(error(place))?;
        // The file is locked before it gets the name that a sweep looks for.
        let unnamed = temporary.path().join("unnamed");
        let owner = File::create_new(&unnamed).map_err(error(&unnamed))?;
        owner.lock().map_err(error(&unnamed))?;
        fs::rename(&unnamed, temporary.path().join(OWNER)).map_err(error(&unnamed))?;
        let directory = Self { path: temporary.keep(), _owner: owner };
        // Other users may pass through to their own files, but not list the directory.
        let mode = Permissions::from_mode(0o711);
        fs::set_permissions(&directory.path, mode).map_err(error(&directory.path))?;
        for folder in [directory.data(), directory.socket()] {
            fs::create_dir(&folder).map_err(error(&folder))?;
            fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(error(&folder))?;
            if let Some(Account { uid, gid }) = account {
                std::os::unix::fs::chown(&folder, Some(uid.as_raw()), Some(gid.as_raw()))
                    .map_err(error(&folder))?;
            }
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn open_log(&self) -> Result<File, Error> {
        let path = self.log();
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| Error::Directory { path, source })
    }

    /// Returns the end of the log after the given byte.
    pub(super) fn log_tail(&self, from_byte: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(from_byte))?;
            log.read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => tail(&bytes),
            Err(error) => format!("(it cannot be read: {error})"),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The children of a killed postmaster may still write for a moment.
        for _ in 0..40 {
            if remove(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Deletes the directories whose owners are gone. Failures are left for the next sweep.
fn sweep() {
    for entry in fs::read_dir(PLACE).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            // Any user can create directories here, so directories of other users are never opened
            // or followed.
            && entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw());
        if ours
            && let Ok(owner) = File::open(entry.path().join(OWNER))
            && owner.try_lock().is_ok()
        {
            drop(remove(&entry.path()));
        }
    }
}

/// Deletes the owner's file last, because a sweep ignores directories without this file.
fn remove(path: &Path) -> io::Result<()> {
    for folder in ["data", "socket"] {
        match fs::remove_dir_all(path.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir_all(path)
}

/// Returns the last few kilobytes, from the start of a line.
pub(super) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    let cut = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES_MAX));
    match text.get(cut..).unwrap_or_default() {
        whole if cut == 0 => whole.to_owned(),
        part => part.split_once('\n').map_or(part, |(_, lines)| lines).to_owned(),
    }
}
