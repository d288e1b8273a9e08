//! Tests of the folder: what the samples say, what every item says after being written and read, what damage does.

mod damage;
mod identity;
mod mapping;
mod oracle;
mod samples;
mod sets;
mod state;

use std::path::PathBuf;

/// A file of the sample packets, or `None` (said aloud) where they are not: they stand beside the checkout, in
/// `shared/samples` of one of the two folders above it, or where `KLV_SAMPLES` says.
fn sample(name: &str) -> Option<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = ["../shared/samples", "../../shared/samples"].map(|path| root.join(path));
    let asked = std::env::var_os("KLV_SAMPLES").map(PathBuf::from);
    let found = asked.into_iter().chain(beside).map(|folder| folder.join(name)).find(|path| path.is_file());
    let Some(path) = found else {
        println!("SKIPPED: no {name} in shared/samples beside the checkout, nor in $KLV_SAMPLES");
        return None;
    };
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// One of the project's own test files.
fn testdata(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
