//! One attempt to make an input's source or an output's way: a parsed url enters, a driver or a target leaves.
//! Runs on the control runtime, never on a data thread.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use super::director::Defaults;
use super::feeders::Feeder;
use super::rtmp::{self, RtmpError};
use super::rtsp::{self, Group, RtspError};
use super::servers::{Server, ServerError};
use super::sessions::{self, Plan};
use super::tak::FileError;
use crate::egress::{DumpError, Framing, LagPolicy, Leg, OutputKey, Peer, Target};
use crate::hub::{Lane, StreamKey};
use crate::ingest::{Driver, FileDriver, SenderRule, UdpDriver};
use crate::media::Nanos;
use crate::mux::Derivation;
use crate::net::{
    ByteStream, HostPolicy, Interface, InterfaceError, ReceiveOptions, ResolveError, Route, RouteError,
    SendOptions, SocketError, TlsError, bind_receiver, resolve, route_to,
};
use crate::store::{
    Container, FileOutput, InputUrl, OutputUrl, Pace, PathError, Payload, Roots, UdpInput, UdpOutput,
};
use crate::supervise::Class;
use crate::telemetry::OutputStats;
use crate::wire::srt::crypto::BadPassphrase;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("source {0} is of another address family than the group")]
    SourceFamily(IpAddr),
    #[error("{host} has no address of the family of {local}")]
    Family { host: String, local: IpAddr },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("the file did not open within {OPEN_TIMEOUT:?}")]
    Slow,
    #[error(transparent)]
    Passphrase(#[from] BadPassphrase),
    #[error("the key cannot be refreshed so: {0}")]
    Refresh(&'static str),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Rtmp(#[from] RtmpError),
    #[error(transparent)]
    Rtsp(#[from] RtspError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no connection within {0:?}")]
    Late(Duration),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("cannot read the certificates of tls_ca: {0}")]
    Authorities(std::io::Error),
    #[error("the attempt made something else than was asked for")]
    Broken,
}

impl DialError {
    /// Whether trying again may help without a change of the configuration.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Resolve(ResolveError::Denied(_))
            | Self::SourceFamily(_)
            | Self::Passphrase(_)
            | Self::Refresh(_) => Class::Fatal,
            Self::Socket(error) if !error.is_retryable() => Class::Fatal,
            Self::Path(error) if !error.is_retryable() => Class::Fatal,
            Self::Server(error) if !error.is_retryable() => Class::Fatal,
            Self::Tls(error) if !error.is_retryable() => Class::Fatal,
            Self::Rtmp(error) if !error.is_retryable() => Class::Fatal,
            Self::Rtsp(error) if !error.is_retryable() => Class::Fatal,
            Self::File(error) if !error.is_retryable() => Class::Fatal,
            Self::Broken => Class::Bug,
            _ => Class::Retry,
        }
    }
}

/// A source that is ready to be read.
pub(super) struct Source {
    pub(super) driver: Driver,
    /// Receive buffer asked for and granted, bytes.
    pub(super) buffer: Option<(usize, usize)>,
}

/// What feeds an input.
pub(super) enum Origin {
    /// A driver that is ready.
    Source(Source),
    /// Sessions that are still to begin.
    Sessions(Box<Plan>),
    /// A source that a task reads.
    Feeder(Feeder),
    /// A place at a port, for peers that publish.
    Place(Place),
}

/// A place at a TCP port where peers dial in.
pub(super) struct Place {
    /// The port.
    pub(super) server: Arc<Server>,
    /// What peers ask for.
    pub(super) name: Box<str>,
    /// User and password that they have to give.
    pub(super) login: Option<(Box<str>, Box<str>)>,
    /// An input: a second publisher takes the place of the first.
    pub(super) replace: bool,
    /// An output: peers at the same time.
    pub(super) max_sessions: usize,
    /// An output: delay class, nanoseconds.
    pub(super) delay: Nanos,
    /// An output: what becomes of a peer that falls behind.
    pub(super) lag: LagPolicy,
    /// An output over RTSP: what its packets carry.
    pub(super) payload: Payload,
    /// An output over RTSP: a group that it sends to.
    pub(super) group: Option<Group>,
    /// An output: what has to be made ready for those who will read.
    pub(super) derivation: Option<Derivation>,
}

