//! `millrace demo`: the main job with nothing configured. A stream that the program holds enters, six outputs on
//! loopback, a live table and a verdict leave. Never sends a packet off this machine.

mod ear;
mod folder;
mod table;
mod verdict;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use millrace::app::{App, StartError};
use millrace::config::{Config, InputSeed, OutputSeed};
use millrace::control::{Board, Command, Unanswered};
use millrace::hub::Tools;
use millrace::net::{Interface, InterfaceError, Receiver, SocketError, clock};
use millrace::store::{InputDraft, InputId, OutputDraft, OutputId, OutputSpec};
use millrace::telemetry::State;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::ear::Ear;
use self::folder::Folder;
use self::table::{Screen, Table, Tone};

/// Runs until Ctrl-C, SIGTERM or the end of so many seconds, then drains. The exit code is 0 when every output that
/// was received is what went in.
pub(crate) async fn run(seconds: Option<u64>) -> io::Result<ExitCode> {
    let end = End::new(seconds)?;
    match Demo::start().await {
        Ok(demo) => demo.play(end).await,
        Err(error) => {
            writeln!(io::stderr(), "{error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A running engine and those who listen to it.
struct Demo {
    app: App,
    ears: Arc<Mutex<Vec<Ear>>>,
    /// Feeds the ears.
    listening: JoinSet<()>,
    /// Where nobody listens.
    closed: SocketAddr,
    #[expect(dead_code, reason = "held: removed when dropped")]
    folder: Folder,
}

/// Why the demo did not start.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot put the sample stream into a folder: {0}")]
    Folder(#[from] io::Error),
    #[error("cannot listen to an output: {0}")]
    Socket(#[from] SocketError),
    #[error("cannot send to a group on loopback: {0}")]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot start the input: {0}")]
    Input(#[from] Unanswered),
}

impl Demo {
    async fn start() -> Result<Self, DemoError> {
        let folder = Folder::create()?;
        std::fs::write(folder.path().join(FILE), SAMPLE)?;
        let (mut ears, mut outputs) = (Vec::new(), Vec::new());
        for heard in &HEARD {
            let interface = heard.host.is_multicast().then(|| Interface::find(LOOPBACK)).transpose()?;
            let ear =
                Ear::open(IpAddr::V4(heard.host), interface, heard.scheme == "rtp", SAMPLE.as_chunks().0)?;
            outputs.push((heard.name, format!("{}://{}{}", heard.scheme, ear.address(), heard.options)));
            ears.push(ear);
        }
        // Taken and let go: nobody listens there.
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        outputs.push(("closed port", format!("udp://{closed}")));

        let app = engine(configuration(&folder, outputs)).await?;
        let ears = Arc::new(Mutex::new(ears));
        // Only who is there when the stream begins gets its first packet.
        connected(app.board()).await;
        app.commands().ask(|reply| Command::StartInput { id: INPUT, reply }).await?;
        let mut listening = JoinSet::new();
        listening.spawn(listen(Arc::clone(&ears), Arc::clone(app.board())));
        Ok(Self { app, ears, listening, closed, folder })
    }

    async fn play(self, end: End) -> io::Result<ExitCode> {
        let screen = Screen::open()?;
        let mut draw = tokio::time::interval(if screen.is_terminal() { REDRAW } else { REPRINT });
        if !screen.is_terminal() {
            // The first moment is at once, when there is nothing to print yet.
            draw.tick().await;
        }
        let mut end = std::pin::pin!(end.come());
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = draw.tick() => screen.show(&self.table())?,
            }
        }
        let mut last = self.table();
        let Self { app, ears, mut listening, .. } = self;
        app.stop().await;
        // What was sent last is still to be read.
        tokio::time::sleep(2 * LISTEN).await;
        listening.shutdown().await;
        let ears = ears.lock();
        for output in &mut last.outputs {
            output.note = note(&ears, output.id);
        }
        let good = ears.iter().all(Ear::is_good);
        let verdict = if good {
            (Tone::Good, "Drained. Every output that was received is what went in.")
        } else {
            (Tone::Bad, "Drained. An output that should be what went in is not.")
        };
        screen.close(&last, verdict)?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn table(&self) -> Table {
        let ears = self.ears.lock();
        let api = format!("http://{}/api", self.app.address());
        let group = HEARD.iter().zip(ears.iter()).find(|(heard, _)| heard.host.is_multicast());
        let mut hints = vec![
            ("Try", format!("curl {api}/inputs/1/outputs")),
            ("Watch", format!("ffplay udp://{}   (the closed port: then nothing is refused)", self.closed)),
        ];
        if let Some((_, ear)) = group {
            hints.push(("", format!("ffplay 'udp://{}?localaddr=127.0.0.1'", ear.address())));
            hints.push(("", format!("vlc --miface={LOOPBACK} udp://@{}", ear.address())));
        }
        Table::read(self.app.board(), clock::wall(), api, hints, |output| note(&ears, output))
    }
}

/// What is said about an output. The engine numbers them as they were made, from 1 on.
fn note(ears: &[Ear], output: OutputId) -> (Tone, String) {
    match ears.iter().zip(1..).find(|(_, id)| *id == output) {
        Some((ear, _)) => ear.note(),
        None if output == ears.len() as OutputId + 1 => {
            (Tone::Faint, "nobody listens there, on purpose: start a player (below)".into())
        }
        None => (Tone::Faint, "added while the demo runs".into()),
    }
}

/// What ends the demo.
struct End {
    signals: [Signal; 3],
    after: Option<Duration>,
}

impl End {
    fn new(seconds: Option<u64>) -> io::Result<Self> {
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            // The terminal went away.
            signal(SignalKind::hangup())?,
        ];
        Ok(Self { signals, after: seconds.map(Duration::from_secs) })
    }

    async fn come(self) {
        let [mut interrupt, mut terminate, mut hangup] = self.signals;
        let over = async {
            match self.after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = over => {}
        }
    }
}

/// Starts the engine; its API takes any free port when the usual one is taken.
async fn engine(config: Config) -> Result<App, StartError> {
    match App::start(config.clone()).await {
        Err(StartError::Listen { source, address }) if source.kind() == io::ErrorKind::AddrInUse => {
            App::start(Config { listen: SocketAddr::new(address.ip(), 0), ..config }).await
        }
        started => started,
    }
}

fn configuration(folder: &Folder, outputs: Vec<(&str, String)>) -> Config {
    let outputs = outputs.into_iter().map(|(name, url)| OutputSeed {
        draft: OutputDraft {
            name: name.into(),
            url: url.into(),
            protocol: None,
            auto_reconnect: None,
            reconnect_delay: None,
            max_reconnect_attempts: None,
        },
        enabled: true,
    });
    let input = InputSeed {
        draft: InputDraft {
            name: "STANAG 4609 sample".into(),
            url: Some(format!("file:{FILE}?loop=true").into()),
            udp_port: None,
        },
        // Started when its outputs are there.
        enabled: false,
        outputs: outputs.collect(),
    };
    Config {
        media_roots: vec![folder.path().into()],
        data_dir: folder.path().into(),
        inputs: vec![input],
        // Beside an engine at work it would find the port taken.
        metrics: None,
        ..Config::default()
    }
}

/// Waits until every output waits for the stream, but not for ever: the table tells what is wrong with one.
async fn connected(board: &Board) {
    for _ in 0..CONNECT_LOOKS {
        let outputs = board.inputs(0, 1).into_iter().flat_map(|input| input.outputs());
        if outputs.into_iter().all(|output| output.peek(|status| status.state == State::Starved)) {
            return;
        }
        tokio::time::sleep(LISTEN).await;
    }
}

/// Feeds the ears. The engine is for trying out: whoever stops or changes the input or an output through the API
/// must not be told that packets are missing.
async fn listen(ears: Arc<Mutex<Vec<Ear>>>, board: Arc<Board>) {
    let input = board.input(INPUT);
    let outputs: Vec<_> =
        input.iter().flat_map(|input| input.outputs()).map(|output| output.spec()).collect();
    let input = input.map(|input| input.card.spec());
    let changed = |output: &Arc<OutputSpec>| {
        let (now, here) = (board.input(INPUT), board.output(INPUT, output.id));
        let same = now.zip(input.as_ref()).is_some_and(|(now, input)| Arc::ptr_eq(&now.card.spec(), input));
        !same || here.is_none_or(|here| !Arc::ptr_eq(&here.spec(), output))
    };
    let mut tools = Tools { receiver: Receiver::new() };
    let mut look = tokio::time::interval(LISTEN);
    loop {
        look.tick().await;
        for (ear, output) in ears.lock().iter_mut().zip(&outputs) {
            ear.poll(&mut tools, clock::now());
            if changed(output) {
                ear.close();
            }
        }
    }
}

/// An output that the demo receives and compares.
struct Heard {
    name: &'static str,
    scheme: &'static str,
    host: Ipv4Addr,
    options: &'static str,
}

/// Six seconds of H.264 with synchronous KLV.
const SAMPLE: &[u8] = include_bytes!("../../testdata/ts/h264_sync.ts");
/// The engine numbers inputs from 1 on.
const INPUT: InputId = 1;
const FILE: &str = "stanag4609.ts";
const LOOPBACK: &str = "lo";
/// Administratively scoped (RFC 2365, 6.1): used by one organisation as it likes.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 46, 9);
const HEARD: [Heard; 5] = [
    Heard { name: "plain", scheme: "udp", host: Ipv4Addr::LOCALHOST, options: "" },
    Heard { name: "at once", scheme: "udp", host: Ipv4Addr::LOCALHOST, options: "?delay_ms=0" },
    Heard { name: "large batches", scheme: "udp", host: Ipv4Addr::LOCALHOST, options: "?delay_ms=40" },
    Heard { name: "RTP", scheme: "rtp", host: Ipv4Addr::LOCALHOST, options: "" },
    Heard { name: "multicast", scheme: "udp", host: GROUP, options: "?interface=lo" },
];
const REDRAW: Duration = Duration::from_millis(500);
const REPRINT: Duration = Duration::from_secs(5);
/// How often what was received is read: the sockets hold many times more.
const LISTEN: Duration = Duration::from_millis(10);
const CONNECT_LOOKS: u32 = 300;
