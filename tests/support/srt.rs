//! Peers that speak SRT and are not ours: srt-live-transmit, ffmpeg and GStreamer over libsrt, each either taking a
//! stream in or giving one out; and where newer libsrt and MediaMTX are, if somebody has them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

use super::udp::{Receiver, Sender, free_port};

/// A program over libsrt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// srt-live-transmit of Debian's libsrt.
    Transmit,
    /// srt-live-transmit of the libsrt that `LIBSRT_PREFIX` names, see [`newer_libsrt`].
    NewerTransmit,
    /// ffmpeg, copying bytes.
    Ffmpeg,
    /// srtsrc and srtsink of GStreamer.
    Gst,
}

/// One end of a connection as its url says it. The names are those of libsrt's own tools.
#[derive(Debug, Clone)]
pub(crate) struct End {
    mode: &'static str,
    address: SocketAddr,
    /// Milliseconds.
    latency: u32,
    options: Vec<(&'static str, String)>,
}

/// A program that takes a stream in over SRT. Ends with its owner.
pub(crate) struct Taker {
    program: Program,
    came: Came,
}

enum Came {
    /// Datagrams on loopback.
    Datagrams(Receiver),
    File(PathBuf),
}

/// A program that gives a stream out over SRT. Ends with its owner.
pub(crate) struct Giver {
    program: Program,
    feed: Feed,
}

enum Feed {
    Datagrams(Sender),
    Pipe(ChildStdin),
}

struct Program {
    child: Child,
    folder: TempDir,
    name: String,
}

impl Tool {
    /// The programs that must be installed for it.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Transmit => &["srt-live-transmit"],
            Self::NewerTransmit => &[],
            Self::Ffmpeg => &["ffmpeg"],
            Self::Gst => &["gst-launch-1.0"],
        }
    }

    /// Starts it as a receiver.
    pub(crate) fn take(self, end: &End) -> Taker {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("taken.ts");
        let (mut command, came) = match self {
            Self::Transmit | Self::NewerTransmit => {
                let receiver = Receiver::new();
                let mut command = self.transmit();
                command.args([end.url(self), receiver.url()]);
                (command, Came::Datagrams(receiver))
            }
            Self::Ffmpeg => {
                let mut command = Command::new("ffmpeg");
                command
                    .args("-hide_banner -loglevel error -nostdin -f data -i".split(' '))
                    .arg(end.url(self));
                command.args("-map 0 -c copy -flush_packets 1 -f data".split(' ')).arg(&file);
                (command, Came::File(file))
            }
            Self::Gst => {
                let mut command = Command::new("gst-launch-1.0");
                command
                    .args(["-q", "srtsrc"])
                    .args(end.properties())
                    .arg("!")
                    .args(["filesink", "buffer-mode=2"]);
                command.arg(format!("location={}", file.display()));
                (command, Came::File(file))
            }
        };
        command.stdin(Stdio::null());
        Taker { program: Program::start(command, folder), came }
    }

    /// Starts it as a sender.
    pub(crate) fn give(self, end: &End) -> Giver {
        let folder = tempfile::tempdir().expect("a folder");
        let input: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let mut command = match self {
            Self::Transmit | Self::NewerTransmit => {
                let mut command = self.transmit();
                command.args([format!("udp://{input}"), end.url(self)]);
                command
            }
            Self::Ffmpeg => {
                let mut command = Command::new("ffmpeg");
                command
                    .args("-hide_banner -loglevel error -f data -raw_packet_size 1316 -i pipe:0".split(' '));
                command.args("-map 0 -c copy -flush_packets 1 -f data".split(' ')).arg(end.url(self));
                command
            }
            Self::Gst => {
                let mut command = Command::new("gst-launch-1.0");
                command.args(["-q", "udpsrc", "address=127.0.0.1"]).arg(format!("port={}", input.port()));
                command
                    .args(["!", "srtsink", "sync=false", "wait-for-connection=false"])
                    .args(end.properties());
                command
            }
        };
        let piped = self == Self::Ffmpeg;
        command.stdin(if piped { Stdio::piped() } else { Stdio::null() });
        let mut program = Program::start(command, folder);
        let feed = match program.child.stdin.take() {
            Some(pipe) => Feed::Pipe(pipe),
            None => Feed::Datagrams(Sender::new(input)),
        };
        Giver { program, feed }
    }

    fn transmit(self) -> Command {
        let mut command = match self {
            Self::NewerTransmit => newer("bin/srt-live-transmit").expect("LIBSRT_PREFIX, asked for before"),
            _ => Command::new("srt-live-transmit"),
        };
        command.args(["-q", "-loglevel:error", "-chunk:1316"]);
        command
    }
}

impl End {
    /// One that dials this address.
    pub(crate) fn caller(address: SocketAddr) -> Self {
        Self::new("caller", address)
    }

    /// One that is dialled at this address.
    pub(crate) fn listener(address: SocketAddr) -> Self {
        Self::new("listener", address)
    }

    /// One that meets another half way: from `port` to this address.
    pub(crate) fn rendezvous(port: u16, address: SocketAddr) -> Self {
        Self::new("rendezvous", address).with("port", port.to_string())
    }

    fn new(mode: &'static str, address: SocketAddr) -> Self {
        Self { mode, address, latency: LATENCY, options: Vec::new() }
    }

    /// The same with another latency in milliseconds.
    pub(crate) fn late(self, latency: u32) -> Self {
        Self { latency, ..self }
    }

