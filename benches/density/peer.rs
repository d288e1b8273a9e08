//! Tools that users run today: started once, connected for the whole run, fed by the same source.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::helper::Helper;
use crate::machine::Machine;
use crate::plan::{AGAINST_LO, Against, Options, PEER_GROUP};
use crate::tcp::Protocol;
use crate::{Result, mediamtx, network, nginx, srt_peer, sys};

/// Running processes of one tool. They end with their owner.
pub(crate) struct Peer {
    parts: Vec<Part>,
    /// What the tool calls itself.
    pub(crate) version: String,
    /// CPU nanoseconds that it needs for each datagram that it reads, whatever it then sends. Not counted: what an
    /// output costs is measured.
    reading: f64,
}

enum Part {
    Program(Child),
    /// What stands between the source and the tool: its CPU time is not counted.
    Feeder(Child),
    Helper(Helper),
    Engine(Engine),
}

impl Peer {
    /// Starts a tool with the outputs of a plan; `None` when it is not installed.
    pub(crate) fn start(options: &Options, machine: &Machine) -> Result<Option<Self>> {
        let Some(tool) = options.against else { return Ok(None) };
        let cpus = machine.all();
        let one = |(child, version): (Child, String)| Self::new(vec![Part::Program(child)], version);
        match (tool, &options.srt) {
            (Against::Libsrt | Against::LibsrtShared, Some(srt)) => {
                Ok(srt_peer::start_libsrt(options, srt, cpus)?.map(one))
            }
            (Against::Mediamtx, _) => Ok(mediamtx::start(options, cpus)?.map(one)),
            (Against::Nginx, _) => {
                let Some(mut peer) = nginx::start(options, cpus)?.map(one) else { return Ok(None) };
                peer.parts.push(Part::Feeder(nginx::feed(options, nginx::READS, cpus)?));
                thread::sleep(FEEDER_TIME);
                Ok(Some(peer))
            }
            (Against::SrtTokio, Some(srt)) => {
                let helper = Helper::start(&srt_peer::tokio_role(options, srt), cpus)?;
                Ok(Some(Self::new(vec![Part::Helper(helper)], "srt-tokio".into())))
            }
            (Against::Push | Against::Plain, _) => {
                let config = options.against_config()?;
                let engine = Engine::start("against", &config, options.against_api(), machine.one())?;
                Ok(Some(Self::new(vec![Part::Engine(engine)], format!("millrace, {tool}"))))
            }
            _ => Self::start_tool(options, tool, cpus),
        }
    }

