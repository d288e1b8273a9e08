//! The API of an engine: requests, and waits until an answer pleases.

use std::time::Duration;

use serde_json::Value;

/// Where the API of an engine listens.
pub(crate) struct Api {
    root: String,
    agent: ureq::Agent,
}

impl Api {
    /// `listen` is an address and port.
    pub(crate) fn new(listen: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            // The engine ends idle connections: one that is kept may end just when it is used again.
            .max_idle_connections(0)
            .proxy(None);
        Self { root: format!("http://{listen}"), agent: config.build().new_agent() }
    }

    /// Where it listens, `127.0.0.1:8080`.
    pub(crate) fn address(&self) -> &str {
        self.root.trim_start_matches("http://")
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.agent.get(format!("{}/api/health", self.root)).call().is_ok_and(|r| r.status() == 200)
    }

    /// One request; the status and the body, `Null` when that is empty or not JSON.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.root));
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

    fn succeed(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path} answered {status}: {answer}");
        answer
    }
}
