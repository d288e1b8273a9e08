//! RTMP against others: nginx, ffmpeg and GStreamer, every access unit compared with what went in.

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{
    Engine, Nginx, Peer, assert_run, clip, complaints, free_port, looping, pictures, require, sounds,
    wait_for,
};

/// ffmpeg that publishes the clip once, in real time.
fn publisher(url: &str) -> Command {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-i"]).arg(clip()).args(["-c", "copy", "-f", "flv", url]);
    ffmpeg
}

/// What nginx recorded is whole: it decodes, and no unit of `seconds` is missing.
fn assert_whole(nginx: &Nginx, key: &str, seconds: usize) {
    let file = nginx.recorded(key);
    assert_eq!(complaints(&file), "", "decoding what nginx recorded");
    assert_run("pictures", &pictures(&file), &pictures(&clip()), seconds * 25);
    assert_run("sounds", &sounds(&file), &sounds(&clip()), seconds * 45);
}

fn wait_recorded(nginx: &Nginx, key: &str, more: u64) {
    let before = nginx.size(key);
    wait_for("nginx to record", || (nginx.size(key) >= before + more).then_some(()));
}

#[test]
fn a_stream_with_b_frames_and_sound_reaches_nginx_whole() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let input = looping(&engine);
    let output = engine.add_output(input, "out", &nginx.url("hunter2"));
    let live = engine.wait_state(&output, "Live");
    assert_eq!(live["url"], nginx.url("***"));
    // Six seconds at 470 kb/s, and something for the headers.
    wait_recorded(&nginx, "hunter2", 380_000);
    let answer = engine.get(&output);
    assert!(answer["stats"]["flow"]["acknowledged_bytes"].as_u64() > Some(100_000), "{answer:#}");
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_whole(&nginx, "hunter2", 5);
    assert!(!engine.log().contains("hunter2"), "the key is in the log:\n{}", engine.log());
}

#[test]
fn what_ffmpeg_publishes_goes_on_to_nginx_and_ends_cleanly() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtmp://127.0.0.1:{port}/live/secret?mode=listener"));
    let output = engine.add_output(input, "out", &nginx.url("relay"));
    let url = format!("rtmp://127.0.0.1:{port}/live/secret");
    let mut ffmpeg = publisher(&url).stdin(Stdio::null()).spawn().expect("ffmpeg");
    let path = format!("/api/inputs/{input}");
    engine.wait_state(&path, "Live");
    engine.wait_state(&output, "Live");
    let sessions = engine.get(&format!("{path}/sessions"));
    assert_eq!(sessions[0]["role"], "publish", "{sessions:#}");
    assert!(ffmpeg.wait().expect("ffmpeg").success());
    engine.wait(&output, "the input's end to show", |output| output["state"] != "Live");
    engine.order(&output, "stop");
    wait_for("the recording to end", || (nginx.size("relay") > 300_000).then_some(()));
    assert_whole(&nginx, "relay", 6);
    assert!(!engine.log().contains("secret"), "the key is in the log:\n{}", engine.log());
}

#[test]
fn who_has_not_the_key_or_the_password_is_turned_away() {
    require!("ffmpeg");
    let engine = Engine::start();
    let port = free_port();
    let at = |rest: &str| format!("rtmp://127.0.0.1:{port}/{rest}");
    engine.add_input("key", &at("live/secret?mode=listener"));
    let url = format!("rtmp://joe:pass%20word@127.0.0.1:{port}/by/name?mode=listener");
    let guarded = engine.add_input("password", &url);
    for wrong in
        ["live/Secret", "live", "by/name", "by/name?user=joe&pass=wrong", "by/name?user=jo&pass=pass%20word"]
    {
        let refused = publisher(&at(wrong)).stdin(Stdio::null()).output().expect("ffmpeg");
        assert!(!refused.status.success(), "{wrong} was let in");
    }
    let _right = Peer::start(&mut publisher(&at("by/name?user=joe&pass=pass%20word")));
    engine.wait_state(&format!("/api/inputs/{guarded}"), "Live");
}

#[test]
fn a_second_publisher_takes_over_or_is_turned_away() {
    require!("ffmpeg");
    let engine = Engine::start();
    let port = free_port();
    let at = |rest: &str| format!("rtmp://127.0.0.1:{port}/{rest}");
    let open = engine.add_input("open", &at("live/a?mode=listener"));
    let firm = engine.add_input("firm", &at("live/b?mode=listener&takeover=reject"));
    let mut firsts: Vec<_> = ["live/a", "live/b"]
        .map(|name| publisher(&at(name)).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("ffmpeg"))
        .into();
    for input in [open, firm] {
        engine.wait_state(&format!("/api/inputs/{input}"), "Live");
    }
    let _second = Peer::start(&mut publisher(&at("live/a")));
    assert!(!firsts[0].wait().expect("ffmpeg").success(), "the first publisher stays");
    let turned = publisher(&at("live/b")).stdin(Stdio::null()).output().expect("ffmpeg");
    assert!(!turned.status.success());
    assert!(firsts[1].wait().expect("ffmpeg").success(), "the first publisher is disturbed");
}