    /// The same with another option.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.options.push((name, value.into()));
        self
    }

    /// The same with a stream id, if there is one.
    pub(crate) fn asking(self, stream_id: Option<&str>) -> Self {
        match stream_id {
            Some(id) => self.with("streamid", id),
            None => self,
        }
    }

    /// The same with a passphrase and a key of so many bytes, unless that is 0.
    pub(crate) fn locked(self, passphrase: &str, key_bytes: u16) -> Self {
        match key_bytes {
            0 => self,
            _ => self.with("passphrase", passphrase).with("pbkeylen", key_bytes.to_string()),
        }
    }

    /// The url as the engine reads it.
    pub(crate) fn ours(&self) -> String {
        let encode = |value: &str| value.replace('%', "%25").replace('#', "%23").replace('&', "%26");
        let options = self.options.iter().map(|(name, value)| format!("&{name}={}", encode(value)));
        format!(
            "srt://{}?mode={}&latency={}{}",
            self.address,
            self.mode,
            self.latency,
            options.collect::<String>()
        )
    }

    /// The url as srt-live-transmit reads it.
    pub(crate) fn transmit_url(&self) -> String {
        self.url(Tool::Transmit)
    }

    /// The url as a tool reads it: none of them knows %23, and ffmpeg counts latency in microseconds.
    fn url(&self, tool: Tool) -> String {
        let options: String = self.options.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        let own = match tool {
            Tool::Ffmpeg => format!("latency={}&pkt_size=1316", self.latency * 1000),
            _ => format!("latency={}", self.latency),
        };
        format!("srt://{}?mode={}&{own}{options}", self.address, self.mode)
    }

    /// The same as properties of a GStreamer element.
    fn properties(&self) -> Vec<String> {
        let uri = format!("uri=srt://{}?mode={}&latency={}", self.address, self.mode, self.latency);
        let options = self.options.iter().map(|(name, value)| format!("{name}=\"{value}\""));
        std::iter::once(uri).chain(options).collect()
    }
}

impl Taker {
    /// What has come so far, in the order in which the program gave it out.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.came {
            Came::Datagrams(receiver) => receiver.bytes(),
            Came::File(file) => std::fs::read(file).unwrap_or_default(),
        }
    }

    /// Whether the program has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.program.has_ended()
    }
}

impl Giver {
    /// Gives one datagram in; what it cannot take is lost.
    pub(crate) fn send(&mut self, datagram: &[u8]) {
        match &mut self.feed {
            Feed::Datagrams(sender) => sender.send(datagram),
            // The program has ended; that shows where the datagram is awaited.
            Feed::Pipe(pipe) => drop(pipe.write_all(datagram).and_then(|()| pipe.flush())),
        }
    }

    /// Gives `bytes` in, in datagrams of 1316 bytes at `mbps`, and returns when the last one is in.
    pub(crate) fn send_paced(&mut self, bytes: &[u8], mbps: f64) {
        super::udp::pace(bytes.chunks(1316), mbps, |datagram| self.send(datagram));
    }

    /// Whether the program has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.program.has_ended()
    }
}

impl Program {
    fn start(mut command: Command, folder: TempDir) -> Self {
        let log = File::create(folder.path().join(LOG)).expect("a file");
        command.current_dir(folder.path()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, folder, name: format!("{command:?}") }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        if std::thread::panicking() && !log.is_empty() {
            eprintln!("--- {} ---\n{log}", self.name);
        }
    }
}

/// Whether a libsrt newer than Debian's is there: the folder that it was installed to is `LIBSRT_PREFIX`. It should be
/// built with `ENABLE_AEAD_API_PREVIEW` and `ENABLE_BONDING`. If not, the test is skipped, visibly; that is no failure in
/// CI either, for no package has it.
pub(crate) fn newer_libsrt() -> bool {
    let there = newer("bin/srt-live-transmit").is_some();
    if !there {
        super::skipped("LIBSRT_PREFIX names no libsrt 1.5.2 or later");
    }
    there
}

/// A program of the newer libsrt, finding its own library.
fn newer(program: &str) -> Option<Command> {
    let prefix = PathBuf::from(std::env::var_os("LIBSRT_PREFIX")?);
    let path = prefix.join(program);
    let mut command = path.is_file().then(|| Command::new(&path))?;
    command.env("LD_LIBRARY_PATH", library_path(&prefix));
    Some(command)
}

fn library_path(prefix: &Path) -> OsString {
    std::env::join_paths([prefix.join("lib"), prefix.join("lib64")]).expect("a folder without a colon")
}

/// MediaMTX, the program that `MEDIAMTX_BIN` names, taking and giving any path over SRT. Ends with its owner.
pub(crate) struct MediaMtx {
    srt: SocketAddr,
    _program: Program,
}

impl MediaMtx {
    /// `None`, and a visible skip, without that variable, for no package has MediaMTX.
    pub(crate) fn start() -> Option<Self> {
        let Some(binary) = std::env::var_os("MEDIAMTX_BIN").map(PathBuf::from).filter(|b| b.is_file()) else {
            super::skipped("MEDIAMTX_BIN names no program");
            return None;
        };
        let srt = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = format!(
            "logLevel: info\nsrt: true\nsrtAddress: {srt}\nrtsp: false\nrtmp: false\nhls: false\nwebrtc: false\n\
             moq: false\npaths: {{all_others: {{}}}}\n"
        );
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("mediamtx.yml"), config).expect("a file");
        let mut command = Command::new(binary);
        command.arg("mediamtx.yml").stdin(Stdio::null());
        Some(Self { srt, _program: Program::start(command, folder) })
    }

    /// Where it is dialled.
    pub(crate) fn srt(&self) -> SocketAddr {
        self.srt
    }
}

/// Milliseconds on every connection that says nothing else: so much a busy machine may stumble without losing a packet.
pub(crate) const LATENCY: u32 = 2000;
const LOG: &str = "log";
