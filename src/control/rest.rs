//! Requests of the REST contract enter, answers leave. Reads the board, hands in commands; never waits for
//! anything but the answer to a command.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::answer::{
    InputView, OutputView, SessionAnswer, active_outputs, input_sessions, logs, output_sessions, outputs,
    success,
};
use super::board::{Board, InputCard, OutputCard};
use super::command::{Command, Commands};
use super::fields::{Fields, InputPath, OutputPath, SessionPath, query_number};
use super::klv;
use super::problem::Problem;
use super::system::Meter;
use crate::store::{InputDraft, InputPatch, OutputDraft, OutputPatch, RawUrl, is_reader};
use crate::telemetry::SessionId;

/// What the handlers work with.
#[derive(Clone)]
pub struct Control {
    board: Arc<Board>,
    commands: Commands,
    clock: fn() -> SystemTime,
    started: SystemTime,
    meter: Arc<Mutex<Meter>>,
    streams: Arc<klv::Streams>,
}

impl Control {
    /// Reads `board`, hands in `commands`; `clock` is the wall clock. The uptime counts from here.
    pub fn new(board: Arc<Board>, commands: Commands, clock: fn() -> SystemTime) -> Self {
        let (meter, streams) = (Arc::new(Mutex::new(Meter::start())), Arc::default());
        Self { board, commands, clock, started: clock(), meter, streams }
    }

    pub(super) fn input(&self, id: u64) -> Result<Arc<InputCard>, Problem> {
        self.board.input(id).ok_or(Problem::not_found("Input not found"))
    }

    /// The wall clock.
    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Everybody who hears events.
    pub(super) fn streams(&self) -> &klv::Streams {
        &self.streams
    }

    fn output(&self, OutputPath(input, id): OutputPath) -> Result<Arc<OutputCard>, Problem> {
        self.board.output(input, id).filter(|_| !is_reader(id)).ok_or(Problem::not_found("Output not found"))
    }
}

