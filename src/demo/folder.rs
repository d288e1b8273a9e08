//! A folder that nobody else can read, and that leaves with its owner.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes a new one in the system's folder for temporary files.
    pub(super) fn create() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        // Taken names are no reason to give up, but a folder that refuses every name is.
        let mut refused = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("millrace-demo-{:016x}", fastrand::u64(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => refused = error,
            }
        }
        Err(io::Error::new(
            refused.kind(),
            format!("cannot make a folder in {}: {refused}", parent.display()),
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the folder for temporary files is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ATTEMPTS: u32 = 16;
