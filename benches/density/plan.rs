//! What one run measures: its options as given on the command line, and the addresses that follow from them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use clap::{Args, ValueEnum};

use crate::helper::Role;
use crate::sink::{COMPARED, probe_places};
use crate::srt::{Part, Receivers, Srt};
use crate::tcp::{Protocol, Tcp};
use crate::units::Layout;
use crate::{Result, reference, sink, source, tcp_floor, tcp_sink};

/// Options of one run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Outputs in all, spread evenly over the inputs; fewer outputs than inputs: outputs of each input
    #[arg(long, default_value_t = 50)]
    pub(crate) outputs: usize,
    /// Inputs, each with a stream of its own
    #[arg(long, default_value_t = 1)]
    pub(crate) inputs: usize,
    /// Delay class of the outputs in milliseconds: 0, 5, 10, 20 or 40
    #[arg(long, default_value_t = 10)]
    pub(crate) delay: u64,
    /// Seconds to measure; at least ten rounds are measured with ffmpeg and gst
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Data threads of the engine
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: usize,
    /// What to compare with; without it only the engine runs
    #[arg(long)]
    pub(crate) against: Option<Against>,
    /// How datagrams leave the source
    #[arg(long, default_value_t = Pattern::Cbr)]
    pub(crate) source: Pattern,
    /// Bit rate of each stream in Mb/s
    #[arg(long, default_value_t = 4.0)]
    pub(crate) stream_mbps: f64,
    /// Where outputs go
    #[arg(long, default_value_t = SinkKind::Lo)]
    pub(crate) sink: SinkKind,
    /// How the engine spreads datagrams of an output in time
    #[arg(long)]
    pub(crate) pace: Option<Pace>,
    /// Outputs of SRT instead of UDP
    #[arg(skip)]
    pub(crate) srt: Option<Srt>,
    /// Outputs of RTMP or RTSP instead
    #[arg(skip)]
    pub(crate) tcp: Option<Tcp>,
}

/// The other side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// One ffmpeg process per output
    Ffmpeg,
    /// One GStreamer process with a multiudpsink
    Gst,
    /// One thread that receives and calls sendto for each output
    Sendto,
    /// The cheapest sending there is: sendmmsg with GSO without a pause, in the engine's own mean batch
    Limit,
    /// A task per output on one tokio thread
    Tokio,
    /// SRT only: one process with libsrt, a port for each of its callers
    Libsrt,
    /// SRT only: the same with one port for all callers
    LibsrtShared,
    /// SRT only: one process with srt-tokio
    SrtTokio,
    /// SRT, RTMP and RTSP: MediaMTX, the program that MEDIAMTX_BIN names
    Mediamtx,
    /// Serving SRT, or RTSP with --udp: this engine, pushing SRT or transport streams over UDP to as many receivers
    Push,
    /// RTMP and RTSP: the same bytes at the same instants, by one non-blocking send for each socket
    Send,
    /// RTMP only: nginx with its RTMP module
    Nginx,
    /// RTMP and RTSP over TLS: this engine without TLS
    Plain,
}

/// How datagrams leave the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Evenly spaced
    Cbr,
    /// A picture of 15 datagrams at once
    Bursty,
}

/// Where outputs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SinkKind {
    /// Loopback sockets that another process drains; every output is counted
    Lo,
    /// A black hole interface; 16 probes on loopback are counted (needs root)
    Ifb,
}

/// How the engine spreads datagrams of an output in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pace {
    /// Each at the time of its PCR
    Pcr,
}

impl Options {
    /// Outputs in all.
    pub(crate) fn total_outputs(&self) -> usize {
        if self.outputs < self.inputs { self.outputs * self.inputs } else { self.outputs }
    }

    fn outputs_each(&self) -> usize {
        self.total_outputs() / self.inputs.max(1)
    }

    /// Whether the other side is a tool that users run, on any number of threads.
    pub(crate) fn is_external(&self) -> bool {
        use Against::{Ffmpeg, Gst, Libsrt, LibsrtShared, Mediamtx, Nginx, SrtTokio};
        matches!(self.against, Some(Ffmpeg | Gst | Libsrt | LibsrtShared | SrtTokio | Mediamtx | Nginx))
    }

