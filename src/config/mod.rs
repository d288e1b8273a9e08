//! The configuration file and the environment enter, a [`Config`] leaves in which every value is inside its
//! range, or every mistake with its line. Starts nothing.

mod keys;
mod reading;
mod tree;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use self::keys::{CONTRACT, KEYS, PREFIX};
use self::reading::Reading;
use self::tree::Value;
use crate::store::{Delay, InputDraft, OutputDraft, Refusal, Roots, Rules, Store};
use crate::telemetry::Desired;

/// Everything that can be configured. `millrace.yaml`, shipped with the program, says what each key means,
/// what it may be, and what it is when nothing is said.
#[derive(Debug, Clone)]
pub struct Config {
    /// `api.listen`: address of the REST interface; port 0 = any free one.
    pub listen: SocketAddr,
    /// `metrics.listen`: address of the figures for Prometheus; `None` = none, port 0 = any free one.
    pub metrics: Option<SocketAddr>,
    /// `klv.decode`: what the KLV of inputs says is found out.
    pub klv: bool,
    /// `shards`: threads that move packets; `None` = one per core.
    pub shards: Option<usize>,
    /// `pin_shards`: each shard stays on one core.
    pub pin_shards: bool,
    /// `lane`: how much of a stream is kept.
    pub lane: LaneLimits,
    /// `input.stall_after_s`: without a packet for this long an input is Stalled; its url may say otherwise.
    pub stall_after: Duration,
    /// `input.rcvbuf_kb`: receive buffer asked of the kernel, in bytes; an input's url may say otherwise.
    pub rcvbuf: usize,
    /// `output.delay_ms`: delay class of an output whose url says nothing else.
    pub delay: Delay,
    /// `reconnect`: when something that failed is tried again.
    pub reconnect: Reconnect,
    /// `dial`: how many connections may be under way.
    pub dial: DialLimits,
    /// `hosts.deny`: networks that must not be dialled, as address and prefix length.
    pub denied_hosts: Vec<(IpAddr, u8)>,
    /// `media_roots`: folders that the paths of `file:` urls lead into; `data_dir` is put in front.
    pub media_roots: Vec<PathBuf>,
    /// `data_dir`: the folder of everything that is stored.
    pub data_dir: PathBuf,
    /// `udp_port_range`: ports for inputs that are made without a url.
    pub udp_ports: RangeInclusive<u16>,
    /// `srt_port_range`: ports on which inputs that are made without a url are served over SRT.
    pub srt_ports: RangeInclusive<u16>,
    /// `limits.max_outputs_per_input`; `None` = unlimited.
    pub max_outputs_per_input: Option<usize>,
    /// `limits.max_sessions`: readers of one output; its url may say otherwise.
    pub max_sessions: usize,
    /// `tls.certificate`: chain of certificates that servers of ours show, PEM; `None` = no TLS ports.
    pub tls_certificate: Option<PathBuf>,
    /// `tls.key`: its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// `public.host`: the name or address under which others reach this engine; `None` = nobody is told where a picture
    /// is.
    pub public_host: Option<String>,
    /// `public.rtsp_port`, `public.rtsps_port` and `public.srt_port`: ports that others dial, where they are not those
    /// that are listened on.
    pub public_ports: PublicPorts,
    /// `cot.include_read_credentials`: the credentials of readers go into what is told of a stream.
    pub include_read_credentials: bool,
    /// `log.level`: the least important line that is still written.
    pub log_level: tracing::Level,
    /// `inputs`: what there is when the engine starts.
    pub inputs: Vec<InputSeed>,
}

/// How much of a stream is kept: whichever bound is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// `lane.max_seconds`
    pub time: Duration,
    /// `lane.max_mb`, in bytes.
    pub bytes: usize,
}

/// When something that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reconnect {
    /// `reconnect.delay_s`: seconds before the first retry, unless an output says otherwise.
    pub delay: u16,
    /// `reconnect.cap_s`: bound of the doubling; an output whose first delay is longer has that as its bound.
    pub cap: Duration,
    /// `reconnect.jitter`: share, 0 to 1, by which each wait is made shorter or longer.
    pub jitter: f64,
    /// `reconnect.max_attempts`: retries in a row; 0 = for ever.
    pub max_attempts: u32,
    /// `reconnect.fatal_retry_s`: wait after an error that trying again does not mend; `None` = no retry.
    pub fatal_retry: Option<Duration>,
}

/// Ports that others dial; `None` = the one that is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublicPorts {
    /// `public.rtsp_port`
    pub rtsp: Option<u16>,
    /// `public.rtsps_port`
    pub rtsps: Option<u16>,
    /// `public.srt_port`
    pub srt: Option<u16>,
}

/// How many connections may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialLimits {
    /// `dial.per_host`
    pub per_host: usize,
    /// `dial.total`
    pub total: usize,
}

