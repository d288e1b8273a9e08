//! What SRT is compared with: programs over libsrt, and srt-tokio, each fed by the same source as the engine
//! and sending to the same receivers.

use std::env;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use srt_tokio::options::{ByteCount, SocketOptions};
use srt_tokio::{SrtListener, SrtSocket};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::helper::{self, Helper, Requests, Role};
use crate::plan::{AGAINST_LO, Against, Options, local};
use crate::srt::{PASSPHRASE, PORTS, Part, Srt};
use crate::{Result, network, sys};

/// Compiles the program over libsrt; `None` where there is no compiler or no libsrt.
pub(crate) fn compile() -> Result<Option<PathBuf>> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/density/libsrt.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density-libsrt");
    let mut command = Command::new("cc");
    command.args(["-O2", "-o"]).arg(&program).arg(&source);
    if let Some(prefix) = env::var_os("LIBSRT_PREFIX").map(PathBuf::from) {
        command.arg("-I").arg(prefix.join("include")).arg("-L").arg(prefix.join("lib"));
        command.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    }
    let output = command.args(["-lsrt", "-lpthread"]).output();
    Ok(output.is_ok_and(|output| output.status.success()).then_some(program))
}

/// Starts the program over libsrt as a copier.
pub(crate) fn start_libsrt(options: &Options, srt: &Srt, cpus: &[usize]) -> Result<Option<(Child, String)>> {
    let Some(program) = compile()? else { return Ok(None) };
    let version = network::call(&program.display().to_string(), "version")?.trim().to_owned();
    let shared = if options.against == Some(Against::LibsrtShared) { "shared" } else { "own" };
    let mut command = Command::new(&program);
    let input = options.against_inputs().first().map_or(0, SocketAddrV4::port);
    command.args([
        "copy",
        &input.to_string(),
        &srt.role.to_string(),
        &options.total_outputs().to_string(),
        shared,
    ]);
    command.args([&srt.latency.to_string(), &srt.key_bytes().to_string(), PASSPHRASE]);
    command.args([AGAINST_LO.to_string(), PORTS.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    sys::bind_child(&mut command, cpus);
    Ok(Some((command.spawn()?, version)))
}

/// Starts receivers over libsrt.
pub(crate) fn start_receivers(srt: &Srt, first: [u16; 2], cpus: &[usize]) -> Result<Helper> {
    let program =
        compile()?.ok_or("--receivers libsrt needs a C compiler and libsrt (scripts/setup.sh bench)")?;
    let mut command = Command::new(program);
    command.args(["receive", &srt.latency.to_string(), &srt.key_bytes().to_string(), PASSPHRASE]);
    command.args(first.map(|port| port.to_string())).arg(PORTS.to_string());
    Helper::start_program(command, cpus)
}

/// What srt-tokio copies.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    input: SocketAddrV4,
    serves: bool,
    outputs: usize,
    latency: u64,
    key_bytes: u16,
}

/// The same job for srt-tokio.
pub(crate) fn tokio_role(options: &Options, srt: &Srt) -> Role {
    Role::SrtTokio(Setup {
        input: options.against_inputs().first().copied().unwrap_or(local(0)),
        serves: srt.role == Part::Serve,
        outputs: options.total_outputs(),
        latency: srt.latency,
        key_bytes: srt.key_bytes(),
    })
}

/// Copies with srt-tokio until the requests end.
pub(crate) fn run_tokio(setup: Setup, requests: Requests) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.spawn(async move {
        if let Err(error) = copy_with_tokio(setup).await {
            eprintln!("density: srt-tokio stopped: {error}");
        }
    });
    helper::ready()?;
    requests.for_each(drop);
    Ok(())
}

async fn copy_with_tokio(setup: Setup) -> Result<()> {
    let udp = UdpSocket::bind(setup.input).await?;
    let (accepted, mut readers) = mpsc::channel(16);
    let mut sockets: Vec<SrtSocket> = Vec::new();
    let mut served = None;
    if setup.serves {
        let listener = SrtListener::builder().set(|options| setup.apply(options));
        let (listener, mut incoming) = listener.bind(SocketAddr::from(local(AGAINST_LO))).await?;
        let accept = async move {
            while let Some(request) = incoming.incoming().next().await {
                if let Ok(socket) = request.accept(None).await {
                    let _ = accepted.send(socket).await;
                }
            }
        };
        served = Some((listener, tokio::spawn(accept)));
    }
    for output in 0..if setup.serves { 0 } else { setup.outputs } {
        let to = local(AGAINST_LO + output as u16 % PORTS);
        let socket = SrtSocket::builder().set(|options| setup.apply(options));
        sockets.push(socket.call(SocketAddr::from(to), None).await?);
    }
    let mut buffer = [0; 2048];
    // What came while it called is old.
    while udp.try_recv(&mut buffer).is_ok() {}
    loop {
        tokio::select! {
            length = udp.recv(&mut buffer) => {
                let packet = Bytes::copy_from_slice(&buffer[..length?]);
                let now = Instant::now();
                for socket in &mut sockets {
                    // Full or gone: this datagram is lost.
                    let _ = socket.try_send(now, packet.clone());
                }
            }
            Some(socket) = readers.recv(), if served.is_some() => sockets.push(socket),
        }
    }
}

impl Setup {
    fn apply(&self, options: &mut SocketOptions) {
        let latency = Duration::from_millis(self.latency);
        (options.sender.peer_latency, options.receiver.latency) = (latency, latency);
        // Its default holds 31 packets.
        options.sender.buffer_size = ByteCount(12_000_000);
        options.connect.udp_recv_buffer_size = ByteCount(1_000_000);
        options.connect.udp_send_buffer_size = ByteCount(1_000_000);
        if self.key_bytes > 0 {
            options.encryption.passphrase = PASSPHRASE.to_owned().try_into().ok();
            if let Ok(size) = self.key_bytes.try_into() {
                options.encryption.key_size = size;
            }
        }
    }
}
