//! Programs that people sit in front of: OBS publishes from a screen that nobody sees, VLC reads and writes down what it
//! read. Every access unit is compared.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{
    Engine, LATENCY, Peer, assert_run, clip, free_port, looping, pictures, require, sounds, trimmed, wait_for,
};

/// An X server without a screen.
struct Screen {
    child: Child,
    display: String,
}

impl Screen {
    fn start() -> Self {
        let number = free_port();
        let display = format!(":{number}");
        let mut xvfb = Command::new("Xvfb");
        xvfb.arg(&display).args(["-screen", "0", "640x480x24", "-nolisten", "tcp"]);
        let quiet = xvfb.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().expect("Xvfb");
        let socket = PathBuf::from(format!("/tmp/.X11-unix/X{number}"));
        wait_for("Xvfb to listen", || socket.exists().then_some(()));
        Self { child, display }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It takes its socket and its lock away.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        drop(self.child.wait());
    }
}

/// OBS in a home of its own, playing the clip, publishing it to `server` with `key`, and recording what it publishes
/// into `home`.
fn obs(screen: &Screen, home: &Path, server: &str, key: &str) -> Peer {
    let at = |name: &str| home.join(".config/obs-studio").join(name);
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(at(name).parent().expect("a folder")).expect("a folder");
        std::fs::write(at(name), text).expect("a file");
    };
    // Versions that have been seen ask no questions.
    let seen = "FirstRun=true\nEnableAutoUpdates=false\nPre19Defaults=false\nPre21Defaults=false\n\
                Pre23Defaults=false\nPre24.1Defaults=false\nLastVersion=486539266\n";
    write("global.ini", &format!("[General]\n{seen}[BasicWindow]\nSysTrayEnabled=false\n"));
    let coded = "VBitrate=600\nABitrate=96\nStreamEncoder=x264\nUseAdvanced=true\nPreset=veryfast\n\
                 x264Settings=keyint=15\nRecQuality=Stream\nRecFormat=flv";
    let profile = format!(
        "[General]\nName=test\n[Output]\nMode=Simple\n[SimpleOutput]\n{coded}\nFilePath={}\n\
         [Video]\nBaseCX=320\nBaseCY=180\nOutputCX=320\nOutputCY=180\nFPSType=1\nFPSInt=15\n\
         [Audio]\nSampleRate=48000\n",
        home.display()
    );
    write("basic/profiles/test/basic.ini", &profile);
    let service =
        json!({"type": "rtmp_custom", "settings": {"server": server, "key": key, "use_auth": false}});
    write("basic/profiles/test/service.json", &service.to_string());
    let clip = json!({
        "id": "ffmpeg_source", "name": "Clip", "enabled": true, "mixers": 255, "volume": 1.0,
        "settings": {"is_local_file": true, "local_file": clip(), "looping": true, "hw_decode": false}
    });
    let items = json!([{"name": "Clip", "id": 1, "visible": true}]);
    let scene = json!({"id": "scene", "name": "Scene", "settings": {"id_counter": 1, "items": items}});
    let scenes = json!({
        "name": "test", "current_scene": "Scene", "current_program_scene": "Scene",
        "scene_order": [{"name": "Scene"}], "sources": [clip, scene]
    });
    write("basic/scenes/test.json", &scenes.to_string());
    let mut obs = Command::new("obs");
    obs.args(
        "--startrecording --startstreaming --minimize-to-tray --multi --collection test --profile test"
            .split(' '),
    );
    obs.env("HOME", home).env("XDG_RUNTIME_DIR", home).env_remove("XDG_CONFIG_HOME");
    obs.env("DISPLAY", &screen.display).env("QT_QPA_PLATFORM", "xcb").env("LIBGL_ALWAYS_SOFTWARE", "1");
    // It asks its makers for news: nobody is there.
    obs.env("https_proxy", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
    Peer::start(&mut obs)
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}

#[test]
fn obs_publishes_and_what_it_recorded_itself_comes_out() {
    require!("ffmpeg", "obs", "Xvfb");
    let screen = Screen::start();
    for protocol in ["rtmp", "srt"] {
        let engine = Engine::start();
        let port = free_port();
        let (ours, server, key) = match protocol {
            "rtmp" => ("/live/key?mode=listener".to_owned(), format!("rtmp://127.0.0.1:{port}/live"), "key"),
            _ => {
                let server = format!("srt://127.0.0.1:{port}?latency={}", LATENCY * 1000);
                (format!("?mode=listener&latency={LATENCY}"), server, "")
            }
        };
        let input = engine.add_input(protocol, &format!("{protocol}://127.0.0.1:{port}{ours}"));
        let output = engine.add_output(input, "file", "file:obs.ts");
        let home = tempfile::tempdir().expect("a folder");
        let obs = obs(&screen, home.path(), &server, key);
        engine.wait_state(&format!("/api/inputs/{input}"), "Live");
        let file = engine.media().join("obs.ts");
        wait_for("OBS to publish", || (size(&file) > 400_000).then_some(()));
        engine.order(&output, "stop");
        engine.wait_state(&output, "Idle");
        let (got, heard) = (trimmed(pictures(&file)), trimmed(sounds(&file)));
        let recording = || {
            let files = std::fs::read_dir(home.path()).expect("a folder").filter_map(Result::ok);
            files.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "flv"))
        };
        let recording = wait_for("OBS to record", recording);
        let behind = got.last().expect("a picture");
        wait_for("OBS to record as much", || pictures(&recording).contains(behind).then_some(()));
        let behind = heard.last().expect("a sound");
        wait_for("OBS to record as much", || sounds(&recording).contains(behind).then_some(()));
        drop(obs);
        assert_run(&format!("{protocol}: pictures"), &got, &pictures(&recording), 45);
        assert_run(&format!("{protocol}: sounds"), &heard, &sounds(&recording), 130);
    }
}

/// VLC, which writes what it reads at `url` into `file`. It does not run as root.
fn vlc(url: &str, file: &Path) -> Peer {
    let root = rustix::process::geteuid().is_root();
    let mut vlc = Command::new(if root { "setpriv" } else { "cvlc" });
    if root {
        vlc.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cvlc"]);
    }
    let sout = format!("#std{{access=file,mux=ts,dst={}}}", file.display());
    vlc.args(["-I", "dummy", "--no-dbus", url, "--sout", &sout]);
    vlc.env("HOME", file.parent().expect("a folder"));
    Peer::start(&mut vlc)
}

#[test]
fn vlc_reads_every_picture_and_sound() {
    require!("ffmpeg", "cvlc", "setpriv");
    let engine = Engine::start();
    let input = looping(&engine);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("a folder of ours");
    let [datagrams, connected] = [(); 2].map(|()| free_port());
    engine.add_output(input, "udp", &format!("udp://127.0.0.1:{datagrams}"));
    engine.add_output(input, "srt", &format!("srt://:{connected}"));
    let peers = [
        ("udp", format!("udp://@127.0.0.1:{datagrams}")),
        ("srt", format!("srt://127.0.0.1:{connected}?latency={LATENCY}")),
    ]
    .map(|(name, url)| {
        let file = folder.path().join(format!("{name}.ts"));
        (name, vlc(&url, &file), file)
    });
    for (name, vlc, file) in peers {
        wait_for(&format!("VLC to read {name}"), || (size(&file) > 400_000).then_some(()));
        drop(vlc);
        assert_run(&format!("{name}: pictures"), &trimmed(pictures(&file)), &pictures(&clip()), 75);
        assert_run(&format!("{name}: sounds"), &trimmed(sounds(&file)), &sounds(&clip()), 130);
    }
}