/// A connection to a peer that waits for media, its handshakes done.
pub(super) struct Connected {
    /// The connection.
    pub(super) socket: ByteStream,
    /// Where its packets go; empty = over it.
    pub(super) legs: Vec<Leg>,
    /// What to say before any message.
    pub(super) greeting: Vec<u8>,
    /// Hears what the peer says.
    pub(super) peer: Box<dyn Peer>,
    /// What it sends.
    pub(super) derivation: Derivation,
    /// Delay class, nanoseconds.
    pub(super) delay: Nanos,
    /// What becomes of it when it falls behind.
    pub(super) lag: LagPolicy,
}

/// A way to a destination.
pub(super) struct Way {
    pub(super) target: Target,
    pub(super) route: Route,
}

/// Makes an input's source: resolves, binds, joins; or opens the file.
/// For sessions it only plans; peers ask for them by `name` where the url has no other.
/// The `turn`th attempt dials another address of a name than the one before.
pub(super) async fn source(
    url: &InputUrl,
    name: &str,
    turn: u32,
    defaults: &Defaults,
) -> Result<Origin, DialError> {
    let source = match url {
        InputUrl::Udp(udp) => {
            let (driver, buffer) = receiver(udp, defaults).await?;
            Source { driver: Driver::Udp(Box::new(UdpDriver::new(driver.0, driver.1))), buffer }
        }
        InputUrl::Rtp(rtp) => {
            let (driver, buffer) = receiver(&rtp.udp, defaults).await?;
            let driver = UdpDriver::rtp(driver.0, driver.1, rtp.reorder);
            Source { driver: Driver::Udp(Box::new(driver)), buffer }
        }
        InputUrl::Srt(srt) => {
            return Ok(Origin::Sessions(Box::new(sessions::receive(srt, name, turn, defaults).await?)));
        }
        InputUrl::Rtmp(url) => return rtmp::source(url, name, defaults).await,
        InputUrl::Rtsp(url) => return rtsp::source(url, name, defaults).await,
        InputUrl::File(file) => {
            let (roots, path) = (Arc::clone(&defaults.roots), file.path.clone());
            // A network file system may block for long: not on the runtime's own threads.
            let open = tokio::task::spawn_blocking(move || roots.open_read(&path));
            let opened = match tokio::time::timeout(OPEN_TIMEOUT, open).await {
                Ok(Ok(opened)) => opened?,
                Ok(Err(_)) => return Err(DialError::Broken),
                Err(_) => return Err(DialError::Slow),
            };
            let driver = FileDriver::start(opened, file.looped).map_err(DialError::Thread)?;
            Source { driver: Driver::File(Box::new(driver)), buffer: None }
        }
    };
    Ok(Origin::Source(source))
}

type Receiver = (crate::net::UdpReceiver, SenderRule);

async fn receiver(
    udp: &UdpInput,
    defaults: &Defaults,
) -> Result<(Receiver, Option<(usize, usize)>), DialError> {
    // What is listened to is ours: the policy is about whom we dial.
    let addresses = resolve(&udp.host, udp.port, &Default::default()).await?;
    let fits = |a: &&SocketAddr| udp.source.is_none_or(|source| source.is_ipv4() == a.is_ipv4());
    let address = *addresses.iter().find(fits).or(addresses.first()).ok_or(DialError::Broken)?;
    let interface = udp.interface.as_deref().map(Interface::find).transpose()?;
    let group = address.ip().is_multicast();
    if let Some(source) = udp.source
        && group
        && source.is_ipv4() != address.is_ipv4()
    {
        return Err(DialError::SourceFamily(source));
    }
    let rule = match udp.source {
        _ if group => SenderRule::All,
        Some(source) => SenderRule::Only(source),
        None => SenderRule::First(udp.stall_after.unwrap_or(defaults.stall_after)),
    };
    let requested = udp.rcvbuf.unwrap_or(defaults.rcvbuf);
    let options = ReceiveOptions { address, interface, source: udp.source, buffer: requested };
    let mut tries = 0;
    let socket = loop {
        match bind_receiver(&options) {
            // A former driver of the same input is let go by its shard within milliseconds.
            Err(error) if error.is_taken() && tries < BIND_TRIES => tokio::time::sleep(BIND_WAIT).await,
            bound => break bound?,
        }
        tries += 1;
    };
    let granted = socket.granted_buffer();
    Ok(((socket, rule), Some((requested, granted))))
}

