//! Lists the files of `functions` and `checks`: a new function or invariant is a new file, nothing
//! more.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let list = PathBuf::from(env::var("OUT_DIR")?);
    for (folder, kind) in [("functions", "Function"), ("checks", "Check")] {
        println!("cargo::rerun-if-changed={folder}");
        let mut files = Vec::new();
        find(&root.join(folder), &mut files)?;
        files.sort();
        let entries =
            files.iter().map(|(name, path)| format!("{kind}::new({name:?}, include_str!({path:?}))"));
        let entries = entries.collect::<Vec<_>>().join(",\n");
        fs::write(list.join(folder), format!("[{entries}]"))?;
    }
    Ok(())
}

/// The name and path of each file below a folder.
fn find(folder: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.file_stem().and_then(|name| name.to_str()) {
            _ if path.is_dir() => find(&path, files)?,
            Some(name) => files.push((name.to_owned(), path)),
            None => return Err(format!("{}: found no name in UTF-8", path.display()).into()),
        }
    }
    Ok(())
}
