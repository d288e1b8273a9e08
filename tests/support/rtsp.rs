//! RTSP peers: gst-rtsp-server, and readers of all kinds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::rtmp::track;
use super::{Engine, Peer, clip, free_port, skipped, wait_for, wait_for_or};

/// gst-rtsp-server, which plays and records; see `rtsp_server.py`.
pub(crate) struct GstServer {
    _child: Peer,
    port: u16,
    folder: TempDir,
}

impl GstServer {
    /// `None`, and the test is skipped, where it is not installed.
    pub(crate) fn start(digest: bool) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let port_and_clip = [port.to_string().into(), clip().into_os_string()];
        let digest = digest.then(|| "digest".into());
        let arguments = port_and_clip.into_iter().chain([folder.path().into()]).chain(digest);
        let child = script("rtsp_server.py", arguments)?;
        Some(Self { _child: child, port, folder })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{path}", self.port)
    }

    /// With a user and its password.
    pub(crate) fn url_of(&self, userinfo: &str, path: &str) -> String {
        format!("rtsp://{userinfo}@127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn recorded(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.recorded(name)).map_or(0, |file| file.len())
    }
}

/// GStreamer that reads pictures and sound of `url` over `tcp` or `udp` into two files until each has so many bytes: see
/// `rtsp_reader.py`. `None`, and the test is skipped, where it is not installed.
pub(crate) fn gst_reads(url: &str, protocols: &str, files: [(&Path, u64); 2]) -> Option<Peer> {
    let files_named = files.iter().map(|(path, _)| path.as_os_str().to_owned());
    let peer = script("rtsp_reader.py", [url.into(), protocols.into()].into_iter().chain(files_named))?;
    let sizes = || files.map(|(path, _)| std::fs::metadata(path).map_or(0, |file| file.len()));
    let all = wait_for_or("GStreamer to read", || {
        sizes().iter().zip(files).all(|(size, (_, wanted))| *size > wanted).then_some(())
    });
    all.unwrap_or_else(|why| panic!("{why}: {:?} bytes of {files:?}", sizes()));
    Some(peer)
}

/// A script of this folder that says `up` when it is; `None`, and the test is skipped, where it does not run.
fn script(name: &str, arguments: impl IntoIterator<Item = OsString>) -> Option<Peer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name);
    let peer = Peer::that_says(Command::new("/usr/bin/python3").arg(path).args(arguments), "up");
    if peer.is_none() {
        skipped("GStreamer with its Python bindings is not installed (gir1.2-gst-rtsp-server-1.0)");
    }
    peer
}

/// An output that serves an input at `/live/cam`, and its url; `userinfo` with its `@`, and what follows the path.
pub(crate) fn serve_rtsp(engine: &Engine, input: u64, userinfo: &str, rest: &str) -> (String, String) {
    let port = free_port();
    let output = engine.add_output(input, "out", &format!("rtsp://{userinfo}:{port}/live/cam{rest}"));
    engine.wait(&output, "a port to listen on", |output| output["state"] != "Connecting");
    (output, format!("rtsp://{userinfo}127.0.0.1:{port}/live/cam"))
}

/// What `url` gives to an input, as a transport stream of so many bytes at least.
pub(crate) fn relayed(engine: &Engine, url: &str, bytes: u64) -> PathBuf {
    let input = engine.add_input("in", url);
    let output = engine.add_output(input, "file", "file:relayed.ts");
    engine.wait_state(&format!("/api/inputs/{input}"), "Live");
    let file = engine.media().join("relayed.ts");
    wait_for("the relay to write", || std::fs::metadata(&file).is_ok_and(|f| f.len() > bytes).then_some(()));
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    file
}

/// Distances between the KLV packets of a stream.
pub(crate) fn klv_lengths(file: &Path) -> Vec<usize> {
    let data = track(file, &["-map", "0:d:0", "-c", "copy", "-f", "data"]);
    let label = b"\x06\x0e\x2b\x34\x02\x0b";
    let starts: Vec<usize> =
        data.windows(6).enumerate().filter(|(_, window)| window == label).map(|(at, _)| at).collect();
    starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// ffmpeg that reads for so many seconds into a file: pictures as an elementary stream where `sound` is false, both in
/// Matroska else. What it says is returned.
pub(crate) fn ffmpeg_reads(url: &str, transport: &str, seconds: u32, into: &Path) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(over(transport))
        .args(["-i", url])
        .args(["-t", &seconds.to_string(), "-map", "0:v:0", "-c", "copy", "-f", "h264"])
        .arg(into)
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `any` = as ffmpeg does it by itself: datagrams first.
fn over(transport: &str) -> Vec<&str> {
    if transport == "any" { vec![] } else { vec!["-rtsp_transport", transport] }
}

/// ffmpeg that publishes the clip once, in real time.
pub(crate) fn ffmpeg_publishes(url: &str, transport: &str) -> Command {
    // Of a transport stream it does not know what its SDP has to say of the sound.
    let known = clip().with_extension("mp4");
    if !known.exists() {
        let mut remux = Command::new("ffmpeg");
        remux.args(["-v", "error", "-y", "-i"]).arg(clip()).args(["-c", "copy"]).arg(&known);
        assert!(remux.stdin(Stdio::null()).status().expect("ffmpeg").success());
    }
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-i"]).arg(known);
    ffmpeg.args(["-c", "copy", "-f", "rtsp"]).args(over(transport)).arg(url);
    ffmpeg.stdin(Stdio::null());
    ffmpeg
}