/// Finds the way to an output's destination: resolves, and asks for the route.
pub(super) async fn way(
    (key, attempt): (OutputKey, u32),
    stream: StreamKey,
    url: &OutputUrl,
    defaults: &Defaults,
    lane: Arc<Lane>,
    stats: Arc<OutputStats>,
) -> Result<Option<Way>, DialError> {
    let (udp, framing) = match url {
        OutputUrl::Udp(udp) => (udp, Framing::Udp),
        OutputUrl::Rtp(udp) => (udp, Framing::Rtp),
        OutputUrl::Srt(_)
        | OutputUrl::Rtmp(_)
        | OutputUrl::Rtsp(_)
        | OutputUrl::File(_)
        | OutputUrl::Klv(_)
        | OutputUrl::Cot(_) => return Ok(None),
    };
    let addresses = resolve(&udp.host, udp.port, &defaults.policy).await?;
    let interface = udp.interface.as_deref().map(Interface::find).transpose()?;
    let (destination, route) = find_way(&addresses, interface.as_ref())?;
    let target = Target {
        key,
        attempt,
        stream,
        local: false,
        lane,
        destination,
        socket: socket_options(udp, destination, route, interface.is_some()),
        framing,
        delay: udp.delay.unwrap_or(defaults.delay).as_ms() * 1_000_000,
        paced: udp.pace == Pace::Pcr,
        stats,
    };
    Ok(Some(Way { target, route }))
}

/// The first of these addresses that there is a way to.
pub(super) fn find_way(
    addresses: &[SocketAddr],
    interface: Option<&Interface>,
) -> Result<(SocketAddr, Route), DialError> {
    let mut failed = None;
    for &address in addresses {
        match route_to(address.ip(), interface.map_or(0, |interface| interface.index)) {
            Ok(route) => return Ok((address, route)),
            // What is said is why there is no way to the one that the resolver likes best.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.map_or(DialError::Broken, DialError::Route))
}

/// Connects to the first address of a name that takes the connection. One that keeps silent is given `PATIENCE` while
/// there are others; the caller bounds the whole.
pub(super) async fn connect(
    host: &str,
    port: u16,
    policy: &HostPolicy,
) -> Result<(TcpStream, SocketAddr), DialError> {
    connect_to(&resolve(host, port, policy).await?).await
}

async fn connect_to(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut failed = DialError::Broken;
    for (index, &address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if index + 1 == addresses.len() {
            connecting.await
        } else {
            let silent = |_| Err(std::io::ErrorKind::TimedOut.into());
            tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(silent)
        };
        match connected {
            Ok(socket) => return Ok((socket, address)),
            Err(source) => failed = DialError::Connect { address, source },
        }
    }
    Err(failed)
}

fn socket_options(udp: &UdpOutput, destination: SocketAddr, route: Route, forced: bool) -> SendOptions {
    SendOptions {
        v6: destination.is_ipv6(),
        // Outputs that share a port of their own share its socket, whichever way they leave.
        interface: if udp.source_port.is_some() && !forced { 0 } else { route.interface },
        force_interface: forced,
        ttl: udp.ttl,
        dscp: udp.dscp,
        source_port: udp.source_port,
    }
}

/// Makes the files of an output: the one that was named, or with rotation one for each start time. An MP4 file has one
/// head and one timeline: where there is something in it already, the next one has its start time in its name, too.
pub(super) fn files(
    output: &FileOutput,
    roots: Arc<Roots>,
) -> impl FnMut(SystemTime) -> Result<std::fs::File, DumpError> + Send + 'static {
    let rotates = output.rotate_bytes.is_some() || output.rotate_after.is_some();
    let grows = output.container == Container::Ts;
    let path = output.path.clone();
    let mut last = String::new();
    let mut same = 0;
    move |at| {
        let open = |path: &Path| -> Result<Option<std::fs::File>, DumpError> {
            let file = roots.append(path).map_err(refusal)?;
            Ok((grows || file.metadata()?.len() == 0).then_some(file))
        };
        if !rotates && let Some(file) = open(&path)? {
            return Ok(file);
        }
        for _ in 0..NAMES {
            let mut stamp = stamp(at);
            same = if stamp == last { same + 1 } else { 0 };
            last.clone_from(&stamp);
            if same > 0 {
                stamp.push_str(&format!("-{same}"));
            }
            if let Some(file) = open(&stamped(&path, &stamp))? {
                return Ok(file);
            }
        }
        Err(DumpError::Io(std::io::ErrorKind::AlreadyExists.into()))
    }
}

/// A path that leads out of its root by now is wrong, not late.
fn refusal(error: PathError) -> DumpError {
    if error.is_retryable() {
        DumpError::Io(std::io::Error::other(error))
    } else {
        DumpError::Refused(error.to_string())
    }
}

fn stamped(path: &Path, stamp: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{stamp}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{stamp}"),
    };
    path.with_file_name(name)
}

