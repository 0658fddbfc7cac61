use std::path::PathBuf;

/// Settings of a private [`super::Server`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory with `initdb` and `postgres`; `None` searches for it, see
    /// [`super::find_binaries`].
    pub binaries: Option<PathBuf>,
    /// Whether commits survive a crash of the machine. If off, the server is faster, but
    /// measurements of durability and speed are meaningless.
    pub fsync: bool,
    /// Further settings, such as `("max_connections", "300")`. They override the defaults of this
    /// module.
    pub settings: Vec<(String, String)>,
    /// Also listen on this port of 127.0.0.1, **without a password**: every user of the machine can
    /// connect. `None` uses only a Unix socket, which only root and the user that starts the server
    /// can open.
    pub tcp_port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { binaries: None, fsync: true, settings: Vec::new(), tcp_port: None }
    }
}
