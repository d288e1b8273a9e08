//! The engine under test: the real binary, on ports and in a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::api::Api;

/// `millrace run`, killed on drop; when the test failed, its log is printed.
pub(crate) struct Engine {
    child: Child,
    api: Api,
    folder: TempDir,
}

impl Engine {
    /// Starts it with nothing configured and waits until it is healthy.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same, with more lines of configuration.
    pub(crate) fn with(configuration: &str) -> Self {
        Self::try_with(configuration).unwrap_or_else(|log| panic!("the engine did not start:\n{log}"))
    }

    /// Its log, if it ends before it is healthy.
    pub(crate) fn try_with(configuration: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let listen = format!("127.0.0.1:{}", super::free_port());
        std::fs::create_dir(folder.path().join(MEDIA)).expect("a folder");
        let file = folder.path().join("millrace.yaml");
        std::fs::write(&file, format!("{}{configuration}", base(&listen, folder.path()))).expect("a file");
        let log = File::create(folder.path().join(LOG)).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("millrace");
        let mut engine = Self { child, api: Api::new(&listen), folder };
        let healthy = super::wait_for("the engine to be healthy", || {
            if engine.child.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            engine.api.is_healthy().then_some(true)
        });
        if healthy { Ok(engine) } else { Err(engine.log()) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its working and data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where relative `file:` urls start.
    pub(crate) fn media(&self) -> PathBuf {
        self.folder.path().join(MEDIA)
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks it to end, as an operator does, and waits for it.
    pub(crate) fn terminate(self) -> (ExitStatus, String) {
        self.end(Signal::TERM)
    }

    /// The same with another signal, such as that of Ctrl-C.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a process");
        let status = super::wait_for("the engine to end", || self.child.try_wait().expect("a child"));
        (status, self.log())
    }
}

impl std::ops::Deref for Engine {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of the engine ---\n{}", self.log());
        }
    }
}

/// What every configuration of a test needs: a port and a folder of its own. Engines of other tests run at the
/// same time, so no thread stays on one core.
fn base(listen: &str, folder: &Path) -> String {
    let api = format!("api: {{listen: \"{listen}\"}}\nmetrics: {{listen: \"{METRICS}\"}}\n");
    format!("{api}data_dir: {}\npin_shards: false\n", folder.display())
}

/// Tests run at the same time, and one that wants the figures reads from the log where they are.
const METRICS: &str = "127.0.0.1:0";
const LOG: &str = "millrace.log";
/// The default of `media_roots`.
const MEDIA: &str = "media";