/// An input of the file. What it says has been checked.
#[derive(Debug, Clone)]
pub struct InputSeed {
    /// What the store makes it from.
    pub draft: InputDraft,
    /// It shall run.
    pub enabled: bool,
    /// Its outputs, in the order of the file.
    pub outputs: Vec<OutputSeed>,
}

/// An output of the file. What it says has been checked.
#[derive(Debug, Clone)]
pub struct OutputSeed {
    /// What the store makes it from.
    pub draft: OutputDraft,
    /// It shall run.
    pub enabled: bool,
}

/// One mistake: where, which key, what is wrong and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// Path of the key, such as `lane.max_mb` or `inputs[0].url`; `None` = the whole place.
    pub key: Option<String>,
    /// What is wrong, and what is allowed. Never repeats a url.
    pub reason: String,
}

/// Where a mistake is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1; `None` = the file itself.
    File(PathBuf, Option<u64>),
    /// An environment variable.
    Variable(String),
}

impl Config {
    /// Reads the file, if one is given, and what the variables say instead. Every mistake is reported, unless
    /// the file is no YAML at all: then only the first.
    pub fn load(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let Some(path) = path else { return Self::parse("", Path::new(""), variables) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let place = Place::File(path.into(), None);
            vec![ConfigError { place, key: None, reason: format!("cannot be read: {error}") }]
        })?;
        Self::parse(&text, path, variables)
    }

    /// Reads the text of a file; `path` is only named in errors.
    pub fn parse(
        text: &str,
        path: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let tree = Value::parse(text).map_err(|(line, reason)| {
            vec![ConfigError { place: Place::File(path.into(), line), key: None, reason }]
        })?;
        let mut reading = Reading::new(path);
        let inputs = reading.read_keys(&tree);
        reading.read_variables(variables);
        if let Some(inputs) = inputs {
            reading.read_inputs(inputs);
        }
        reading.finish()
    }

    /// What the store needs to know.
    pub fn rules(&self) -> Rules {
        Rules {
            udp_ports: self.udp_ports.clone(),
            max_outputs_per_input: self.max_outputs_per_input,
            reconnect_delay: self.reconnect.delay,
            max_reconnect_attempts: self.reconnect.max_attempts,
            lane: self.lane.time,
            srt_ports: Some(self.srt_ports.clone()),
        }
    }

    /// The folders that `file:` urls lead into.
    pub fn roots(&self) -> Roots {
        let folders = self.media_roots.iter().map(|root| self.data_dir.join(root)).collect();
        Roots::new(folders).making(&self.data_dir)
    }

    /// Puts the inputs and outputs of the file into a store. Refused only if the store holds others already or
    /// has other rules.
    pub fn seed(&self, store: &mut Store, now: SystemTime) -> Result<(), Refusal> {
        for seed in &self.inputs {
            let input = store.create_input(seed.draft.clone(), now)?.id;
            if !seed.enabled {
                store.set_input_desired(input, Desired::Stopped, now)?;
            }
            for seed in &seed.outputs {
                let output = store.create_output(input, seed.draft.clone(), now)?.id;
                if !seed.enabled {
                    store.set_output_desired(input, output, Desired::Stopped, now)?;
                }
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9998))),
            klv: true,
            shards: None,
            pin_shards: true,
            lane: LaneLimits { time: Duration::from_secs(8), bytes: 32_000_000 },
            stall_after: Duration::from_secs(3),
            rcvbuf: 4_096_000,
            delay: Delay::default(),
            reconnect: Reconnect {
                delay: 5,
                cap: Duration::from_secs(30),
                jitter: 0.2,
                max_attempts: 0,
                fatal_retry: Some(Duration::from_secs(60)),
            },
            dial: DialLimits { per_host: 8, total: 64 },
            denied_hosts: DENIED_HOSTS.to_vec(),
            media_roots: vec!["media".into()],
            data_dir: "data".into(),
            udp_ports: 5000..=5100,
            srt_ports: 8891..=8990,
            max_outputs_per_input: None,
            max_sessions: 1000,
            tls_certificate: None,
            tls_key: None,
            public_host: None,
            public_ports: PublicPorts::default(),
            include_read_credentials: false,
            log_level: tracing::Level::INFO,
            inputs: Vec::new(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path, None) => write!(f, "{}: ", path.display())?,
            Place::File(path, Some(line)) => write!(f, "{}:{line}: ", path.display())?,
            Place::Variable(name) => write!(f, "{name}: ")?,
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// Link-local addresses, and those from which cloud machines get their credentials.
const DENIED_HOSTS: [(IpAddr, u8); 5] = [
    // Link-local (RFC 3927); the metadata services of most clouds are 169.254.169.254.
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    // Link-local (RFC 4291, 2.5.6).
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    // AWS over IPv6.
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
    // Alibaba Cloud.
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    // Azure.
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
];

#[cfg(test)]
mod tests;
