use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid};

use super::Error;

/// The user that runs the server if this process is root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

/// Returns an unprivileged user, or `None` if this process is not root.
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
    /// Makes a command run as this user. The standard library also drops the supplementary groups.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }
}