    /// Makes a tool push that was started without outputs.
    pub(crate) fn push(&mut self, options: &Options, machine: &Machine) -> Result<()> {
        match options.against {
            Some(Against::Mediamtx) => mediamtx::forward(options),
            Some(Against::Nginx) => {
                self.parts.retain(|part| !matches!(part, Part::Feeder(_)));
                self.parts.push(Part::Feeder(nginx::feed(options, nginx::PUSHES, machine.all())?));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn new(parts: Vec<Part>, version: String) -> Self {
        Self { parts, version, reading: 0.0 }
    }

    fn start_tool(options: &Options, tool: Against, cpus: &[usize]) -> Result<Option<Self>> {
        let (program, ask) = match tool {
            Against::Gst => ("gst-launch-1.0", "--version"),
            _ => ("ffmpeg", "-version"),
        };
        let Ok(version) = network::call(program, ask) else { return Ok(None) };
        if tool == Against::Gst && network::call("gst-inspect-1.0", "multiudpsink").is_err() {
            return Ok(None);
        }
        let version = version.split(" Copyright").next().unwrap_or_default();
        let version = version.lines().next().unwrap_or_default().to_owned();
        let mut peer = Self::new(Vec::new(), version);
        let outputs = options.against_outputs();
        let copy = |map, format| {
            let group =
                format!("udp://{PEER_GROUP}?localaddr=127.0.0.1&reuse=1&fifo_size=20000&overrun_nonfatal=1");
            move |url: String| ffmpeg_arguments(&group, map, format, &url)
        };
        let places = 0..options.total_outputs();
        let commands: Vec<_> = match (tool, &options.srt, &options.tcp) {
            (Against::Gst, ..) => vec![gst_arguments(&outputs)],
            (_, _, Some(tcp)) => {
                let (map, format) = match tcp.protocol {
                    Protocol::Rtmp => ("-map 0", "flv"),
                    // Sound without global headers is refused.
                    _ => ("-map 0:v", "rtsp -rtsp_transport tcp"),
                };
                places.map(|place| tcp.destination(AGAINST_LO, place)).map(copy(map, format)).collect()
            }
            // ffmpeg's latency is in microseconds.
            (_, Some(srt), _) => {
                let urls = srt.urls(AGAINST_LO, "pkt_size=1316&latency", srt.latency * 1000);
                urls.take(places.len()).map(copy("-map 0", "mpegts")).collect()
            }
            _ => {
                let urls = outputs.iter().map(|to| format!("udp://{to}?pkt_size=1316"));
                urls.map(copy("-map 0", "mpegts")).collect()
            }
        };
        let log = File::create(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{program}.log")))?;
        for arguments in commands {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
            sys::bind_child(&mut command, cpus);
            peer.parts.push(Part::Program(command.spawn()?));
            thread::sleep(BETWEEN_STARTS);
        }
        Ok(Some(peer))
    }

    /// CPU time that all processes used so far for sending `read` datagrams, in nanoseconds.
    pub(crate) fn cpu_time(&self, read: u64) -> Result<u64> {
        let counted = self.parts.iter().filter(|part| !matches!(part, Part::Feeder(_)));
        let all: u64 = counted.map(|part| Ok(sys::cpu_time(part.pid())?)).sum::<Result<_>>()?;
        Ok(all.saturating_sub((self.reading * read as f64) as u64))
    }

    /// From now on so much is not counted.
    pub(crate) fn leave_out_reading(&mut self, nanoseconds_per_datagram: f64) {
        self.reading = nanoseconds_per_datagram;
    }
}

impl Part {
    fn pid(&self) -> u32 {
        match self {
            Self::Program(child) | Self::Feeder(child) => child.id(),
            Self::Helper(helper) => helper.pid(),
            Self::Engine(engine) => engine.pid(),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Self::Program(child) | Self::Feeder(child) = self {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command that users write, plus what an input needs to share a group on loopback; probing ends behind the second
/// random access point, without which flv and rtsp have no header. It costs nothing later.
pub(crate) fn ffmpeg_arguments(input: &str, map: &str, format: &str, output: &str) -> Vec<String> {
    let fixed = "-hide_banner -loglevel error -nostdin -probesize 2000000 -analyzeduration 3000000 -i";
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut arguments = words(fixed);
    arguments.push(input.to_owned());
    arguments.extend(words(map));
    arguments.extend(words("-c copy -f"));
    arguments.extend(words(format));
    arguments.push(output.to_owned());
    arguments
}

fn gst_arguments(outputs: &[SocketAddrV4]) -> Vec<String> {
    let clients: Vec<String> = outputs.iter().map(SocketAddrV4::to_string).collect();
    let pipeline = format!(
        "-q udpsrc address={} port={} multicast-iface=lo auto-multicast=true buffer-size=4000000 ! \
         multiudpsink sync=false async=false buffer-size=4000000 clients={}",
        PEER_GROUP.ip(),
        PEER_GROUP.port(),
        clients.join(",")
    );
    pipeline.split_whitespace().map(str::to_owned).collect()
}

/// Fifty probing processes at once would starve each other.
const BETWEEN_STARTS: Duration = Duration::from_millis(60);
/// In which ffmpeg has found out what it reads, and publishes it.
const FEEDER_TIME: Duration = Duration::from_secs(8);
