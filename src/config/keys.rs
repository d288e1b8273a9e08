//! The table of every key: its path, what is allowed, and where its value goes. The one place that knows them:
//! the file, the environment and the messages are read from here.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Config;
use super::tree::{Found, Value};
use crate::store::Delay;

/// One key.
pub(super) struct Key {
    /// Path, with a dot between the levels.
    pub(super) path: &'static str,
    /// What is allowed, in words that follow "must be".
    pub(super) allowed: &'static str,
    /// Puts a value in its place, or says what was found instead.
    pub(super) read: fn(&mut Config, &Value) -> Result<(), Found>,
}

impl Key {
    /// The environment variable that overrides it.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// What every variable of ours begins with.
pub(super) const PREFIX: &str = "MILLRACE_";

const KB: i64 = 1_000;
const MB: i64 = 1_000_000;

pub(super) const KEYS: &[Key] = &[
    Key {
        path: "api.listen",
        allowed: "ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080; port 0 = any free one",
        read: |config, value| {
            config.listen = value.text()?.trim().parse().map_err(|_| value.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "metrics.listen",
        allowed: "ADDRESS:PORT, such as 127.0.0.1:9998 or [::1]:9998; port 0 = any free one; off = none",
        read: |config, value| {
            let text = value.text()?.trim();
            config.metrics = match text {
                "off" => None,
                address => Some(address.parse().map_err(|_| value.to_string())?),
            };
            Ok(())
        },
    },
    Key {
        path: "klv.decode",
        allowed: "true or false",
        read: |config, value| {
            config.klv = value.flag()?;
            Ok(())
        },
    },
    Key {
        path: "shards",
        allowed: "a whole number from 0 to 256; 0 = one per core",
        read: |config, value| {
            config.shards = Some(value.whole(0..=256)? as usize).filter(|shards| *shards > 0);
            Ok(())
        },
    },
    Key {
        path: "pin_shards",
        allowed: "true or false",
        read: |config, value| {
            config.pin_shards = value.flag()?;
            Ok(())
        },
    },
    Key {
        path: "lane.max_seconds",
        allowed: "a whole number from 1 to 60",
        read: |config, value| {
            config.lane.time = seconds(value, 1..=60)?;
            Ok(())
        },
    },
    Key {
        path: "lane.max_mb",
        allowed: "a whole number from 1 to 4096",
        read: |config, value| {
            config.lane.bytes = (value.whole(1..=4096)? * MB) as usize;
            Ok(())
        },
    },
    Key {
        path: "input.stall_after_s",
        allowed: "a number from 0.1 to 3600",
        read: |config, value| {
            config.stall_after = Duration::from_secs_f64(value.real(0.1..=3600.0)?);
            Ok(())
        },
    },
    Key {
        path: "input.rcvbuf_kb",
        allowed: "a whole number from 64 to 1000000",
        read: |config, value| {
            config.rcvbuf = (value.whole(64..=1_000_000)? * KB) as usize;
            Ok(())
        },
    },
    Key {
        path: "output.delay_ms",
        allowed: "0, 5, 10, 20 or 40",
        read: |config, value| {
            config.delay = Delay::from_ms(value.whole(0..=40)? as u64).ok_or_else(|| value.to_string())?;
            Ok(())
        },
    },
    Key { path: "reconnect.delay_s", allowed: "a whole number from 1 to 300", read: read_reconnect_delay },
    Key {
        path: "reconnect.cap_s",
        allowed: "a whole number from 1 to 3600",
        read: |config, value| {
            config.reconnect.cap = seconds(value, 1..=3600)?;
            Ok(())
        },
    },
    Key {
        path: "reconnect.jitter",
        allowed: "a number from 0 to 1",
        read: |config, value| {
            config.reconnect.jitter = value.real(0.0..=1.0)?;
            Ok(())
        },
    },
    Key {
        path: "reconnect.max_attempts",
        allowed: "a whole number from 0 to 1000000; 0 = for ever",
        read: read_max_attempts,
    },
    Key {
        path: "reconnect.fatal_retry_s",
        allowed: "a whole number from 0 to 86400; 0 = never",
        read: |config, value| {
            config.reconnect.fatal_retry = Some(seconds(value, 0..=86_400)?).filter(|wait| !wait.is_zero());
            Ok(())
        },
    },
    Key {
        path: "dial.per_host",
        allowed: "a whole number from 1 to 1000",
        read: |config, value| {
            config.dial.per_host = value.whole(1..=1000)? as usize;
            Ok(())
        },
    },
    Key {
        path: "dial.total",
        allowed: "a whole number from 1 to 10000",
        read: |config, value| {
            config.dial.total = value.whole(1..=10_000)? as usize;
            Ok(())
        },
    },
    Key {
        path: "hosts.deny",
        allowed: "a list of ADDRESS or ADDRESS/PREFIX; [] = none",
        read: |config, value| {
            let network = |text| network(text).ok_or_else(|| format!("'{text}'"));
            config.denied_hosts = value.texts()?.into_iter().map(network).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Key {
        path: "data_dir",
        allowed: "the path of a folder",
        read: |config, value| {
            config.data_dir = folder(value.text()?)?.into();
            Ok(())
        },
    },
    Key {
        path: "media_roots",
        allowed: "a list of paths of folders; [] = no files",
        read: |config, value| {
            let folders = value.texts()?.into_iter().map(|text| Ok(folder(text)?.into()));
            config.media_roots = folders.collect::<Result<_, Found>>()?;
            Ok(())
        },
    },
    Key {
        path: "udp_port_range",
        allowed: "FIRST-LAST, two ports from 1024 to 65535, such as 5000-5100",
        read: |config, value| {
            config.udp_ports = ports(value)?;
            Ok(())
        },
    },
    Key {
        path: "srt_port_range",
        allowed: "FIRST-LAST, two ports from 1024 to 65535, such as 8891-8990",
        read: |config, value| {
            config.srt_ports = ports(value)?;
            Ok(())
        },
    },
    Key {
        path: "limits.max_outputs_per_input",
        allowed: "a whole number from 0 to 1000000; 0 = unlimited",
        read: read_max_outputs,
    },
    Key {
        path: "limits.max_sessions",
        allowed: "a whole number from 1 to 10000",
        read: |config, value| {
            config.max_sessions = value.whole(1..=10_000)? as usize;
            Ok(())
        },
    },
    Key {
        path: "tls.certificate",
        allowed: "the path of a PEM file, or none",
        read: |config, value| {
            config.tls_certificate = file(value)?;
            Ok(())
        },
    },
    Key {
        path: "tls.key",
        allowed: "the path of a PEM file, or none",
        read: |config, value| {
            config.tls_key = file(value)?;
            Ok(())
        },
    },
    Key {
        path: "public.host",
        allowed: "a name or an address, or none",
        read: |config, value| {
            let host = value.text()?.trim();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let named = (1..=253).contains(&host.len()) && host.chars().all(name);
            if !named && host.parse::<IpAddr>().is_err() {
                return Err(value.to_string());
            }
            config.public_host = (host != "none").then(|| host.to_owned());
            Ok(())
        },
    },
    Key {
        path: "public.rtsp_port",
        allowed: "a port from 1 to 65535; 0 = the one that is listened on",
        read: |config, value| {
            config.public_ports.rtsp = port(value)?;
            Ok(())
        },
    },
    Key {
        path: "public.rtsps_port",
        allowed: "a port from 1 to 65535; 0 = the one that is listened on",
        read: |config, value| {
            config.public_ports.rtsps = port(value)?;
            Ok(())
        },
    },
    Key {
        path: "public.srt_port",
        allowed: "a port from 1 to 65535; 0 = the one that is listened on",
        read: |config, value| {
            config.public_ports.srt = port(value)?;
            Ok(())
        },
    },
    Key {
        path: "cot.include_read_credentials",
        allowed: "true or false",
        read: |config, value| {
            config.include_read_credentials = value.flag()?;
            Ok(())
        },
    },
    Key { path: "log.level", allowed: "error, warn, info, debug or trace", read: read_log_level },
];

/// Variables under the names of the contract that the API keeps, weaker than those of our own.
pub(super) const CONTRACT: &[(&str, Key)] = &[
    (
        "PORT",
        Key {
            path: "api.listen",
            allowed: "a port from 1 to 65535",
            read: |config, value| {
                config.listen = SocketAddr::new(config.listen.ip(), value.whole(1..=65_535)? as u16);
                Ok(())
            },
        },
    ),
    (
        "LOG_LEVEL",
        Key { path: "log.level", allowed: "error, warn, info, debug or trace", read: read_log_level },
    ),
    (
        "DEFAULT_RECONNECT_DELAY",
        Key {
            path: "reconnect.delay_s",
            allowed: "a whole number from 1 to 300",
            read: read_reconnect_delay,
        },
    ),
    (
        "MAX_RECONNECT_ATTEMPTS",
        Key {
            path: "reconnect.max_attempts",
            allowed: "a whole number from 0 to 1000000; 0 = for ever",
            read: read_max_attempts,
        },
    ),
    (
        "MAX_OUTPUTS_PER_INPUT",
        Key {
            path: "limits.max_outputs_per_input",
            allowed: "a whole number from 0 to 1000000; 0 = unlimited",
            read: read_max_outputs,
        },
    ),
    (
        "UDP_PORT_RANGE_START",
        Key {
            path: "udp_port_range",
            allowed: "a port from 1024 to 65535",
            read: |config, value| {
                config.udp_ports = value.whole(PORTS)? as u16..=*config.udp_ports.end();
                Ok(())
            },
        },
    ),
    (
        "UDP_PORT_RANGE_END",
        Key {
            path: "udp_port_range",
            allowed: "a port from 1024 to 65535",
            read: |config, value| {
                config.udp_ports = *config.udp_ports.start()..=value.whole(PORTS)? as u16;
                Ok(())
            },
        },
    ),
    (
        "SRT_PORT_RANGE_START",
        Key {
            path: "srt_port_range",
            allowed: "a port from 1024 to 65535",
            read: |config, value| {
                config.srt_ports = value.whole(PORTS)? as u16..=*config.srt_ports.end();
                Ok(())
            },
        },
    ),
    (
        "SRT_PORT_RANGE_END",
        Key {
            path: "srt_port_range",
            allowed: "a port from 1024 to 65535",
            read: |config, value| {
                config.srt_ports = *config.srt_ports.start()..=value.whole(PORTS)? as u16;
                Ok(())
            },
        },
    ),
];

/// `none` is none.
fn file(value: &Value) -> Result<Option<std::path::PathBuf>, Found> {
    Ok(Some(folder(value.text()?)?).filter(|path| *path != "none").map(Into::into))
}

fn read_reconnect_delay(config: &mut Config, value: &Value) -> Result<(), Found> {
    config.reconnect.delay = value.whole(1..=300)? as u16;
    Ok(())
}

fn read_max_attempts(config: &mut Config, value: &Value) -> Result<(), Found> {
    config.reconnect.max_attempts = value.whole(0..=1_000_000)? as u32;
    Ok(())
}

fn read_max_outputs(config: &mut Config, value: &Value) -> Result<(), Found> {
    config.max_outputs_per_input = Some(value.whole(0..=1_000_000)? as usize).filter(|max| *max > 0);
    Ok(())
}

fn read_log_level(config: &mut Config, value: &Value) -> Result<(), Found> {
    let word = value.text()?.trim().to_ascii_lowercase();
    config.log_level = match word.as_str() {
        "error" => tracing::Level::ERROR,
        "warn" | "warning" => tracing::Level::WARN,
        "info" => tracing::Level::INFO,
        "debug" => tracing::Level::DEBUG,
        "trace" => tracing::Level::TRACE,
        _ => return Err(value.to_string()),
    };
    Ok(())
}

/// `FIRST-LAST`
fn ports(value: &Value) -> Result<RangeInclusive<u16>, Found> {
    let (first, last) = value.text()?.split_once('-').ok_or_else(|| value.to_string())?;
    let port = |text: &str| Value::Text(text.into()).whole(PORTS).map(|port| port as u16);
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(value.to_string()) } else { Ok(range) }
}

/// 0 is none.
fn port(value: &Value) -> Result<Option<u16>, Found> {
    Ok(Some(value.whole(0..=65_535)? as u16).filter(|port| *port != 0))
}

fn seconds(value: &Value, range: RangeInclusive<i64>) -> Result<Duration, Found> {
    value.whole(range).map(|seconds| Duration::from_secs(seconds as u64))
}

/// `ADDRESS/PREFIX` (RFC 4632, RFC 4291); an address alone is the network of this address.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
    (prefix <= longest).then_some((address, prefix))
}

fn folder(text: &str) -> Result<&str, Found> {
    if text.trim().is_empty() { Err("nothing".into()) } else { Ok(text) }
}

/// What the contract allows for UDP inputs.
const PORTS: RangeInclusive<i64> = 1024..=65_535;
