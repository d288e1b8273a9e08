//! Every kind of input with every kind of output: pictures with B-frames and sound go in, and what comes out at each
//! far end is all of it, at its times, and can be decoded.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::{
    End, Engine, LATENCY, Media, Nginx, Receiver, Taker, Tool, free_port, from_random_access, long_clip,
    require, wait_for_or,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// A transport stream in datagrams.
    Udp,
    Rtp,
    Srt,
    /// Pulled, each track by itself.
    Rtsp,
    /// Pulled, as a transport stream.
    RtspTs,
    /// Published.
    Rtmp,
    File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Udp,
    Rtp,
    Srt,
    RtspPush,
    RtspServe,
    RtmpPush,
    TsFile,
    Mp4File,
}

/// Where an output is heard, and written to a file.
enum FarEnd {
    Datagrams(Receiver),
    Srt(Taker),
    /// Written by nginx, or by the engine under test itself.
    File(PathBuf),
    /// Written by another engine: the path of its output, and the file.
    Engine(String, PathBuf),
}

struct Pairing {
    input: Input,
    output: Output,
    /// Of the output.
    path: String,
    end: FarEnd,
}

/// The engine under test between those who feed it and those who hear it.
struct Stage {
    /// Plays the clip to the inputs.
    near: Engine,
    tested: Engine,
    /// Hears what has no other peer that keeps all times.
    far: Engine,
    nginx: Nginx,
}

const INPUTS: [Input; 7] =
    [Input::Udp, Input::Rtp, Input::Srt, Input::Rtsp, Input::RtspTs, Input::Rtmp, Input::File];

const OUTPUTS: [Output; 8] = [
    Output::Udp,
    Output::Rtp,
    Output::Srt,
    Output::RtspPush,
    Output::RtspServe,
    Output::RtmpPush,
    Output::TsFile,
    Output::Mp4File,
];

