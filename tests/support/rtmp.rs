//! Peers that speak RTMP: nginx with its rtmp module, ffmpeg, and what they recorded, looked at unit by unit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Engine, free_port};

/// nginx as an RTMP server that records what is published to the application `live`, killed on drop.
pub(crate) struct Nginx {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Nginx {
    /// `None` and a visible skip where the module is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !super::peers(&["nginx"]) {
            return None;
        }
        if !Path::new(MODULE).exists() {
            super::skipped("libnginx-mod-rtmp is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("recorded")).expect("a folder");
        let port = free_port();
        let here = folder.path().display();
        let configuration = format!(
            "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/log info;\n\
             events {{ worker_connections 512; }}\n\
             rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{\n\
             live on; record all; record_path {here}/recorded; record_append on; wait_key on; wait_video on; }} }} }}\n"
        );
        std::fs::write(folder.path().join("conf"), configuration).expect("a file");
        let child = Self::spawn(folder.path(), port);
        Some(Self { child, folder, port })
    }

    /// The url of a stream.
    pub(crate) fn url(&self, key: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{key}", self.port)
    }

    /// What was recorded of a stream.
    pub(crate) fn recorded(&self, key: &str) -> PathBuf {
        self.folder.path().join("recorded").join(format!("{key}.flv"))
    }

    /// How much that is by now.
    pub(crate) fn size(&self, key: &str) -> u64 {
        std::fs::metadata(self.recorded(key)).map_or(0, |file| file.len())
    }

    /// Ends it, and everything that was recorded.
    pub(crate) fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(self.folder.path(), self.port);
    }

    /// Lets it read nothing, or go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).expect("nginx");
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let child = Command::new("nginx")
            .args(["-c", "conf", "-e", "log", "-p"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx");
        super::wait_for("nginx to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        child
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- log of nginx ---\n{log}");
        }
    }
}

/// Eight seconds of H.264 with B-frames, a key frame each second, and AAC, as a transport stream.
pub(crate) fn clip() -> PathBuf {
    static CLIP: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    CLIP.get_or_init(|| encode("sine=sample_rate=48000", 8)).1.clone()
}

/// So many seconds of the same in a folder of their own, no sound like another.
pub(crate) fn long_clip(seconds: u32) -> (TempDir, PathBuf) {
    encode("anoisesrc=sample_rate=48000:amplitude=0.3:seed=1", seconds)
}

fn encode(sound: &str, seconds: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clip.ts");
    let coded = "-c:v libx264 -preset veryfast -bf 2 -g 25 -keyint_min 25 -sc_threshold 0 -b:v 400k \
                 -pix_fmt yuv420p -c:a aac -b:a 64k -ac 2 -f mpegts";
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi"])
        .args(["-i", sound, "-t", &seconds.to_string()])
        .args(coded.split_whitespace())
        .arg(&path)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("ffmpeg").success());
    (folder, path)
}

/// An input that plays the clip again and again.
pub(crate) fn looping(engine: &Engine) -> u64 {
    std::fs::copy(clip(), engine.media().join("clip.ts")).expect("a clip");
    engine.add_input("clip", "file:clip.ts?loop=true")
}

/// Everything that a decoder complains about in a file.
pub(crate) fn complaints(file: &Path) -> String {
    let decode = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-f", "null", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg");
    String::from_utf8_lossy(&decode.stderr).into_owned()
}

/// The NAL units of the H.264 track, without delimiters, filler and parameter sets.
pub(crate) fn pictures(file: &Path) -> Vec<Vec<u8>> {
    nal_units(&track(file, &["-map", "0:v:0", "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-f", "h264"]))
}

/// The AAC access units of the audio track.
pub(crate) fn sounds(file: &Path) -> Vec<Vec<u8>> {
    adts_units(&track(file, &["-map", "0:a:0", "-c", "copy", "-f", "adts"]))
}

/// NAL units behind start codes, without delimiters, filler and parameter sets.
pub(super) fn nal_units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i).collect();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(stream.len());
        let unit = stream[start + 3..end].to_vec();
        let trimmed = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        units.push(unit[..trimmed].to_vec());
    }
    units.retain(|unit| unit.first().is_some_and(|byte| !matches!(byte & 0x1F, 7 | 8 | 9 | 12)));
    units
}

/// What ADTS headers stand in front of.
pub(super) fn adts_units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    let mut rest = stream;
    while let [0xFF, _, _, h, m, l, _, ..] = *rest {
        let length = usize::from(h & 3) << 11 | usize::from(m) << 3 | usize::from(l >> 5);
        // The last one may be cut.
        let Some((unit, behind)) = rest.split_at_checked(length) else { break };
        units.push(unit[7..].to_vec());
        rest = behind;
    }
    units
}

/// Without what was being written when the peer was stopped.
pub(crate) fn trimmed(mut units: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    units.truncate(units.len().saturating_sub(2));
    units
}

/// Asserts that `got` is a run of `sent`, which may be repeated, without a gap; where in `sent` it begins.
pub(crate) fn assert_run(what: &str, got: &[Vec<u8>], sent: &[Vec<u8>], least: usize) -> usize {
    assert!(got.len() >= least, "{what}: {} units of {least} at least", got.len());
    let first = &got[..got.len().min(4)];
    let twice = [sent, sent].concat();
    let start = twice.windows(first.len()).position(|window| window == first);
    let start = start.unwrap_or_else(|| panic!("{what}: the beginning is none of what was sent"));
    for (index, unit) in got.iter().enumerate() {
        let want = &sent[(start + index) % sent.len()];
        assert!(unit == want, "{what}: unit {index} of {} differs", got.len());
    }
    start
}

/// What ffmpeg makes of a track.
pub(super) fn track(file: &Path, how: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(how)
        .arg("-")
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg");
    output.stdout
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
