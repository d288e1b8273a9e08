//! MediaMTX, the program that MEDIAMTX_BIN names: a path that reads the source, its `forward` that pushes, its readers.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use serde_json::json;

use crate::plan::{AGAINST_LO, Options, local};
use crate::srt::SERVED;
use crate::{Result, network, sys};

/// A running MediaMTX with one path that reads the source. `None` without MEDIAMTX_BIN.
pub(crate) fn start(options: &Options, cpus: &[usize]) -> Result<Option<(Child, String)>> {
    let Some(program) = env::var_os("MEDIAMTX_BIN").map(PathBuf::from) else { return Ok(None) };
    let version = network::call(&program.display().to_string(), "--version")?.trim().to_owned();
    let input = options.against_inputs().first().copied().unwrap_or(local(0));
    let serves = |srt: bool| options.serves() && options.srt.is_some() == srt;
    let config = format!(
        "logLevel: warn\nreadTimeout: 60s\napi: true\napiAddress: {api}\nsrt: {srt}\nsrtAddress: {address}\n\
         rtsp: {rtsp}\nrtspAddress: {address}\nrtspTransports: [tcp]\n\
         rtmp: false\nhls: false\nwebrtc: false\nmoq: false\n\
         paths:\n  {SERVED}:\n    source: udp+mpegts://{input}\n",
        api = options.against_api(),
        srt = serves(true),
        rtsp = serves(false),
        address = local(AGAINST_LO),
    );
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density");
    fs::create_dir_all(&folder)?;
    let (file, log) = (folder.join("mediamtx.yml"), File::create(folder.join("mediamtx.log"))?);
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg(&file).current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    sys::bind_child(&mut command, cpus);
    let child = command.spawn()?;
    let path = format!("http://{}/v3/paths/get/{SERVED}", options.against_api());
    for _ in 0..READY_TRIES {
        let answer = ureq::get(&path).call().ok().and_then(|mut answer| answer.body_mut().read_json().ok());
        if answer.is_some_and(|answer: serde_json::Value| answer["ready"] == true) {
            return Ok(Some((child, format!("MediaMTX {version}"))));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err("MediaMTX does not read the source; see mediamtx.log among the benchmark's files".into())
}

/// Makes it push.
pub(crate) fn forward(options: &Options) -> Result<()> {
    let outputs = 0..options.total_outputs();
    let forward: Vec<_> = match (&options.srt, &options.tcp) {
        (Some(srt), _) => {
            let urls = srt.urls(AGAINST_LO, "latency", srt.latency);
            urls.take(outputs.len()).map(|url| json!({"dest": url})).collect()
        }
        (_, Some(tcp)) => outputs.map(|place| json!({"dest": tcp.destination(AGAINST_LO, place)})).collect(),
        _ => Vec::new(),
    };
    let path = format!("http://{}/v3/config/paths/patch/{SERVED}", options.against_api());
    ureq::patch(&path).send_json(json!({"forward": forward}))?;
    Ok(())
}

/// Twenty seconds.
const READY_TRIES: u32 = 200;
