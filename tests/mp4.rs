//! MP4 files: what ffmpeg makes of them is what the source held, picture by picture, wherever a file begins.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Engine, require, testdata, wait_for};

/// SHA-256 of every picture that ffmpeg decodes, in order; it must not complain.
fn pictures(file: &Path) -> Vec<String> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-i"]).arg(file);
    let output = ffmpeg.args(["-map", "0:v:0", "-f", "framehash", "-"]).output().expect("ffmpeg");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", file.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hash = |line: &str| line.rsplit(',').next().map(|hash| hash.trim().to_owned());
    text.lines().filter(|line| !line.starts_with('#')).filter_map(hash).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "mp4")).collect();
    files.sort();
    files
}

/// The pictures of `part` follow each other somewhere in the loop of `whole`.
fn assert_follows(part: &[String], whole: &[String], what: &str) {
    let start = |at: &usize| (0..part.len()).all(|i| part[i] == whole[(at + i) % whole.len()]);
    assert!(
        (0..whole.len()).any(|at| start(&at)),
        "{what}: {} pictures are not those of the source",
        part.len()
    );
}

#[test]
fn an_mp4_file_holds_the_pictures_of_its_source() {
    require!("ffmpeg");
    for name in ["h264_async.ts", "h265_sync.ts"] {
        let engine = Engine::start();
        std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a copy");
        let source = pictures(&testdata("ts").join(name));
        let input = engine.add_input("in", &format!("file:{name}"));
        let output = engine.add_output(input, "out", "file:out.mp4");
        engine.wait(&output, "fragments", |o| o["stats"]["datagrams"].as_u64() > Some(8));
        engine.order(&output, "stop");
        let file = engine.media().join("out.mp4");
        let found = wait_for("the whole file", || Some(pictures(&file)).filter(|found| found.len() > 20));
        assert_follows(&found, &source, name);
    }
}

#[test]
fn every_file_of_a_rotation_can_be_played() {
    require!("ffmpeg");
    let engine = Engine::start();
    let name = "h264_async.ts";
    std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a copy");
    let source = pictures(&testdata("ts").join(name));
    let input = engine.add_input("in", &format!("file:{name}"));
    let output = engine.add_output(input, "out", "file:out.mp4?rotate_s=2");
    wait_for("four files", || (files(&engine.media()).len() >= 4).then_some(()));
    engine.order(&output, "stop");
    for file in &files(&engine.media())[..3] {
        assert_follows(&pictures(file), &source, &file.display().to_string());
    }
}

#[test]
fn what_an_mp4_file_cannot_hold_is_said() {
    let engine = Engine::start();
    let input = engine.add_input("in", "udp://127.0.0.1:5999");
    let body = serde_json::json!({"name": "out", "url": "file:out.mp4?klv=strip"});
    let (status, answer) = engine.call("POST", &format!("/api/inputs/{input}/outputs"), Some(&body));
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("transport streams"), "{answer}");
}
