//! The engine under test: the real binary, configured by a file, as a user starts it.

use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::{Result, sys};

/// A running engine. Ends with its owner.
pub(crate) struct Engine {
    child: Child,
    api: String,
    log: PathBuf,
}

impl Engine {
    /// Starts an engine with a configuration whose API listens there, and waits until it answers; its files have this
    /// name.
    pub(crate) fn start(name: &str, config: &str, api: SocketAddrV4, cpus: &[usize]) -> Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (file, log) = (folder.join(format!("{name}.yaml")), folder.join(format!("{name}.log")));
        fs::write(&file, config)?;
        let output = File::create(&log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("run").arg("--config").arg(&file).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        sys::bind_child(&mut command, cpus);
        let mut engine = Self { child: command.spawn()?, api: format!("http://{api}"), log };
        let health = format!("{}/api/health", engine.api);
        for _ in 0..START_TRIES {
            engine.check_alive()?;
            if ureq::get(&health).call().is_ok() {
                return Ok(engine);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(engine.complain("does not answer /api/health"))
    }

    /// How many outputs the engine itself says are running.
    pub(crate) fn running_outputs(&self) -> Result<usize> {
        #[derive(serde::Deserialize)]
        struct Status {
            active_outputs: usize,
        }
        let url = format!("{}/api/system/status", self.api);
        Ok(ureq::get(&url).call()?.body_mut().read_json::<Status>()?.active_outputs)
    }

    /// Makes another output of the first input; its id.
    pub(crate) fn add_output(&self, name: &str, url: &str) -> Result<u64> {
        let path = format!("{}/api/inputs/1/outputs", self.api);
        let answer: serde_json::Value =
            ureq::post(&path).send_json(json!({"name": name, "url": url}))?.body_mut().read_json()?;
        Ok(answer["id"].as_u64().ok_or("an output without an id")?)
    }

    /// Takes an output of the first input away.
    pub(crate) fn remove_output(&self, id: u64) -> Result<()> {
        ureq::delete(&format!("{}/api/inputs/1/outputs/{id}", self.api)).call()?;
        Ok(())
    }

    /// CPU time used so far, in nanoseconds.
    pub(crate) fn cpu_time(&self) -> Result<u64> {
        Ok(sys::cpu_time(self.child.id())?)
    }

    /// How many system calls it makes in a second, as strace counts them; `None` where strace may not look.
    pub(crate) fn system_calls(&self) -> Option<f64> {
        let count = self.log.with_extension("strace");
        let pid = self.child.id().to_string();
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-c", "-qq", "-p", &pid, "-o"])
            .arg(&count)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let mut strace = strace.spawn().ok()?;
        let start = sys::now();
        thread::sleep(Duration::from_secs(1));
        // Lets go of the engine and writes its table.
        sys::interrupt(strace.id());
        let seconds = (sys::now() - start) as f64 / 1e9;
        strace.wait().ok()?;
        let table = fs::read_to_string(&count).ok()?;
        // % time, seconds, µs/call, calls, perhaps errors, "total".
        let total = table.lines().rfind(|line| line.ends_with(" total"))?;
        Some(total.split_whitespace().nth(3)?.parse::<f64>().ok()? / seconds)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory in use (VmRSS), in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mut lines = status.lines().filter_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = lines.next().and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kilobytes.ok_or("no VmRSS")? * 1024)
    }

    /// An error when the engine has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.complain(&format!("ended: {status}"))),
        }
    }

    /// An error about the engine, with the end of its log.
    pub(crate) fn complain(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("the engine {what}; its log ends with:\n{end}").into()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        sys::terminate(self.child.id());
        for _ in 0..STOP_TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // It did not drain in time. Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Twenty seconds: thousands of outputs are configured.
const START_TRIES: u32 = 400;
/// Ten seconds.
const STOP_TRIES: u32 = 200;
