//! Tools that users run today: started once, connected for the whole run, fed by the same source.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::plan::{Against, PEER_GROUP};
use crate::{Result, network, sys};

/// Running processes of one tool. They end with their owner.
pub(crate) struct Peer {
    children: Vec<Child>,
    /// What the tool calls itself.
    pub(crate) version: String,
}

impl Peer {
    /// Starts a tool with these outputs; `None` when it is not installed.
    pub(crate) fn start(tool: Against, outputs: &[SocketAddrV4], cpus: &[usize]) -> Result<Option<Self>> {
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
        let mut peer = Self { children: Vec::new(), version };
        let commands = match tool {
            Against::Gst => vec![gst_arguments(outputs)],
            _ => outputs.iter().map(ffmpeg_arguments).collect(),
        };
        let log = File::create(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{program}.log")))?;
        for arguments in commands {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
            sys::bind_child(&mut command, cpus);
            peer.children.push(command.spawn()?);
            thread::sleep(BETWEEN_STARTS);
        }
        Ok(Some(peer))
    }

    /// CPU time that all processes used so far, in nanoseconds.
    pub(crate) fn cpu_time(&self) -> Result<u64> {
        self.children.iter().map(|child| Ok(sys::cpu_time(child.id())?)).sum()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command that users write, plus what it needs to share a group on loopback; probing is cut short, which
/// costs nothing later.
fn ffmpeg_arguments(output: &SocketAddrV4) -> Vec<String> {
    let fixed = "-hide_banner -loglevel error -nostdin -probesize 600000 -analyzeduration 1000000 -i";
    let input = format!("udp://{PEER_GROUP}?localaddr=127.0.0.1&reuse=1&fifo_size=20000&overrun_nonfatal=1");
    let copy = "-map 0 -c copy -f mpegts";
    let mut arguments: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    arguments.push(input);
    arguments.extend(copy.split(' ').map(str::to_owned));
    arguments.push(format!("udp://{output}?pkt_size=1316"));
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
