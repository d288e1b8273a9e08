//! The engine under test: the real binary, on ports and in a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// `millrace run`, killed on drop; when the test failed, its log is printed.
pub(crate) struct Engine {
    child: Child,
    api: String,
    folder: TempDir,
    agent: ureq::Agent,
}

impl Engine {
    /// Starts it with nothing configured and waits until it is healthy.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same, with more lines of configuration.
    pub(crate) fn with(configuration: &str) -> Self {
        Self::try_with(configuration).unwrap_or_else(|log| panic!("the engine did not start:\n{log}"))
    }

    /// Its log, if it ends before it is healthy.
    pub(crate) fn try_with(configuration: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let listen = format!("127.0.0.1:{}", super::free_port());
        std::fs::create_dir(folder.path().join(MEDIA)).expect("a folder");
        let file = folder.path().join("millrace.yaml");
        std::fs::write(&file, format!("{}{configuration}", base(&listen, folder.path()))).expect("a file");
        let log = File::create(folder.path().join(LOG)).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("millrace");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .proxy(None);
        let agent = config.build().new_agent();
        let mut engine = Self { child, api: format!("http://{listen}"), folder, agent };
        let healthy = super::wait_for("the engine to be healthy", || {
            if engine.child.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            engine.agent.get(format!("{}/api/health", engine.api)).call().ok().map(|r| r.status() == 200)
        });
        if healthy { Ok(engine) } else { Err(engine.log()) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its working and data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where relative `file:` urls start.
    pub(crate) fn media(&self) -> PathBuf {
        self.folder.path().join(MEDIA)
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One request; the status and the body, `Null` when that is empty or not JSON.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body.to_string());
                self.agent.run(request.expect("a request"))
            }
            None => self.agent.run(request.body(()).expect("a request")),
        };
        let mut response = response.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let text = response.body_mut().read_to_string().unwrap_or_default();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// `PATCH`, and it must succeed.
    pub(crate) fn patch(&self, path: &str, body: Value) -> Value {
        self.succeed("PATCH", path, Some(&body))
    }

    /// `POST` of `start` or `stop`, without a body, and it must succeed.
    pub(crate) fn order(&self, path: &str, order: &str) -> Value {
        self.succeed("POST", &format!("{path}/{order}"), None)
    }

    /// `GET`, and it must succeed.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.succeed("GET", path, None)
    }

    /// `POST`, and it must succeed.
    pub(crate) fn post(&self, path: &str, body: Value) -> Value {
        self.succeed("POST", path, Some(&body))
    }

    /// `DELETE`, and it must succeed.
    pub(crate) fn delete(&self, path: &str) -> Value {
        self.succeed("DELETE", path, None)
    }

    /// Adds an input; its number.
    pub(crate) fn add_input(&self, name: &str, url: &str) -> u64 {
        let input = self.post("/api/inputs", serde_json::json!({"name": name, "url": url}));
        input["id"].as_u64().unwrap_or_else(|| panic!("an id in {input}"))
    }

    /// Adds an output; its path, `/api/inputs/1/outputs/1`.
    pub(crate) fn add_output(&self, input: u64, name: &str, url: &str) -> String {
        let outputs = format!("/api/inputs/{input}/outputs");
        let output = self.post(&outputs, serde_json::json!({"name": name, "url": url}));
        format!("{outputs}/{}", output["id"].as_u64().unwrap_or_else(|| panic!("an id in {output}")))
    }

    /// Asks `path` until the answer pleases `good`, and returns that answer.
    pub(crate) fn wait(&self, path: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let answer = super::wait_for_or(what, || {
            last = self.get(path);
            good(&last).then(|| last.clone())
        });
        answer.unwrap_or_else(|why| panic!("{why}; {path} says {last:#}"))
    }

    /// Waits until an input or output has this `state`.
    pub(crate) fn wait_state(&self, path: &str, state: &str) -> Value {
        self.wait(path, &format!("state {state}"), |object| object["state"] == state)
    }

    /// Asks it to end, as an operator does, and waits for it.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a process");
        let status = super::wait_for("the engine to end", || self.child.try_wait().expect("a child"));
        (status, self.log())
    }

    fn succeed(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path} answered {status}: {answer}");
        answer
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of the engine ---\n{}", self.log());
        }
    }
}

/// What every configuration of a test needs: a port and a folder of its own. Engines of other tests run at the
/// same time, so no thread stays on one core.
fn base(listen: &str, folder: &Path) -> String {
    format!("api: {{listen: \"{listen}\"}}\ndata_dir: {}\npin_shards: false\n", folder.display())
}

const LOG: &str = "millrace.log";
/// The default of `media_roots`.
const MEDIA: &str = "media";
