//! MP4 files: what ffmpeg makes of them is what the source held, picture by picture, wherever a file begins.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Engine, free_port, require, testdata, wait_for};

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

/// Four seconds of pictures of this codec and size, and sound, in a file that has its parameter sets in its head only.
fn clip(folder: &Path, name: &str, coded: &str) -> PathBuf {
    let file = folder.join(name);
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi"])
        .args(["-i", "sine=sample_rate=48000", "-t", "4", "-pix_fmt", "yuv420p", "-g", "25"])
        .args(coded.split_whitespace())
        .arg(&file)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("ffmpeg").success(), "{name}");
    file
}

fn publish(file: &Path, url: &str) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-re", "-i"])
        .arg(file)
        .args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", url])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("ffmpeg").success(), "{}", file.display());
}

/// What ffprobe says of a file, `key=value` in each line.
fn probed(file: &Path, what: &str) -> String {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-of", "default=nokey=0:noprint_wrappers=1", "-show_entries", what]);
    let output = ffprobe.arg(file).output().expect("ffprobe");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_publisher_of_another_size_or_codec_begins_another_file() {
    require!("ffmpeg", "ffprobe");
    let engine = Engine::start();
    // It is made when the first file is.
    std::fs::remove_dir(engine.media()).expect("an empty folder");
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let input = engine.add_input("in", &format!("rtsp://:{port}/cam"));
    let output = engine.add_output(input, "out", "file:out.mp4");
    engine.wait(&format!("/api/inputs/{input}"), "a port", |input| input["state"] != "Connecting");
    let sound = "-c:a mp2 -b:a 128k";
    let mut all = Vec::new();
    for (name, coded, width) in [
        ("small.mp4", "-c:v libx264 -bf 2", "width=320"),
        ("large.mp4", "-c:v libx264 -bf 2 -vf scale=640:360", "width=640"),
        ("hevc.mp4", "-c:v libx265 -x265-params log-level=none -vf scale=480:270", "width=480"),
    ] {
        let before = files_if_any(&engine.media());
        let source = clip(folder.path(), name, &format!("{coded} {sound}"));
        publish(&source, &format!("rtsp://127.0.0.1:{port}/cam"));
        engine.wait(&format!("/api/inputs/{input}"), "the end", |input| input["state"] != "Live");
        let made = wait_for("another file", || {
            files_if_any(&engine.media()).into_iter().find(|file| !before.contains(file))
        });
        all.push((name, width, source, made));
    }
    // The last ones leave then, at the latest.
    engine.order(&output, "stop");
    for (name, width, source, made) in all {
        let found = wait_for("its pictures", || Some(pictures(&made)).filter(|found| found.len() == 100));
        assert_eq!(found, pictures(&source), "{name}");
        let said = probed(&made, "stream=codec_name,width:format=start_time");
        // MPEG-1 audio has one object type for all layers, and ffprobe names it by the third.
        assert!(said.contains(width) && said.contains("codec_name=mp"), "{name}: {said}");
        let start = said.lines().find_map(|line| line.strip_prefix("start_time=")).expect("a time");
        assert!(start.parse::<f64>().is_ok_and(|start| (0.0..1.0).contains(&start)), "{name}: {said}");
    }
}

fn files_if_any(folder: &Path) -> Vec<PathBuf> {
    if folder.is_dir() { files(folder) } else { Vec::new() }
}

#[test]
fn a_file_holds_the_last_picture_of_its_source() {
    require!("ffmpeg");
    let engine = Engine::start();
    let name = "h264_async.ts";
    std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a copy");
    let source = pictures(&testdata("ts").join(name));
    let input = engine.add_input("in", &format!("file:{name}?loop=false"));
    let output = engine.add_output(input, "out", "file:out.mp4");
    engine.wait(&output, "fragments", |o| o["stats"]["datagrams"].as_u64() > Some(2));
    engine.wait(&format!("/api/inputs/{input}"), "the end", |input| input["state"] != "Live");
    engine.order(&output, "stop");
    let file = engine.media().join("out.mp4");
    let found =
        wait_for("the last picture", || Some(pictures(&file)).filter(|found| found.last() == source.last()));
    assert_follows(&found, &source, name);
}

#[test]
fn what_an_output_leaves_out_of_a_publisher_is_said() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let input = engine.add_input("in", &format!("rtsp://:{port}/cam"));
    let datagrams = format!("udp://127.0.0.1:{}", free_port());
    let rtmp = format!("rtmp://127.0.0.1:{}/live/key", free_port());
    let [ts, mp4, udp, rtmp] =
        ["file:a.ts", "file:a.mp4", &datagrams, &rtmp].map(|url| engine.add_output(input, url, url));
    engine.wait(&format!("/api/inputs/{input}"), "a port", |input| input["state"] != "Connecting");
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let dropped = |output: &str, codec: &str| {
        let found = engine.wait(output, "what is left out", |output| {
            output["dropped_tracks"].as_array().is_some_and(|tracks| !tracks.is_empty())
        });
        assert_eq!(found["dropped_tracks"][0]["codec"], codec, "{found:#}");
    };
    publish(&clip(folder.path(), "g711.mov", "-c:v libx264 -c:a pcm_alaw -ar 8000 -ac 1"), &url);
    [&ts, &mp4, &udp].into_iter().for_each(|output| dropped(output, "G.711 A-law"));
    publish(&clip(folder.path(), "mp2.mp4", "-c:v libx264 -c:a mp2"), &url);
    dropped(&rtmp, "MPEG audio");
    for output in [&ts, &mp4, &udp] {
        engine
            .wait(output, "nothing left out", |o| o["dropped_tracks"].as_array().is_some_and(Vec::is_empty));
    }
    publish(&clip(folder.path(), "sound.mov", "-vn -c:a pcm_alaw -ar 8000 -ac 1"), &url);
    for output in [&ts, &mp4, &udp] {
        engine.wait(output, "to be told", |output| {
            output["reason"].as_str().is_some_and(|reason| reason.starts_with("Unsupported: "))
        });
    }
}