    /// Protocol of the outputs.
    pub(crate) fn mode(&self) -> &'static str {
        match self.tcp.as_ref().map(|tcp| tcp.protocol) {
            Some(Protocol::Rtmp) => "rtmp",
            Some(Protocol::RtspPush) => "rtsp-push",
            Some(Protocol::RtspServe) => "rtsp-serve",
            None if self.srt.is_some() => "srt",
            None => "udp",
        }
    }

    /// Whether each output is a connection.
    pub(crate) fn has_connections(&self) -> bool {
        self.srt.is_some() || self.tcp.is_some()
    }

    /// Whether readers call.
    pub(crate) fn serves(&self) -> bool {
        self.srt.as_ref().is_some_and(|srt| srt.role == Part::Serve)
            || self.tcp.as_ref().is_some_and(|tcp| tcp.protocol == Protocol::RtspServe)
    }

    /// How many outputs are configured; readers of one are no outputs.
    pub(crate) fn configured_outputs(&self) -> usize {
        if self.serves() { 1 } else { self.total_outputs() }
    }

    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        let outputs = self.total_outputs();
        if self.inputs == 0 || outputs == 0 || !outputs.is_multiple_of(self.inputs) {
            return Err("--outputs must be a multiple of --inputs, and neither 0".into());
        }
        if self.inputs > MAX_INPUTS {
            return Err(format!("--inputs is at most {MAX_INPUTS}").into());
        }
        if ![0, 5, 10, 20, 40].contains(&self.delay) {
            return Err("--delay is one of 0, 5, 10, 20 and 40".into());
        }
        if !(0.1..=1000.0).contains(&self.stream_mbps) {
            return Err("--stream-mbps is between 0.1 and 1000".into());
        }
        let room = match self.sink {
            SinkKind::Lo => usize::from(AGAINST_LO - ENGINE_LO),
            SinkKind::Ifb => MAX_IFB,
        };
        if outputs > room {
            return Err(format!("--sink {} has room for {room} outputs", self.sink).into());
        }
        if self.is_external() && (self.sink == SinkKind::Ifb || self.inputs > 1) {
            return Err("tools of users are measured with --sink lo and one input".into());
        }
        match (&self.srt, &self.tcp) {
            (Some(srt), _) => srt.check(self),
            (_, Some(tcp)) => tcp.check(self),
            _ if self.against.is_some_and(Against::has_connections) => {
                Err("that is something to compare other modes with".into())
            }
            _ => Ok(()),
        }
    }

    /// Where each output of the engine goes, in the order of its walk.
    pub(crate) fn engine_outputs(&self) -> Vec<SocketAddrV4> {
        self.destinations(ENGINE_LO, ENGINE_PROBES)
    }

    /// Where each output of the other side goes.
    pub(crate) fn against_outputs(&self) -> Vec<SocketAddrV4> {
        self.destinations(AGAINST_LO, AGAINST_PROBES)
    }

    fn destinations(&self, first: u16, first_probe: u16) -> Vec<SocketAddrV4> {
        let outputs = self.total_outputs();
        let mut all: Vec<_> = match self.sink {
            SinkKind::Lo => (first..).take(outputs).map(local).collect(),
            SinkKind::Ifb => (0..outputs as u32)
                .map(|output| {
                    let base = u32::from(Ipv4Addr::new(10, 66, 0, 1));
                    let address = base + ((output / 250) << 8) + output % 250;
                    SocketAddrV4::new(address.into(), 5000)
                })
                .collect(),
        };
        if self.sink == SinkKind::Ifb {
            for (place, port) in probe_places(outputs, COMPARED).into_iter().zip(first_probe..) {
                all[place] = local(port);
            }
        }
        all
    }

    /// Outputs that the sink sees: all on loopback, else the probes.
    pub(crate) fn seen(&self) -> Vec<usize> {
        match self.sink {
            SinkKind::Lo => (0..self.total_outputs()).collect(),
            SinkKind::Ifb => probe_places(self.total_outputs(), COMPARED),
        }
    }

    /// The flow that belongs at an output.
    pub(crate) fn flow_of(&self, output: usize) -> usize {
        output / self.outputs_each()
    }

    fn engine_inputs(&self) -> Vec<SocketAddrV4> {
        (ENGINE_INPUTS..).take(self.inputs).map(local).collect()
    }

    /// Where the other side listens: a group for tools that need a copy per process.
    pub(crate) fn against_inputs(&self) -> Vec<SocketAddrV4> {
        match self.against {
            None | Some(Against::Limit | Against::Send) => Vec::new(),
            Some(Against::Ffmpeg | Against::Gst) => vec![PEER_GROUP],
            Some(_) => (AGAINST_INPUTS..).take(self.inputs).map(local).collect(),
        }
    }

    /// What the source sends.
    pub(crate) fn source(&self) -> source::Setup {
        source::Setup {
            megabits_per_second: self.stream_mbps,
            bursty: self.source == Pattern::Bursty,
            engine: self.engine_inputs(),
            control: local(CONTROL),
            against: self.against_inputs(),
            // Whoever takes the stream apart would stumble over 380 PES packets a second.
            against_counted: !matches!(
                self.against,
                Some(Against::Ffmpeg | Against::Gst | Against::Mediamtx)
            ),
            units: self.tcp.is_some(),
        }
    }

    /// Who receives.
    pub(crate) fn sink(&self) -> Result<Role> {
        let control = (local(CONTROL), self.inputs as u32);
        if let Some(srt) = &self.srt {
            return Ok(srt.sink(self, control));
        }
        if let Some(tcp) = &self.tcp {
            return tcp.sink(self, control);
        }
        let seen = |all: Vec<SocketAddrV4>| {
            self.seen().into_iter().map(|output| (all[output], self.flow_of(output) as u32)).collect()
        };
        Ok(Role::Sink(sink::Setup {
            megabits_per_second: self.stream_mbps,
            engine: seen(self.engine_outputs()),
            control,
            against: self.against.map_or(Vec::new(), |_| seen(self.against_outputs())),
        }))
    }

    /// What a built-in reference copies.
    pub(crate) fn reference(&self) -> reference::Setup {
        reference::Setup { inputs: self.against_inputs(), outputs: self.against_outputs() }
    }

    /// What sends the engine's bytes over connections for the least that it can cost.
    pub(crate) fn floor(&self) -> Option<tcp_floor::Setup> {
        let protocol = self.tcp.as_ref()?.protocol;
        Some(tcp_floor::Setup {
            protocol,
            megabits_per_second: self.stream_mbps,
            delay: self.delay,
            outputs: self.total_outputs(),
            address: local(AGAINST_LO),
        })
    }

    /// Whether an output takes nothing on purpose.
    fn is_stalled(&self, output: usize) -> bool {
        self.tcp.as_ref().is_some_and(|tcp| tcp_sink::is_stalled(output, tcp.stalled))
    }

    /// Outputs that must get everything.
    pub(crate) fn counted(&self) -> Vec<usize> {
        self.seen().into_iter().filter(|&output| !self.is_stalled(output)).collect()
    }

    /// What an output must get between two reports of the source: access units over connections that carry them, else
    /// datagrams.
    pub(crate) fn due(&self, begun: u64, ended: u64) -> u64 {
        if self.tcp.is_none() {
            return ended - begun;
        }
        let layout = Layout::new(self.stream_mbps);
        let [before, after] =
            [begun, ended].map(|datagram| layout.units_before(datagram).iter().sum::<u64>());
        after - before
    }

    /// The engine's configuration with the first `outputs` of its outputs.
    pub(crate) fn engine_config(&self, outputs: usize) -> Result<String> {
        let all = match (&self.srt, &self.tcp) {
            (Some(srt), _) => srt.entries(srt.role, ENGINE_LO, outputs, self.delay),
            (_, Some(tcp)) => tcp.entries(ENGINE_LO, outputs, self.delay),
            _ => self.datagram_entries(&self.engine_outputs()[..outputs]),
        };
        let mut entries = all.into_iter();
        let inputs = self.engine_inputs();
        let streams =
            inputs.iter().map(|&input| (input, entries.by_ref().take(self.outputs_each()).collect()));
        self.config(local(API), streams.collect())
    }

    /// The same for an engine that is the other side: it pushes SRT or transport streams, or does without TLS.
    pub(crate) fn against_config(&self) -> Result<String> {
        let outputs = self.total_outputs();
        let entries = match (&self.srt, &self.tcp) {
            (Some(srt), _) => srt.entries(Part::Push, AGAINST_LO, outputs, self.delay),
            (_, Some(tcp)) if tcp.udp => self.datagram_entries(&self.against_outputs()),
            (_, Some(tcp)) => tcp.plain().entries(AGAINST_LO, outputs, self.delay),
            _ => Vec::new(),
        };
        self.config(local(AGAINST_API), vec![(local(AGAINST_INPUTS), entries)])
    }

    fn config(&self, api: SocketAddrV4, streams: Vec<(SocketAddrV4, Vec<String>)>) -> Result<String> {
        let mut text = format!(
            "api: {{listen: \"{api}\"}}\nmetrics: {{listen: off}}\nshards: {}\npin_shards: {PIN_SHARDS}\n\
             lane: {{max_seconds: {RING_SECONDS}, max_mb: {RING_MEGABYTES}}}\n",
            self.shards
        );
        if let Some(tcp) = &self.tcp {
            text += &tcp.configuration()?;
        }
        text += "inputs:\n";
        for (number, (address, outputs)) in streams.into_iter().enumerate() {
            let outputs = outputs.join(",\n      ");
            text +=
                &format!("  - name: in{number}\n    url: \"udp://{address}\"\n    outputs: [{outputs}]\n");
        }
        Ok(text)
    }

    fn datagram_entries(&self, outputs: &[SocketAddrV4]) -> Vec<String> {
        let pace = if self.pace.is_some() { "&pace=pcr" } else { "" };
        let entry = |(place, to): (usize, &SocketAddrV4)| {
            format!("{{name: out{place}, url: \"udp://{to}?delay_ms={}{pace}\"}}", self.delay)
        };
        outputs.iter().enumerate().map(entry).collect()
    }

    /// Bytes that the rings of all streams may take.
    pub(crate) fn ring_bytes(&self) -> f64 {
        let one = (self.stream_mbps * 1e6 / 8.0 * RING_SECONDS as f64).min((RING_MEGABYTES << 20) as f64);
        one * self.inputs as f64
    }

    /// Where the engine's API answers.
    pub(crate) fn api(&self) -> SocketAddrV4 {
        local(API)
    }

    /// Where the API of the other side answers, if it has one.
    pub(crate) fn against_api(&self) -> SocketAddrV4 {
        local(AGAINST_API)
    }
}