#[test]
fn every_input_reaches_every_output_whole() {
    require!("ffmpeg");
    let Some(nginx) = Nginx::start() else { return };
    let (folder, clip) = long_clip(SECONDS);
    // No input dials anew when the clip is over: it would be given the last second once more.
    let configuration = "reconnect: {delay_s: 1}\ninput: {stall_after_s: 60}\n";
    let [near, tested, far] = [(); 3].map(|()| Engine::with(configuration));
    let stage = Stage { near, tested, far, nginx };
    // Whoever can take the beginning shall: there is nothing to play before all are there.
    let players = [&stage.near, &stage.tested].map(|engine| {
        let player = engine.add_input("clip", "file:clip.ts?loop=false");
        engine.order(&format!("/api/inputs/{player}"), "stop");
        std::fs::copy(&clip, engine.media().join("clip.ts")).expect("a clip");
        player
    });
    let mut pairings = Vec::new();
    for input in INPUTS {
        let id = if input == Input::File { players[1] } else { stage.feed(players[0], input) };
        for output in OUTPUTS {
            let (path, end) = stage.hear(id, input, output);
            pairings.push(Pairing { input, output, path, end });
        }
    }
    stage.play(players, &pairings);

    let sent = Media::read(&clip);
    let jobs = Mutex::new(pairings.iter());
    let wrong = Mutex::new(Vec::new());
    let check = || {
        while let Some(pairing) = { jobs.lock().next() } {
            let name = pairing.name();
            let file = pairing.end.written(&folder.path().join(&name));
            let ticks = ticks(pairing.input, pairing.output);
            // The others are looked at as well: what they have in common says where to look.
            let verdict =
                std::panic::catch_unwind(|| Media::read(&file).assert_comes_of(&sent, ticks, &name));
            if verdict.is_err() {
                wrong.lock().push(name);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(check)));
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{} of {} fail as said above: {wrong:?}", wrong.len(), pairings.len());
}

impl Stage {
    /// An input of the engine under test that `player` feeds.
    fn feed(&self, player: u64, input: Input) -> u64 {
        let (near, tested, port) = (&self.near, &self.tested, free_port());
        let name = format!("{input:?}");
        let listens = |url: String| {
            let id = tested.add_input(&name, &url);
            tested.wait(&format!("/api/inputs/{id}"), "a port to listen on", |i| i["state"] != "Connecting");
            id
        };
        let plays = |url: String| near.add_output(player, &name, &url);
        let serves = |rest: &str| {
            let path = plays(format!("rtsp://:{port}/clip{rest}"));
            near.wait(&path, "a port to listen on", |output| output["state"] != "Connecting");
            tested.add_input(&name, &format!("rtsp://127.0.0.1:{port}/clip"))
        };
        match input {
            Input::Udp | Input::Rtp => {
                let scheme = if input == Input::Udp { "udp" } else { "rtp" };
                let id = listens(format!("{scheme}://127.0.0.1:{port}"));
                plays(format!("{scheme}://127.0.0.1:{port}"));
                id
            }
            Input::Srt => {
                let id = listens(format!("srt://127.0.0.1:{port}?mode=listener&latency={LATENCY}"));
                plays(format!("srt://127.0.0.1:{port}?latency={LATENCY}"));
                id
            }
            Input::Rtsp => serves(""),
            Input::RtspTs => serves("?payload=mp2t"),
            Input::Rtmp => {
                let id = listens(format!("rtmp://127.0.0.1:{port}/live/clip?mode=listener"));
                plays(format!("rtmp://127.0.0.1:{port}/live/clip"));
                id
            }
            Input::File => unreachable!("it plays by itself"),
        }
    }

    /// An output of this input, its path, and where it is heard.
    fn hear(&self, id: u64, input: Input, output: Output) -> (String, FarEnd) {
        let (tested, far, port) = (&self.tested, &self.far, free_port());
        let name = format!("{input:?}-{output:?}");
        let adds = |url: &str| tested.add_output(id, &name, url);
        let recorded = |url: String| {
            let heard = far.add_input(&name, &url);
            let output = far.add_output(heard, "file", &format!("file:{name}.ts"));
            FarEnd::Engine(output, far.media().join(format!("{name}.ts")))
        };
        match output {
            Output::Udp | Output::Rtp => {
                let heard = if output == Output::Udp { Receiver::new() } else { Receiver::rtp() };
                (adds(&heard.url()), FarEnd::Datagrams(heard))
            }
            Output::Srt => {
                let taker = Tool::Ffmpeg.take(&End::listener((Ipv4Addr::LOCALHOST, port).into()));
                (adds(&format!("srt://127.0.0.1:{port}?latency={LATENCY}")), FarEnd::Srt(taker))
            }
            Output::RtspPush => {
                let end = recorded(format!("rtsp://:{port}/{name}"));
                (adds(&format!("rtsp://127.0.0.1:{port}/{name}")), end)
            }
            Output::RtspServe => {
                let path = adds(&format!("rtsp://:{port}/{name}"));
                tested.wait(&path, "a port to listen on", |output| output["state"] != "Connecting");
                (path, recorded(format!("rtsp://127.0.0.1:{port}/{name}")))
            }
            Output::RtmpPush => (adds(&self.nginx.url(&name)), FarEnd::File(self.nginx.recorded(&name))),
            Output::TsFile | Output::Mp4File => {
                let file = format!("{name}.{}", if output == Output::TsFile { "ts" } else { "mp4" });
                (adds(&format!("file:{file}")), FarEnd::File(tested.media().join(file)))
            }
        }
    }

    /// Plays the clip, and returns when everything that came of it is written.
    fn play(&self, players: [u64; 2], pairings: &[Pairing]) {
        let [near, tested] = players.map(|player| format!("/api/inputs/{player}"));
        self.near.order(&near, "start");
        self.tested.order(&tested, "start");
        let mut silent: Vec<&Pairing> = pairings.iter().collect();
        let heard = wait_for_or("every far end to hear something", || {
            silent.retain(|pairing| pairing.end.size() < BEGUN);
            silent.is_empty().then_some(())
        });
        if let Err(why) = heard {
            let said = silent.iter().map(|p| format!("\n{}: {}", p.name(), self.tested.get(&p.path)));
            panic!("{why}, but for {} of {}:{}", silent.len(), pairings.len(), said.collect::<String>());
        }
        self.near.wait_state(&near, "Idle");
        // An output that serves says that nobody reads when its input is there and gives nothing.
        let mut inputs: Vec<Quiet> =
            self.tested.get("/api/inputs").as_array().map_or_else(Vec::new, |inputs| {
                inputs.iter().map(|input| Quiet::new(format!("/api/inputs/{}", input["id"]))).collect()
            });
        let all = wait_for_or("all of the clip to have come", || {
            inputs.retain_mut(|input| {
                let bytes = self.tested.get(&input.name)["stats"]["bytes"].as_u64();
                let quiet = input.is_quiet(bytes.unwrap_or_default(), Duration::from_secs(1));
                if quiet {
                    self.tested.order(&input.name, "stop");
                }
                !quiet
            });
            inputs.is_empty().then_some(())
        });
        all.unwrap_or_else(|why| panic!("{why} to {:?}", inputs.iter().map(|i| &i.name).collect::<Vec<_>>()));
        let mut ends: Vec<Quiet> = pairings.iter().map(|pairing| Quiet::new(pairing.name())).collect();
        let all = wait_for_or("the far ends to be silent", || {
            let quiet =
                |(pairing, end): (&Pairing, &mut Quiet)| end.is_quiet(pairing.end.size() as u64, SILENCE);
            pairings.iter().zip(&mut ends).map(quiet).fold(true, |all, quiet| all & quiet).then_some(())
        });
        all.unwrap_or_else(|why| {
            panic!("{why}: {:?}", ends.iter().map(|e| (&e.name, e.since.elapsed())).collect::<Vec<_>>())
        });
        for pairing in pairings {
            if let FarEnd::Engine(output, _) = &pairing.end {
                self.far.order(output, "stop");
                self.far.wait_state(output, "Idle");
            }
            self.tested.order(&pairing.path, "stop");
            self.tested.wait_state(&pairing.path, "Idle");
        }
    }
}

/// Something that grows until it is quiet.
struct Quiet {
    name: String,
    size: u64,
    since: Instant,
}

impl Quiet {
    fn new(name: String) -> Self {
        Self { name, size: 0, since: Instant::now() }
    }

    /// Whether it has had this size for so long.
    fn is_quiet(&mut self, size: u64, long: Duration) -> bool {
        if size != self.size {
            (self.size, self.since) = (size, Instant::now());
        }
        self.since.elapsed() > long
    }
}

impl Pairing {
    fn name(&self) -> String {
        format!("{:?}-{:?}", self.input, self.output)
    }
}

impl FarEnd {
    /// How many bytes have come so far.
    fn size(&self) -> usize {
        match self {
            Self::Datagrams(receiver) => receiver.count() * 1316,
            Self::Srt(taker) => taker.bytes().len(),
            Self::File(file) | Self::Engine(_, file) => {
                std::fs::metadata(file).map_or(0, |f| f.len() as usize)
            }
        }
    }

    /// The file, written to `path` if there is none yet.
    fn written(&self, path: &Path) -> PathBuf {
        let bytes = match self {
            Self::File(file) | Self::Engine(_, file) => return file.clone(),
            Self::Datagrams(receiver) => receiver.bytes(),
            Self::Srt(taker) => taker.bytes(),
        };
        std::fs::write(path, from_random_access(&bytes)).expect("a file");
        path.to_owned()
    }
}

/// The coarsest clock that pictures and sound go through: milliseconds of RTMP, samples of sound over RTSP, and the 90
/// kHz of all others.
fn ticks(input: Input, output: Output) -> [f64; 2] {
    if input == Input::Rtmp || output == Output::RtmpPush {
        return [1e-3; 2];
    }
    let rtsp = input == Input::Rtsp || matches!(output, Output::RtspPush | Output::RtspServe);
    [1.0 / 90e3, if rtsp { 1.0 / 48e3 } else { 1.0 / 90e3 }]
}

/// How long the clip is: most of it must be left when the last far end has found its peer.
const SECONDS: u32 = 20;
/// So long nothing comes behind the end: more than what any output or its peer holds back.
const SILENCE: Duration = Duration::from_secs(4);
/// Bytes of a far end that works: a second or so, for an MP4 file grows by as much.
const BEGUN: usize = 50_000;
