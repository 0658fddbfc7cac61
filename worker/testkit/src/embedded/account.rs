use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid};

use super::Error;

/// Whom the server runs as when we are root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

/// The unprivileged user to become, or `None` when we are one already.
pub(super) fn unprivileged() -> Result<Option<Account>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(Account { uid: user.uid, gid: user.gid }))
        .ok_or(Error::NoAccount)
}

impl Account {
    /// Runs a command as this user; the standard library drops the supplementary groups too.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }

    /// The same for [`super::ChildArgs`].
    pub(super) fn flags(self) -> [String; 4] {
        ["--uid".into(), self.uid.to_string(), "--gid".into(), self.gid.to_string()]
    }
}
