//! One end of a connection group over a libsrt with bonding, which `LIBSRT_PREFIX` names: no package has it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The program of `bond.c`. Ends with its owner.
pub(crate) struct Bond {
    child: Child,
    folder: TempDir,
}

impl Bond {
    /// Receives over links that dial these ports, and gives what comes to a UDP port.
    pub(crate) fn receive(out: u16, passphrase: &str, ports: &[u16]) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        Self::start(&["receive", &out.to_string(), passphrase], &ports)
    }

    /// Takes what comes to a UDP port and sends it over links to these ports, each with its weight.
    pub(crate) fn send(input: u16, passphrase: &str, kind: &str, links: &[(u16, u16)]) -> Self {
        let links: Vec<String> = links.iter().map(|(port, weight)| format!("{port}:{weight}")).collect();
        Self::start(&["send", &input.to_string(), passphrase, kind], &links)
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    fn start(what: &[&str], more: &[String]) -> Self {
        let program = program().expect("libsrt with bonding, asked for before");
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join(LOG)).expect("a file");
        let child = Command::new(program)
            .args(what)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a program");
        Self { child, folder }
    }
}

impl Drop for Bond {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the group over libsrt ---\n{}", self.log());
        }
    }
}

/// Whether a libsrt with bonding and a C compiler are there; if not, the test is skipped, visibly.
pub(crate) fn bonding() -> bool {
    let there = program().is_some();
    if !there {
        super::skipped("LIBSRT_PREFIX names no libsrt with bonding, or there is no C compiler");
    }
    there
}

fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_ref()
}

fn compile() -> Option<PathBuf> {
    let prefix = PathBuf::from(std::env::var_os("LIBSRT_PREFIX")?);
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/bond.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("srt-bond");
    let mut command = Command::new("cc");
    command.args(["-O1", "-o"]).arg(&program).arg(&source);
    command.arg("-I").arg(prefix.join("include"));
    for lib in ["lib", "lib64"].map(|lib| prefix.join(lib)) {
        command.arg("-L").arg(&lib).arg(format!("-Wl,-rpath,{}", lib.display()));
    }
    let done = command.arg("-lsrt").stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success()).then_some(program)
}

const LOG: &str = "log";
