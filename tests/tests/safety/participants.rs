//! The file of named participants, beside the secrets that it names.

use std::path::PathBuf;

use pgsaga_tests::Participant;
use pgsaga_tests::scene::Scene;
use tempfile::TempDir;

pub(crate) const OLD: &str = "whsec_b2xkIHNlY3JldCwgMzIgYnl0ZXMgbG9uZywgcmFuZG9t";
pub(crate) const NEW: &str = "whsec_bmV3IHNlY3JldCwgMzIgYnl0ZXMgbG9uZywgcmFuZG9t";

/// A file of `--participants` in a folder of its own.
pub(crate) struct Participants {
    folder: TempDir,
}

impl Participants {
    /// With these lines, and secrets in the files `old` and `new`.
    pub(crate) fn new(lines: &str) -> Participants {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("participants.toml", lines), ("old", OLD), ("new", NEW)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Participants { folder }
    }

    /// With one participant of this name, and further lines of it.
    pub(crate) fn of(name: &str, participant: &Participant, lines: &str) -> Participants {
        Participants::new(&format!("[participant.{name}]\nurl = \"{}\"\n{lines}\n", participant.url("")))
    }

    pub(crate) fn file(&self) -> String {
        self.path("participants.toml").display().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Flags of a worker that may call no internal address: it is told of another one, or the harness
/// would allow loopback.
pub(crate) const NO_LOOPBACK: [&str; 2] = ["--allow-address", "192.0.2.1"];

/// A scene with a worker that knows these participants, and may call no other internal address.
pub(crate) async fn scene_with(
    participants: impl FnOnce(&Participant) -> Participants,
) -> (Scene, Participants) {
    let mut scene = Scene::new().await;
    let participants = participants(&scene.participant);
    let file = participants.file();
    scene.start_worker(&[&NO_LOOPBACK[..], &["--participants", &file]].concat()).await;
    (scene, participants)
}
