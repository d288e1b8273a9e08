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
use crate::{Result, network, srt_peer, sys};

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
            (Against::Mediamtx, _) => Ok(srt_peer::start_mediamtx(options, cpus)?.map(one)),
            (Against::SrtTokio, Some(srt)) => {
                let helper = Helper::start(&srt_peer::tokio_role(options, srt), cpus)?;
                Ok(Some(Self::new(vec![Part::Helper(helper)], "srt-tokio".into())))
            }
            (Against::Push, _) => {
                let config = options.pushing_config();
                let engine = Engine::start("pushing", &config, options.against_api(), machine.one())?;
                Ok(Some(Self::new(vec![Part::Engine(engine)], "millrace, pushing".into())))
            }
            _ => Self::start_tool(options, tool, cpus),
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
        let commands = match (tool, &options.srt) {
            (Against::Gst, _) => vec![gst_arguments(&outputs)],
            (_, None) => {
                outputs.iter().map(|to| ffmpeg_arguments(&format!("udp://{to}?pkt_size=1316"))).collect()
            }
            // ffmpeg's latency is in microseconds.
            (_, Some(srt)) => {
                let urls = srt.urls(AGAINST_LO, "pkt_size=1316&latency", srt.latency * 1000);
                urls.take(options.total_outputs()).map(|url| ffmpeg_arguments(&url)).collect()
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
        let all: u64 = self.parts.iter().map(|part| Ok(sys::cpu_time(part.pid())?)).sum::<Result<_>>()?;
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
            Self::Program(child) => child.id(),
            Self::Helper(helper) => helper.pid(),
            Self::Engine(engine) => engine.pid(),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Self::Program(child) = self {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command that users write, plus what it needs to share a group on loopback; probing is cut short, which
/// costs nothing later.
fn ffmpeg_arguments(output: &str) -> Vec<String> {
    let fixed = "-hide_banner -loglevel error -nostdin -probesize 600000 -analyzeduration 1000000 -i";
    let input = format!("udp://{PEER_GROUP}?localaddr=127.0.0.1&reuse=1&fifo_size=20000&overrun_nonfatal=1");
    let copy = "-map 0 -c copy -f mpegts";
    let mut arguments: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    arguments.push(input);
    arguments.extend(copy.split(' ').map(str::to_owned));
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