#[test]
fn a_server_that_comes_back_is_published_to_again() {
    require!("ffmpeg");
    let Some(mut nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let input = looping(&engine);
    let output = engine.add_output(input, "out", &nginx.url("again"));
    engine.patch(&output, serde_json::json!({"reconnect_delay": 1}));
    engine.wait_state(&output, "Live");
    nginx.stop();
    engine.wait(&output, "the loss to show", |output| output["state"] != "Live");
    std::fs::remove_file(nginx.recorded("again")).expect("a recording");
    nginx.restart();
    engine.wait_state(&output, "Live");
    wait_recorded(&nginx, "again", 200_000);
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_whole(&nginx, "again", 2);
}

#[test]
fn a_server_that_stands_still_harms_no_other() {
    require!("ffmpeg");
    let (Some(still), Some(well)) = (Nginx::start(), Nginx::start()) else { return };
    let engine = Engine::start();
    let input = looping(&engine);
    let stalled = engine.add_output(input, "stalled", &still.url("a"));
    let others: Vec<String> =
        (0..10).map(|i| engine.add_output(input, &format!("o{i}"), &well.url(&format!("k{i}")))).collect();
    for output in others.iter().chain([&stalled]) {
        engine.wait_state(output, "Live");
    }
    still.freeze(true);
    engine.wait(&stalled, "the standstill to show", |output| output["state"] != "Live");
    wait_recorded(&well, "k9", 400_000);
    for output in &others {
        let answer = engine.get(output);
        assert_eq!((answer["state"].as_str(), answer["stats"]["skipped"].as_u64()), (Some("Live"), Some(0)));
        engine.order(output, "stop");
        engine.wait_state(output, "Idle");
    }
    (0..10).for_each(|i| assert_whole(&well, &format!("k{i}"), 5));
    still.freeze(false);
    engine.wait_state(&stalled, "Live");
}

#[test]
fn an_engine_publishes_to_another_over_tls() {
    require!("ffmpeg", "openssl");
    let Some(nginx) = Nginx::start() else { return };
    let keys = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (keys.path().join("cert.pem"), keys.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test -keyout"
                .split(' '),
        )
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl").success());
    let digest = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&certificate)
        .output()
        .expect("openssl");
    let digest =
        String::from_utf8_lossy(&digest.stdout).trim().rsplit('=').next().unwrap_or_default().to_owned();
    let paths = format!("tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
    let (near, far) = (Engine::start(), Engine::with(&paths));
    let port = free_port();
    let taken = far.add_input("in", &format!("rtmps://127.0.0.1:{port}/live/secret?mode=listener"));
    far.add_output(taken, "on", &nginx.url("tls"));
    let input = looping(&near);
    let url = format!("rtmps://127.0.0.1:{port}/live/secret");
    let doubted = near.add_output(input, "doubted", &url);
    let doubted = near.wait(&doubted, "the certificate to be refused", |output| {
        output["reason"].as_str().is_some_and(|reason| reason.contains("TLS"))
    });
    assert_ne!(doubted["state"], "Live");
    let wrong = near.add_output(input, "wrong", &format!("{url}?tls_pin={}", "00".repeat(32)));
    let pinned = near.add_output(input, "pinned", &format!("{url}?tls_pin={}", digest.replace(':', "")));
    let live = near.wait_state(&pinned, "Live");
    assert_eq!(live["stats"]["flow"]["encrypted"], true, "{live:#}");
    wait_recorded(&nginx, "tls", 300_000);
    assert_ne!(near.get(&wrong)["state"], "Live");
    near.order(&pinned, "stop");
    near.wait_state(&pinned, "Idle");
    assert_whole(&nginx, "tls", 3);
}

#[test]
fn a_stream_is_pulled_from_nginx() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let source = looping(&engine);
    let push = engine.add_output(source, "push", &nginx.url("pulled"));
    engine.wait_state(&push, "Live");
    let pulled = engine.add_input("pulled", &nginx.url("pulled"));
    engine.wait_state(&format!("/api/inputs/{pulled}"), "Live");
    let output = engine.add_output(pulled, "back", &nginx.url("back"));
    engine.wait_state(&output, "Live");
    wait_recorded(&nginx, "back", 300_000);
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_whole(&nginx, "back", 3);
}

