//! What end-to-end tests share: the engine as a process, senders and receivers, network namespaces, and
//! skips that nobody overlooks.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test program uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]
#![allow(clippy::print_stderr, reason = "a test that fails shows it")]

mod api;
mod bond;
mod crowd;
mod engine;
mod flow;
mod marks;
mod media;
mod netns;
mod peer;
mod proxy;
mod rtmp;
mod rtsp;
mod srt;
mod tak;
mod udp;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

pub(crate) use api::Api;
pub(crate) use bond::{Bond, bonding};
pub(crate) use crowd::Crowd;
pub(crate) use engine::Engine;
pub(crate) use flow::{Flow, loopable};
pub(crate) use marks::{between, holds, knock, mark};
pub(crate) use media::{Media, from_random_access};
pub(crate) use netns::{Netns, connect};
pub(crate) use peer::Peer;
pub(crate) use proxy::{Path as NetworkPath, Proxy};
pub(crate) use rtmp::{Nginx, assert_run, clip, complaints, long_clip, looping, pictures, sounds, trimmed};
pub(crate) use rtsp::{
    GstServer, ffmpeg_publishes, ffmpeg_reads, gst_reads, klv_lengths, relayed, serve_rtsp,
};
pub(crate) use srt::{End, Giver, LATENCY, MediaMtx, Taker, Tool, newer_libsrt};
pub(crate) use tak::{Authority, Manner, Marti, TakServer, Told};
pub(crate) use udp::{Receiver, Sender, free_port, pace, send_paced};

/// How long anything that must happen may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Leaves the test, visibly, when a program that it needs as a peer is not installed:
/// `require!("ffmpeg", "ffprobe")`.
macro_rules! require {
    ($($program:literal),+ $(,)?) => {
        if !$crate::support::peers(&[$($program),+]) {
            return;
        }
    };
}
pub(crate) use require;

/// A Python that has this module of `stanag4609`. None, visibly, where there is none: `pip install stanag4609`, or say
/// in `ORACLE_PYTHON` which Python has it.
pub(crate) fn oracle(module: &str) -> Option<OsString> {
    let python = std::env::var_os("ORACLE_PYTHON").unwrap_or_else(|| "python3".into());
    let there =
        Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    skipped("no stanag4609; pip install stanag4609, or set ORACLE_PYTHON");
    None
}

/// What an independent verifier of STANAG 4609 (`stanag4609-verify`) finds wrong with a transport stream: rule, PID
/// and message of each error. None where there is no [`oracle`].
pub(crate) fn verified(file: &Path) -> Option<Vec<String>> {
    let python = oracle("stanag4609.verifier")?;
    let main = "import sys; from stanag4609.verifier import main; sys.exit(main())";
    let output = Command::new(python)
        .args(["-c", main, "--format", "json", "--profile", "structural"])
        .arg(file)
        .output()
        .expect("python");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().expect("findings");
    let passed = |code: &str| findings.iter().any(|one| one["code"] == code && one["status"] == "pass");
    assert!(passed("psi.pmt") && passed("fmv.klv"), "it saw no stream: {report:#}");
    // How pictures were encoded is none of ours: they leave as they came.
    let ours = |code: &str| !code.starts_with("misp.video.") && !code.starts_with("video.");
    let errors =
        findings.iter().filter(|one| one["status"] == "error" && one["code"].as_str().is_none_or(ours));
    Some(errors.map(|one| format!("{} on {}: {}", one["code"], one["pid"], one["message"])).collect())
}

/// Are these programs installed? If not, says that the test is skipped; with `REQUIRE_PEERS=1`, as in
/// CI, it fails instead.
pub(crate) fn peers(programs: &[&str]) -> bool {
    let missing = missing(programs);
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "not installed: {missing:?}");
    skipped(&format!("not installed: {missing:?}"));
    false
}

/// Which of these programs are not in `PATH`.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    programs.iter().filter(|name| !folders.iter().any(|f| f.join(name).is_file())).copied().collect()
}

/// Says that this test did not run. Written past the capture of output, which hides it when a test passes.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", thread.name().unwrap_or("test"));
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
}

/// Asks again until there is an answer, and panics with what it waited for when there is none in time.
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_for_or(what, ask).unwrap_or_else(|why| panic!("{why}"))
}

/// The same without the panic, for a caller who has more to say.
pub(crate) fn wait_for_or<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file below `testdata/`.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The name and the bytes of every stream in `testdata/ts/`.
pub(crate) fn streams() -> Vec<(String, Vec<u8>)> {
    let folder = std::fs::read_dir(testdata("ts")).expect("testdata/ts");
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.expect("testdata/ts").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    paths.iter().map(|path| (name(path).expect("a name"), std::fs::read(path).expect("a stream"))).collect()
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string grows");
        hex
    })
}