/// `20240131T235959Z`, in UTC.
fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970-01-01, in 400-year eras that start on 1 March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_of_year + 2) / 5 + 1;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// How many names of one second are tried.
const NAMES: usize = 64;
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an address may say nothing before the next one is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const BIND_TRIES: u32 = 20;
const BIND_WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_refuses_leaves_the_connection_to_the_next_one() {
        let closed = |ip: &str| {
            let socket = std::net::TcpListener::bind((ip, 0)).unwrap();
            socket.local_addr().unwrap()
        };
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = open.local_addr().unwrap();
        let (socket, address) = connect_to(&[closed("127.0.0.1"), at]).await.unwrap();
        assert_eq!((address, socket.peer_addr().unwrap()), (at, at));
        let (one, other) = (closed("127.0.0.1"), closed("127.0.0.1"));
        let error = connect_to(&[one, other]).await.unwrap_err().to_string();
        assert!(error.contains(&other.to_string()), "{error}");
    }

    #[test]
    fn an_address_without_a_way_is_left_out() {
        let all: Vec<SocketAddr> = ["[2001:db8::1]:9", "127.0.0.1:9"].map(|a| a.parse().unwrap()).into();
        let lo = Interface::find("lo").unwrap();
        // Loopback has no way to the first.
        assert_eq!(find_way(&all, Some(&lo)).unwrap().0, all[1]);
    }

    #[test]
    fn stamps_are_utc() {
        let at = |s| stamp(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_827_696), "20000229T123456Z");
        assert_eq!(at(1_795_219_199), "20261120T235959Z");
    }

    #[test]
    fn an_mp4_file_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Arc::new(Roots::new(vec![folder.path().into()]));
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let write = |name: &str| {
            let output = OutputUrl::parse(&format!("file:{name}")).unwrap();
            let OutputUrl::File(file) = &output else { panic!("no file") };
            let mut create = files(file, Arc::clone(&roots));
            for at in [0, 0, 1] {
                let mut file = create(UNIX_EPOCH + Duration::from_secs(at)).unwrap();
                std::io::Write::write_all(&mut file, b"x").unwrap();
            }
        };
        write("a.mp4");
        assert_eq!(names(), ["a-19700101T000000Z.mp4", "a-19700101T000001Z.mp4", "a.mp4"]);
        write("a.mp4?rotate_s=9");
        assert_eq!(names().len(), 6);
        // A transport stream may go on anywhere.
        write("a.ts");
        assert_eq!(names().len(), 7);
        assert_eq!(std::fs::read(folder.path().join("a.ts")).unwrap(), b"xxx");
    }

    #[test]
    fn the_stamp_goes_before_the_extension() {
        assert_eq!(stamped(Path::new("a/b.ts"), "S"), Path::new("a/b-S.ts"));
        assert_eq!(stamped(Path::new("dump"), "S"), Path::new("dump-S"));
    }
}
