//! Programs of others.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running program, killed on drop: a test that fails leaves nothing behind.
pub(crate) struct Peer(Child);

impl Peer {
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// `None` when it cannot be started or its first line is another one.
    pub(crate) fn that_says(command: &mut Command, first_line: &str) -> Option<Self> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut peer = Self(quiet.spawn().ok()?);
        let mut line = String::new();
        BufReader::new(peer.0.stdout.take()?).read_line(&mut line).ok()?;
        (line.trim() == first_line).then_some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