/// Every route, without the trailing slash.
pub(super) fn routes(control: Control) -> Router {
    let input = "/api/inputs/{input_id}";
    let output = "/api/inputs/{input_id}/outputs/{output_id}";
    Router::new()
        .route("/api/health", get(health))
        .route("/api/system/status", get(system_status))
        .route("/api/system/mediamtx/status", get(mediamtx_status))
        .route("/api/system/mediamtx/restart", post(mediamtx_restart))
        .route("/api/inputs", get(list_inputs).post(create_input))
        .route(input, get(show_input).patch(patch_input).delete(delete_input))
        .route(&format!("{input}/status"), get(input_status))
        .route(&format!("{input}/report"), get(input_report))
        .route(&format!("{input}/ts-health"), get(input_ts_health))
        .route(&format!("{input}/klv"), get(klv::document))
        .route(&format!("{input}/klv.geojson"), get(klv::geojson))
        .route(&format!("{input}/klv/stream"), get(klv::stream))
        .route(&format!("{input}/logs"), get(input_logs))
        .route(&format!("{input}/sessions"), get(list_input_sessions))
        .route(&format!("{input}/sessions/{{session_id}}"), delete(kick_input_session))
        .route(&format!("{input}/start"), post(start_input))
        .route(&format!("{input}/stop"), post(stop_input))
        .route(&format!("{input}/outputs"), get(list_outputs).post(create_output))
        .route(output, get(show_output).patch(patch_output).delete(delete_output))
        .route(&format!("{output}/stats"), get(output_stats))
        .route(&format!("{output}/logs"), get(output_logs))
        .route(&format!("{output}/sessions"), get(list_output_sessions))
        .route(&format!("{output}/sessions/{{session_id}}"), delete(kick_output_session))
        .route(&format!("{output}/start"), post(start_output))
        .route(&format!("{output}/stop"), post(stop_output))
        .fallback(async || Problem::not_found("Not Found"))
        .method_not_allowed_fallback(async || {
            Problem::Said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(control)
}

type Answer<T = Value> = Result<Json<T>, Problem>;

async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy", "version": VERSION }))
}

async fn system_status(State(control): State<Control>) -> Json<Value> {
    let inputs = control.board.inputs(0, usize::MAX);
    let load = control.meter.lock().read();
    let uptime = (control.clock)().duration_since(control.started).unwrap_or_default();
    Json(json!({
        "healthy": true,
        "version": VERSION,
        "uptime_seconds": uptime.as_secs(),
        "inputs_count": inputs.len(),
        "outputs_count": inputs.iter().map(|input| input.output_count()).sum::<usize>(),
        "active_outputs": inputs.iter().map(|input| active_outputs(input)).sum::<usize>(),
        "cpu_percent": load.cpu_percent,
        "memory_percent": load.memory_percent,
        "process_cpu_percent": load.process_cpu_percent,
        "process_rss_bytes": load.process_rss_bytes,
        "mediamtx_healthy": false,
    }))
}

async fn mediamtx_status() -> Json<Value> {
    Json(json!({ "healthy": false, "api_available": false, "paths_count": 0 }))
}

async fn mediamtx_restart() -> Json<Value> {
    let message = "MediaMTX restart must be done via Docker: this engine runs without MediaMTX";
    Json(json!({ "success": false, "message": message, "data": null }))
}

async fn list_inputs(State(control): State<Control>, RawQuery(query): RawQuery) -> Answer<Vec<InputView>> {
    let skip = query_number(query.as_deref(), "skip", 0, 0..=usize::MAX)?;
    let limit = query_number(query.as_deref(), "limit", 100, 1..=1000)?;
    let now = (control.clock)();
    let inputs = control.board.inputs(skip, limit);
    Ok(Json(inputs.into_iter().map(|card| InputView::new(card, now)).collect()))
}

async fn create_input(State(control): State<Control>, mut fields: Fields) -> Result<Response, Problem> {
    let draft = InputDraft {
        name: fields.required("name"),
        url: fields.text("url").map(RawUrl::from),
        udp_port: fields.integer("udp_port"),
    };
    let sent = fields.finish()?;
    let made = control.commands.ask(|reply| Command::CreateInput { draft, reply }).await;
    let card = made.map_err(|error| sent.problem(error))?;
    Ok((StatusCode::CREATED, Json(InputView::new(card, (control.clock)()))).into_response())
}

async fn show_input(State(control): State<Control>, InputPath(id): InputPath) -> Result<Response, Problem> {
    let input = InputView::new(control.input(id)?, (control.clock)());
    Ok(Json(input.with_outputs()).into_response())
}

async fn patch_input(
    State(control): State<Control>,
    InputPath(id): InputPath,
    mut fields: Fields,
) -> Answer<InputView> {
    let patch = InputPatch { name: fields.text("name"), url: fields.text("url").map(RawUrl::from) };
    let sent = fields.finish()?;
    let patched = control.commands.ask(|reply| Command::PatchInput { id, patch, reply }).await;
    let card = patched.map_err(|error| sent.problem(error))?;
    Ok(Json(InputView::new(card, (control.clock)())))
}

async fn delete_input(State(control): State<Control>, InputPath(id): InputPath) -> Answer {
    control.commands.ask(|reply| Command::DeleteInput { id, reply }).await?;
    Ok(Json(success(format!("Input {id} deleted"))))
}

async fn start_input(State(control): State<Control>, InputPath(id): InputPath) -> Answer {
    control.commands.ask(|reply| Command::StartInput { id, reply }).await?;
    Ok(Json(success(format!("Input {id} started"))))
}

async fn stop_input(State(control): State<Control>, InputPath(id): InputPath) -> Answer {
    control.commands.ask(|reply| Command::StopInput { id, reply }).await?;
    Ok(Json(success(format!("Input {id} stopped"))))
}

async fn input_status(State(control): State<Control>, InputPath(id): InputPath) -> Answer {
    Ok(Json(InputView::new(control.input(id)?, (control.clock)()).short()))
}

/// `null` until something has been received.
async fn input_report(State(control): State<Control>, InputPath(id): InputPath) -> Result<Response, Problem> {
    Ok(Json(control.input(id)?.report()).into_response())
}

/// Whether the stream keeps the rules of TR 101 290 and of MISB. `null` until something has been received.
async fn input_ts_health(
    State(control): State<Control>,
    InputPath(id): InputPath,
) -> Result<Response, Problem> {
    Ok(Json(control.input(id)?.conformance()).into_response())
}

async fn input_logs(
    State(control): State<Control>,
    InputPath(id): InputPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let limit = query_number(query.as_deref(), "limit", 100, 1..=1000)?;
    Ok(Json(logs(&control.input(id)?.card, id, None, limit)).into_response())
}

async fn list_outputs(State(control): State<Control>, InputPath(id): InputPath) -> Json<Vec<OutputView>> {
    let input = control.board.input(id);
    Json(input.map(|input| outputs(&input, (control.clock)())).unwrap_or_default())
}

async fn create_output(
    State(control): State<Control>,
    InputPath(input): InputPath,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let draft = OutputDraft {
        name: fields.required("name"),
        url: fields.required("url").into(),
        protocol: fields.text("protocol"),
        auto_reconnect: fields.flag("auto_reconnect"),
        reconnect_delay: fields.integer("reconnect_delay"),
        max_reconnect_attempts: fields.integer("max_reconnect_attempts"),
    };
    let sent = fields.finish()?;
    let made = control.commands.ask(|reply| Command::CreateOutput { input, draft, reply }).await;
    let card = made.map_err(|error| sent.problem(error))?;
    Ok((StatusCode::CREATED, Json(OutputView::new(card, (control.clock)()))).into_response())
}

async fn show_output(State(control): State<Control>, path: OutputPath) -> Answer<OutputView> {
    Ok(Json(OutputView::new(control.output(path)?, (control.clock)())))
}

async fn patch_output(
    State(control): State<Control>,
    OutputPath(input, id): OutputPath,
    mut fields: Fields,
) -> Answer<OutputView> {
    let patch = OutputPatch {
        name: fields.text("name"),
        url: fields.text("url").map(RawUrl::from),
        protocol: fields.text("protocol"),
        auto_reconnect: fields.flag("auto_reconnect"),
        reconnect_delay: fields.integer("reconnect_delay"),
        max_reconnect_attempts: fields.integer("max_reconnect_attempts"),
    };
    let sent = fields.finish()?;
    let patched = control.commands.ask(|reply| Command::PatchOutput { input, id, patch, reply }).await;
    let card = patched.map_err(|error| sent.problem(error))?;
    Ok(Json(OutputView::new(card, (control.clock)())))
}

async fn delete_output(State(control): State<Control>, OutputPath(input, id): OutputPath) -> Answer {
    control.commands.ask(|reply| Command::DeleteOutput { input, id, reply }).await?;
    Ok(Json(success(format!("Output {id} deleted"))))
}

async fn start_output(State(control): State<Control>, OutputPath(input, id): OutputPath) -> Answer {
    control.commands.ask(|reply| Command::StartOutput { input, id, reply }).await?;
    Ok(Json(success(format!("Output {id} started"))))
}

async fn stop_output(State(control): State<Control>, OutputPath(input, id): OutputPath) -> Answer {
    control.commands.ask(|reply| Command::StopOutput { input, id, reply }).await?;
    Ok(Json(success(format!("Output {id} stopped"))))
}

async fn output_stats(State(control): State<Control>, path: OutputPath) -> Answer {
    Ok(Json(OutputView::new(control.output(path)?, (control.clock)()).stats()))
}

async fn output_logs(
    State(control): State<Control>,
    OutputPath(input, id): OutputPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let limit = query_number(query.as_deref(), "limit", 100, 1..=1000)?;
    Ok(Json(logs(&*control.output(OutputPath(input, id))?, input, Some(id), limit)).into_response())
}

async fn list_input_sessions(
    State(control): State<Control>,
    InputPath(id): InputPath,
) -> Answer<Vec<SessionAnswer>> {
    Ok(Json(input_sessions(&*control.input(id)?, (control.clock)())))
}

async fn list_output_sessions(
    State(control): State<Control>,
    path: OutputPath,
) -> Answer<Vec<SessionAnswer>> {
    Ok(Json(output_sessions(&*control.output(path)?, (control.clock)())))
}

/// Answers when its end is asked for: the thread that owns it sees to it within milliseconds.
async fn kick_input_session(
    State(control): State<Control>,
    InputPath(input): InputPath,
    SessionPath(id): SessionPath,
) -> Answer {
    let input = control.input(input)?;
    let reads = |id| input.reader().is_some_and(|reader| reader.stats().sessions.kick(id));
    kicked(id, input.card.stats().sessions.kick(id) || reads(id))
}

async fn kick_output_session(
    State(control): State<Control>,
    path: OutputPath,
    SessionPath(id): SessionPath,
) -> Answer {
    kicked(id, control.output(path)?.stats().sessions.kick(id))
}

fn kicked(id: SessionId, found: bool) -> Answer {
    if found {
        Ok(Json(success(format!("Session {id} kicked"))))
    } else {
        Err(Problem::not_found("Session not found"))
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const BODY_LIMIT: usize = 64 * 1024;
