//! RTSP against others: ffmpeg and GStreamer, every access unit compared with what went in.

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{
    Engine, GstServer, assert_run, clip, complaints, ffmpeg_publishes, ffmpeg_reads, free_port, gst_reads,
    klv_lengths, looping, pictures, relayed, require, serve_rtsp, sounds, trimmed, wait_for,
};

/// An engine that serves the looping clip, the output's path, and its url.
fn serving(engine: &Engine, userinfo: &str) -> (String, String) {
    serve_rtsp(engine, looping(engine), userinfo, "")
}

#[test]
fn ffmpeg_reads_every_picture_from_a_random_access_point_on() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (output, url) = serving(&engine, "");
    // It asks for UDP first, and takes the connection when it is told so.
    for transport in ["tcp", "any"] {
        let file = engine.folder().join(format!("{transport}.h264"));
        let said = ffmpeg_reads(&url, transport, 5, &file);
        assert!(!said.contains("Connection refused"), "{said}");
        assert_eq!(complaints(&file), "", "decoding what ffmpeg read over {transport}");
        assert_run("pictures", &pictures(&file), &pictures(&clip()), 4 * 25);
    }
    engine.wait(&output, "the readers to be gone", |output| output["stats"]["sessions"] == 0);
}

#[test]
fn a_user_and_password_are_proven_by_digest() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (_, url) = serving(&engine, "ann:pw@");
    let file = engine.folder().join("right.h264");
    assert_eq!(ffmpeg_reads(&url, "tcp", 2, &file), "");
    assert_run("pictures", &pictures(&file), &pictures(&clip()), 25);
    let wrong = ffmpeg_reads(&url.replace(":pw@", ":pv@"), "tcp", 2, &engine.folder().join("wrong.h264"));
    assert!(wrong.contains("401"), "{wrong}");
    assert!(engine.log().contains("gave a wrong user or password"), "{}", engine.log());
    assert!(!engine.log().contains(":pw@"), "the password is in the log");
}

#[test]
fn gstreamer_reads_pictures_and_sound() {
    require!("ffmpeg", "gst-launch-1.0");
    let engine = Engine::start();
    let (_, url) = serving(&engine, "");
    let (video, audio) = (engine.folder().join("g.h264"), engine.folder().join("g.aac"));
    let Some(peer) = gst_reads(&url, "tcp", [(&video, 250_000), (&audio, 30_000)]) else { return };
    drop(peer);
    assert_run("pictures", &trimmed(pictures(&video)), &pictures(&clip()), 4 * 25);
    assert_run("sounds", &trimmed(sounds(&audio)), &sounds(&clip()), 3 * 45);
}

#[test]
fn a_stream_is_pushed_to_gstreamer_whole() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(false) else { return };
    let engine = Engine::start();
    let input = looping(&engine);
    let output = engine.add_output(input, "out", &server.url("rec"));
    engine.wait_state(&output, "Live");
    wait_for("GStreamer to record", || (server.size("rec.h264") > 250_000).then_some(()));
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_run("pictures", &trimmed(pictures(&server.recorded("rec.h264"))), &pictures(&clip()), 4 * 25);
    assert_run("sounds", &trimmed(sounds(&server.recorded("rec.aac"))), &sounds(&clip()), 3 * 45);
}

#[test]
fn a_push_proves_its_password_and_names_a_wrong_one() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(true) else { return };
    let engine = Engine::start();
    let input = looping(&engine);
    let right = engine.add_output(input, "right", &server.url_of("user:pa%3Ass", "rec"));
    engine.wait_state(&right, "Live");
    let wrong = engine.add_output(input, "wrong", &server.url_of("user:Zebra", "rec"));
    let failed = engine.wait_state(&wrong, "Failed");
    assert!(failed.to_string().contains("refuses user and password"), "{failed:#}");
    assert!(!engine.log().contains("Zebra") && !failed.to_string().contains("Zebra"));
}

#[test]
fn a_gstreamer_server_is_pulled_over_every_transport() {
    require!("ffmpeg");
    for transport in ["tcp", "udp"] {
        let Some(server) = GstServer::start(false) else { return };
        let engine = Engine::start();
        let file = relayed(&engine, &server.url(&format!("av?transport={transport}")), 250_000);
        assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 2 * 25);
        assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 2 * 45);
    }
}

