//! Processes of the benchmark besides the engine: this same program in another role, asked over its
//! standard input and answering in JSON on its standard output, one line each.

use std::env;
use std::io::{BufRead, BufReader, StdinLock, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Result, reference, sink, source, srt_peer, srt_sink, sys, tcp_floor, tcp_sink};

/// What a helper does and everything it needs to know. The first line that it reads.
#[derive(Serialize, Deserialize)]
pub(crate) enum Role {
    /// Sends the streams.
    Source(source::Setup),
    /// Receives and counts.
    Sink(sink::Setup),
    /// Receives SRT and counts.
    SrtSink(srt_sink::Setup),
    /// Receives RTMP or RTSP and counts.
    TcpSink(tcp_sink::Setup),
    /// Copies streams the plain way: receive, then one `sendto` per output.
    Sendto(reference::Setup),
    /// Copies streams with a task per output.
    Tokio(reference::Setup),
    /// Sends without a stream, as fast as it can.
    Limit(reference::Setup),
    /// Sends what the engine would send over connections.
    TcpFloor(tcp_floor::Setup),
    /// Copies one stream with srt-tokio.
    SrtTokio(srt_peer::Setup),
}

/// The argument that makes this program a helper.
pub(crate) const ARGUMENT: &str = "a-helper-of-the-benchmark";

/// Requests as a helper reads them.
pub(crate) type Requests = std::io::Lines<StdinLock<'static>>;

/// A running helper. Ends with its owner.
pub(crate) struct Helper {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts a helper on these CPUs and waits until it is ready.
    pub(crate) fn start(role: &Role, cpus: &[usize]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(ARGUMENT);
        let mut helper = Self::spawn(command, cpus)?;
        helper.ask::<()>(&serde_json::to_string(role)?)?;
        Ok(helper)
    }

    /// Starts another program that answers as a helper does, the first time when it is ready.
    pub(crate) fn start_program(command: Command, cpus: &[usize]) -> Result<Self> {
        let mut helper = Self::spawn(command, cpus)?;
        helper.read::<()>()?;
        Ok(helper)
    }

    fn spawn(mut command: Command, cpus: &[usize]) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        sys::bind_child(&mut command, cpus);
        let mut child = command.spawn()?;
        let (requests, answers) = match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => (requests, BufReader::new(answers)),
            _ => return Err("a helper without pipes".into()),
        };
        Ok(Self { child, requests, answers })
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &str) -> Result<T> {
        writeln!(self.requests, "{request}")?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let answer: std::result::Result<T, String> = serde_json::from_str(&answer)
            .map_err(|error| format!("a helper of the benchmark stopped: {error}"))?;
        Ok(answer?)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs this process as the helper that its first line of input names; returns when the input ends.
pub(crate) fn run() -> Result<()> {
    sys::raise_open_files()?;
    let mut requests = std::io::stdin().lines();
    let role = requests.next().ok_or("no role")??;
    let result = match serde_json::from_str(&role)? {
        Role::Source(setup) => source::run(setup, requests),
        Role::Sink(setup) => sink::run(&setup, requests),
        Role::SrtSink(setup) => srt_sink::run(&setup, requests),
        Role::TcpSink(setup) => tcp_sink::run(&setup, requests),
        Role::TcpFloor(setup) => tcp_floor::run(&setup, requests),
        Role::Sendto(setup) => reference::run_sendto(&setup, requests),
        Role::Tokio(setup) => reference::run_tokio(&setup, requests),
        Role::Limit(setup) => reference::run_limit(&setup, requests),
        Role::SrtTokio(setup) => srt_peer::run_tokio(setup, requests),
    };
    if let Err(error) = &result {
        answer(&Err::<(), _>(error.to_string()))?;
    }
    result
}

/// Answers a request.
pub(crate) fn answer<T: Serialize>(answer: &std::result::Result<T, String>) -> Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Says that this helper is ready for requests.
pub(crate) fn ready() -> Result<()> {
    answer(&Ok(()))
}