impl Against {
    fn has_connections(self) -> bool {
        use Against::{Ffmpeg, Gst, Limit, Sendto, Tokio};
        !matches!(self, Ffmpeg | Gst | Sendto | Limit | Tokio)
    }
}

/// The command line that says the same.
impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outputs, inputs, delay, seconds, source, sink, .. } = self;
        write!(formatter, "--outputs {outputs} --inputs {inputs} --delay {delay} --seconds {seconds}")?;
        write!(formatter, " --source {source} --sink {sink}")?;
        if let Some(against) = self.against {
            write!(formatter, " --against {against}")?;
        }
        if let Some(pace) = self.pace {
            write!(formatter, " --pace {pace}")?;
        }
        if let Some(srt) = &self.srt {
            write!(formatter, "{srt}")?;
        }
        if let Some(tcp) = &self.tcp {
            write!(formatter, "{tcp}")?;
        }
        Ok(())
    }
}

macro_rules! shown_as_on_the_command_line {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_possible_value().map_or(Ok(()), |value| formatter.write_str(value.get_name()))
            }
        }
    )*};
}
shown_as_on_the_command_line!(Against, Pattern, SinkKind, Pace, Part, Receivers);

/// A port of loopback.
pub(crate) const fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// The bounds of the engine's rings: its defaults, written out so that a row can name them.
pub(crate) const RING_SECONDS: u64 = 8;
const RING_MEGABYTES: u64 = 32;
/// The engine is bound to a CPU from outside, exactly as the references are.
const PIN_SHARDS: bool = false;

/// All below the range of ephemeral ports, so that they collide with no socket of a peer.
const API: u16 = 5900;
const AGAINST_API: u16 = 5901;
const ENGINE_INPUTS: u16 = 6000;
const AGAINST_INPUTS: u16 = 7000;
const MAX_INPUTS: usize = (AGAINST_INPUTS - ENGINE_INPUTS) as usize;
pub(crate) const ENGINE_LO: u16 = 10_000;
pub(crate) const AGAINST_LO: u16 = 20_000;
const ENGINE_PROBES: u16 = 30_000;
const AGAINST_PROBES: u16 = 30_100;
const CONTROL: u16 = 30_200;
const MAX_IFB: usize = 250 * 250;
/// Where ffmpeg and gst read: a group, for a process per output needs a copy per process.
pub(crate) const PEER_GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 66, 1), 8000);