#[test]
fn a_pull_proves_its_password() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(true) else { return };
    let engine = Engine::start();
    let file = relayed(&engine, &server.url_of("user:pa%3Ass", "av"), 100_000);
    assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 25);
    let wrong = engine.add_input("wrong", &server.url_of("user:Zebra", "av"));
    let failed = engine.wait_state(&format!("/api/inputs/{wrong}"), "Failed");
    assert!(!engine.log().contains("Zebra") && !failed.to_string().contains("Zebra"));
}

#[test]
fn a_transport_stream_over_rtsp_stays_as_it_is() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(false) else { return };
    let engine = Engine::start();
    let file = relayed(&engine, &server.url("mp2t"), 100_000);
    let (got, sent) = (std::fs::read(&file).expect("a file"), std::fs::read(clip()).expect("a clip"));
    let start = sent.windows(564).position(|window| window == &got[..564]).expect("packets of the clip");
    assert_eq!(start % 188, 0);
    let same = got.len().min(sent.len() - start);
    assert!(same > 90_000 && got[..same] == sent[start..start + same], "not the bytes that were sent");
}

#[test]
fn klv_units_longer_than_a_packet_come_through() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(false) else { return };
    let engine = Engine::start();
    let file = relayed(&engine, &server.url("klv"), 600_000);
    let lengths = klv_lengths(&file);
    assert!(lengths.len() >= 10, "{lengths:?}");
    // 4 + 40 bytes behind 17, or 4 + 4000 behind 19; five more where a synchronous cell stands between
    assert!(
        lengths.iter().any(|length| *length >= 4023) && lengths.iter().any(|length| *length < 80),
        "{lengths:?}"
    );
    assert!(
        lengths.windows(5).all(|five| five.iter().filter(|length| **length > 4000).count() == 1),
        "{lengths:?}"
    );
}

#[test]
fn ffmpeg_publishes_and_what_it_gives_goes_on() {
    require!("ffmpeg");
    for transport in ["tcp", "udp"] {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("rtsp://ann:pw@:{port}/live/pub"));
        let path = format!("/api/inputs/{input}");
        let output = engine.add_output(input, "file", "file:published.ts");
        engine.wait(&path, "a port to listen on", |input| input["state"] != "Connecting");
        let url = format!("rtsp://ann:pw@127.0.0.1:{port}/live/pub");
        let mut ffmpeg = ffmpeg_publishes(&url, transport).spawn().expect("ffmpeg");
        engine.wait_state(&path, "Live");
        let sessions: Value = engine.get(&format!("{path}/sessions"));
        assert_eq!(sessions[0]["user"], "ann", "{sessions:#}");
        assert!(ffmpeg.wait().expect("ffmpeg").success());
        engine.wait(&path, "the publisher to be gone", |input| input["state"] != "Live");
        engine.order(&output, "stop");
        engine.wait_state(&output, "Idle");
        let file = engine.media().join("published.ts");
        assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 7 * 25);
        assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 7 * 45);
    }
}

#[test]
fn sessions_are_listed_limited_and_kicked() {
    require!("ffmpeg");
    let engine = Engine::start();
    let input = looping(&engine);
    let port = free_port();
    let output = engine.add_output(input, "out", &format!("rtsp://:{port}/live?max_sessions=1"));
    let url = format!("rtsp://127.0.0.1:{port}/live");
    let reader = |url: &str| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-rtsp_transport", "tcp", "-i", url, "-c", "copy", "-f", "null", "-"]);
        ffmpeg.stdin(Stdio::null()).stderr(Stdio::piped());
        ffmpeg
    };
    let mut first = reader(&url).spawn().expect("ffmpeg");
    engine.wait_state(&output, "Live");
    let sessions = engine.get(&format!("{output}/sessions"));
    let card = &sessions[0];
    assert_eq!(card["protocol"], "rtsp_listener", "{sessions:#}");
    let second = reader(&url).output().expect("ffmpeg");
    assert!(String::from_utf8_lossy(&second.stderr).contains("453"), "{second:?}");
    engine.delete(&format!("{output}/sessions/{}", card["id"]));
    assert!(first.wait().is_ok());
    wait_for("the session to be gone", || {
        let sessions = engine.get(&format!("{output}/sessions"));
        sessions.as_array().is_some_and(Vec::is_empty).then_some(())
    });
}