#[test]
fn gstreamer_publishes_with_both_of_its_sinks() {
    require!("ffmpeg", "gst-launch-1.0");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let port = free_port();
    for sink in ["rtmpsink", "rtmp2sink"] {
        let input = engine.add_input(sink, &format!("rtmp://127.0.0.1:{port}/live/{sink}?mode=listener"));
        let output = engine.add_output(input, "out", &nginx.url(sink));
        let url = format!("rtmp://127.0.0.1:{port}/live/{sink}");
        let location = if sink == "rtmpsink" { format!("{url} live=1") } else { url };
        let clip = clip();
        let line =
            format!("filesrc location={} ! tsdemux name=d ! h264parse ! queue ! m.video", clip.display());
        let line = format!("{line} d. ! aacparse ! queue ! m.audio flvmux name=m streamable=true !");
        let mut gst = Command::new("gst-launch-1.0");
        gst.arg("-q")
            .args(line.split(' '))
            .args(["clocksync", "!", sink])
            .arg(format!("location={location}"));
        let _gst = Peer::start(&mut gst);
        engine.wait_state(&format!("/api/inputs/{input}"), "Live");
        engine.wait_state(&output, "Live");
        wait_recorded(&nginx, sink, 200_000);
        engine.order(&output, "stop");
        engine.wait_state(&output, "Idle");
        assert_whole(&nginx, sink, 2);
    }
}

#[test]
fn who_stops_publishing_closes_the_connection_itself() {
    require!("ffmpeg", "gst-launch-1.0");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtmp://127.0.0.1:{port}/live/in?mode=listener"));
    let url = format!("rtmp://127.0.0.1:{port}/live/in");
    engine.wait(&format!("/api/inputs/{input}"), "a port", |input| input["state"] != "Connecting");
    let line =
        format!("filesrc location={} ! tsdemux ! h264parse ! flvmux streamable=true !", clip().display());
    let mut gst = Command::new("gst-launch-1.0");
    gst.arg("-q").args(line.split(' ')).arg("rtmp2sink").arg(format!("location={url}"));
    for (name, mut publisher) in [("GStreamer", gst), ("ffmpeg", publisher(&url))] {
        let output = publisher.stdin(Stdio::null()).output().expect(name);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert!(!said.contains("reset") && !said.contains("Broken pipe"), "{name}: {said}");
        let sessions = format!("/api/inputs/{input}/sessions");
        engine.wait(&sessions, "it to be gone", |sessions| sessions.as_array().is_some_and(Vec::is_empty));
    }
}

#[test]
fn an_input_that_returns_goes_on_over_the_same_connection() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    let port = free_port();
    let url = format!("rtmp://127.0.0.1:{port}/live/in");
    let input = engine.add_input("in", &format!("{url}?mode=listener&stall_after=1"));
    let output = engine.add_output(input, "out", &nginx.url("held"));
    let first = Peer::start(&mut publisher(&url));
    let since = |value: &Value| value["stats"]["flow"]["since_ms"].clone();
    let live = engine.wait_state(&output, "Live");
    wait_recorded(&nginx, "held", 100_000);
    drop(first);
    engine.wait_state(&output, "Starved");
    let _second = Peer::start(&mut publisher(&url));
    let again = engine.wait_state(&output, "Live");
    assert_eq!(since(&live), since(&again), "it was dialled anew");
    wait_recorded(&nginx, "held", 100_000);
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_eq!(complaints(&nginx.recorded("held")), "");
}

#[test]
fn tracks_without_a_slot_are_named_and_a_stream_of_them_alone_is_unsupported() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let engine = Engine::start();
    std::fs::copy(support::testdata("ts/h264_async.ts"), engine.media().join("klv.ts")).expect("a clip");
    let input = engine.add_input("klv", "file:klv.ts?loop=true");
    let output = engine.add_output(input, "out", &nginx.url("klv"));
    engine.wait_state(&output, "Live");
    let named = engine
        .wait(&output, "the metadata to be named", |output| output["dropped_tracks"][0]["codec"] == "KLV");
    assert_eq!(named["dropped_tracks"][0]["track"], 0x102, "{named:#}");
    wait_recorded(&nginx, "klv", 100_000);
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_eq!(complaints(&nginx.recorded("klv")), "");

    let port = free_port();
    let input = engine.add_input("alone", &format!("udp://127.0.0.1:{port}"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-stream_loop", "-1", "-re", "-i"]).arg(engine.media().join("klv.ts"));
    ffmpeg.args(["-map", "0:d", "-c", "copy", "-f", "mpegts"]).arg(format!("udp://127.0.0.1:{port}"));
    let _alone = Peer::start(&mut ffmpeg);
    let output = engine.add_output(input, "out", &nginx.url("alone"));
    let failed = engine.wait_state(&output, "Failed");
    assert!(failed["reason"].as_str().is_some_and(|why| why.starts_with("Unsupported: track")), "{failed:#}");
}
