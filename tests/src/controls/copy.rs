//! A copy of the source that may be broken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Control, Error, Tags};

/// A copy of what git would commit, as it stands in the working tree.
#[derive(Debug)]
pub struct SourceCopy {
    path: PathBuf,
    tags: Tags,
}

impl SourceCopy {
    /// Makes `path` equal to the tree at `root`. What is equal already is left alone, so that cargo
    /// does not build it again.
    ///
    /// # Errors
    /// Where git does not know the tree, or a file cannot be copied.
    pub fn new(root: &Path, path: PathBuf) -> Result<SourceCopy, Error> {
        let mut kept = BTreeSet::new();
        let names = names(root)?;
        for name in &names {
            let (from, to) = (root.join(name), path.join(name));
            let wanted = fs::read(&from).map_err(|error| Error::file("read", &from, error))?;
            if fs::read(&to).ok().as_ref() != Some(&wanted) {
                write(&to, &wanted)?;
            }
            kept.insert(to);
        }
        remove_others(&path, &kept)?;
        let tags = Tags::read(&path, &names)?;
        Ok(SourceCopy { path, tags })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tags of its sources.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// Takes the rule away until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`], or where the file cannot be written.
    pub fn without(&self, control: &Control) -> Result<Broken, Error> {
        let tag = control.place(&self.tags)?;
        let path = self.path.join(&tag.file);
        let whole = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, error))?;
        write(&path, control.apply(tag, &whole)?.as_bytes())?;
        Ok(Broken { path, whole })
    }
}

/// A file of the copy without its rule.
#[derive(Debug)]
pub struct Broken {
    path: PathBuf,
    whole: String,
}

impl Drop for Broken {
    fn drop(&mut self) {
        // Else the next start finds the difference.
        drop(fs::write(&self.path, &self.whole));
    }
}

/// The files below `root` that git would commit, by their paths from there.
///
/// # Errors
/// Where git does not know the tree.
pub fn names(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| Error::file("run git in", root, error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Program { program: "git", status: output.status.to_string(), said });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    // Not what is deleted and not yet committed so, and no link out of the tree.
    Ok(names.filter(|name| root.join(name).is_file()).collect())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, error))?;
    }
    fs::write(path, bytes).map_err(|error| Error::file("write", path, error))
}

/// A file that is gone from the tree must not be built from the copy.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(|error| Error::file("read", folder, error))? {
        let path = entry.map_err(|error| Error::file("read", folder, error))?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path).map_err(|error| Error::file("remove", &path, error))?;
        }
    }
    Ok(())
}
