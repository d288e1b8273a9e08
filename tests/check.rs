//! `millrace check`: what it says and the exit code it ends with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn check(file: &Path, variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace"))
        .arg("check")
        .arg(file)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("millrace runs")
}

fn lines(bytes: &[u8]) -> Vec<&str> {
    std::str::from_utf8(bytes).expect("UTF-8").lines().collect()
}

#[test]
fn a_right_file_is_counted() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("millrace.yaml");
    let output = check(&shipped, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(lines(&output.stdout), [format!("{}: OK, 0 inputs, 0 outputs", shipped.display())]);
    assert!(output.stderr.is_empty());

    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("one.yaml");
    let text = "inputs: [{name: a, url: 'udp://:5000', outputs: [{name: o, url: 'udp://127.0.0.1:6000'}, \
                {name: p, url: 'udp://127.0.0.1:6002'}]}]";
    fs::write(&file, text).expect("a file");
    let output = check(&file, &[]);
    assert_eq!(lines(&output.stdout), [format!("{}: OK, 1 input, 2 outputs", file.display())]);
}

#[test]
fn every_mistake_is_a_line_on_stderr() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("wrong.yaml");
    fs::write(&file, "shards: 1\nlane:\n  max_mb: much\ninputs:\n  - name: a\n").expect("a file");
    let output = check(&file, &[("MILLRACE_SHARD", "2")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let file = file.display();
    assert_eq!(
        lines(&output.stderr),
        [
            format!("{file}:3: lane.max_mb: must be a whole number from 1 to 4096, not 'much'"),
            format!("{file}:5: inputs[0].url: is missing"),
            "MILLRACE_SHARD: there is no such variable, did you mean MILLRACE_SHARDS?".to_owned(),
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let output = check(Path::new("nowhere.yaml"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(lines(&output.stderr)[0].starts_with("nowhere.yaml: cannot be read: "));
}
