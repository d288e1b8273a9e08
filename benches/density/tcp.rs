//! What a run of RTMP or RTSP measures beyond what every run has: its options as given on the command line, and the urls
//! and receivers that follow from them.

use std::fmt;
use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::helper::Role;
use crate::plan::{AGAINST_LO, Against, ENGINE_LO, Options, SinkKind, local};
use crate::tcp_sink;

/// What only outputs over TCP have.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tcp {
    /// What is spoken, and who dials; the mode says it
    #[arg(skip)]
    pub(crate) protocol: Protocol,
    /// Over TLS
    #[arg(long)]
    pub(crate) tls: bool,
    /// One receiver in so many takes nothing from the beginning of the measurement on; 0 = all take
    #[arg(long, default_value_t = 0)]
    pub(crate) stalled: usize,
    /// Readers ask for datagrams (rtsp-serve)
    #[arg(long)]
    pub(crate) udp: bool,
}

/// What is spoken, and who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Outputs publish.
    #[default]
    Rtmp,
    /// Outputs record at servers.
    RtspPush,
    /// Readers of one output dial in.
    RtspServe,
}

/// Who a server says it is: PEM.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Tcp {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self, options: &Options) -> Result<()> {
        let wrong = match options.against {
            Some(Against::Gst | Against::Sendto | Against::Limit | Against::Tokio) => {
                "that sends no RTMP and no RTSP"
            }
            Some(Against::Libsrt | Against::LibsrtShared | Against::SrtTokio) => {
                "that is something to compare SRT with"
            }
            _ if self.udp && (self.protocol != Protocol::RtspServe || self.tls || self.stalled > 0) => {
                "--udp is for rtsp-serve, without --tls and --stalled"
            }
            Some(against) if self.udp != (against == Against::Push) => {
                "with --udp there is --against push: transport streams in datagrams to as many"
            }
            Some(Against::Nginx) if self.protocol != Protocol::Rtmp => "nginx pushes RTMP only",
            Some(Against::Ffmpeg) if self.protocol == Protocol::RtspServe => "ffmpeg serves nobody",
            Some(Against::Plain) if !self.tls => "--against plain is for --tls: the same without",
            Some(Against::Send | Against::Nginx | Against::Ffmpeg | Against::Mediamtx) if self.tls => {
                "with --tls there is --against plain: the same without"
            }
            _ if options.inputs != 1 || options.sink != SinkKind::Lo || options.pace.is_some() => {
                "RTMP and RTSP are measured with one input, --sink lo and without --pace"
            }
            _ if !(1.0..=20.0).contains(&options.stream_mbps) => {
                "--stream-mbps is 1 to 20 here: there is sound in it"
            }
            _ if self.stalled == 1 => "--stalled 1 leaves nobody who takes anything",
            _ => return Ok(()),
        };
        Err(wrong.into())
    }

    /// The outputs of an engine as its configuration has them.
    pub(crate) fn entries(&self, first: u16, outputs: usize, delay: u64) -> Vec<String> {
        if self.protocol == Protocol::RtspServe {
            let scheme = self.scheme();
            let url = format!(
                "{scheme}://{}/{SERVED}?mode=listener&delay_ms={delay}&max_sessions=100000",
                local(first)
            );
            return vec![format!("{{name: {SERVED}, url: \"{url}\"}}")];
        }
        let entry = |place| format!("{{name: out{place}, url: \"{}\"}}", self.output(first, place, delay));
        (0..outputs).map(entry).collect()
    }

    /// The url of an output that dials.
    pub(crate) fn output(&self, port: u16, place: usize, delay: u64) -> String {
        let trust = if self.tls { "&tls_insecure=true" } else { "" };
        format!("{}?delay_ms={delay}&hold=3600{trust}", self.destination(port, place))
    }

    /// Where an output dials to, whoever's it is.
    pub(crate) fn destination(&self, port: u16, place: usize) -> String {
        let folder = if self.protocol == Protocol::Rtmp { "live/" } else { "" };
        format!("{}://{}/{folder}out{place}", self.scheme(), local(port))
    }

    fn scheme(&self) -> &'static str {
        match (self.protocol, self.tls) {
            (Protocol::Rtmp, false) => "rtmp",
            (Protocol::Rtmp, true) => "rtmps",
            (_, false) => "rtsp",
            (_, true) => "rtsps",
        }
    }

    /// What the configuration of an engine says besides: in the pauses between slices its input is soon known to be
    /// silent, and its outputs wait for it.
    pub(crate) fn configuration(&self) -> Result<String> {
        let mut text = String::from("input: {stall_after_s: 1}\ndial: {per_host: 32}\n");
        if self.tls && self.protocol == Protocol::RtspServe {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density");
            let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
            let identity = Identity::new()?;
            fs::create_dir_all(&folder)?;
            fs::write(&certificate, identity.certificate)?;
            fs::write(&key, identity.key)?;
            text += &format!("tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        }
        Ok(text)
    }

    /// Who receives.
    pub(crate) fn sink(&self, options: &Options, control: (SocketAddrV4, u32)) -> Result<Role> {
        Ok(Role::TcpSink(tcp_sink::Setup {
            megabits_per_second: options.stream_mbps,
            control,
            protocol: self.protocol,
            sides: [
                (local(ENGINE_LO), self.tls),
                // Nobody is compared with over TLS.
                (local(AGAINST_LO), false),
                (local(LATE), self.tls),
            ],
            identity: Identity::new()?,
            datagrams: self.udp,
            against_datagrams: match options.against {
                Some(Against::Push) => options.against_outputs(),
                _ => Vec::new(),
            },
        }))
    }

    /// The same without TLS.
    pub(crate) fn plain(&self) -> Self {
        Self { tls: false, ..self.clone() }
    }
}

impl Identity {
    /// A certificate for this machine that nobody vouches for.
    fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }
}

/// The command line that says the same.
impl fmt::Display for Tcp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls {
            formatter.write_str(" --tls")?;
        }
        if self.udp {
            formatter.write_str(" --udp")?;
        }
        if self.stalled > 0 {
            write!(formatter, " --stalled {}", self.stalled)?;
        }
        Ok(())
    }
}

/// What readers ask for.
pub(crate) const SERVED: &str = "served";
/// Where an output dials to that is made while others send.
pub(crate) const LATE: u16 = 19_999;
