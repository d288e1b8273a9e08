//! What the KLV of an input says, for whoever asks: observations enter, JSON, GeoJSON and a stream of events leave. Never
//! waits for a client, and encodes an event once for all who want the same of it.

mod choice;
mod event;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use self::choice::Choice;
use self::event::Document;
use self::stream::{Client, Next};
use super::board::InputCard;
use super::fields::InputPath;
use super::problem::Problem;
use super::rest::Control;
use crate::inspect::geo::{Scene, collect};
use crate::inspect::klv::TrackView;

pub(super) use self::stream::Streams;

/// `GET …/klv`: what holds on each track.
pub(super) async fn document(
    State(control): State<Control>,
    InputPath(id): InputPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let choice = Choice::read(query.as_deref(), &["pid", "fields"])?;
    let input = control.input(id)?;
    let views = views(&control, &input, choice.track)?;
    let tracks = views.iter().map(|(view, aged)| event::Track::new(view, *aged, &choice.fields)).collect();
    let document = Document { input_id: id, counters: input.klv().stats(), tracks };
    Ok(Json(document).into_response())
}

/// `GET …/klv.geojson`: where platform, sensor, frame and targets are, and where the platform was.
pub(super) async fn geojson(
    State(control): State<Control>,
    InputPath(id): InputPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let choice = Choice::read(query.as_deref(), &["pid"])?;
    let input = control.input(id)?;
    let mut features = Vec::new();
    for (view, aged) in views(&control, &input, choice.track)? {
        let told = view.accepted.as_deref();
        // What was not repeated is no longer known (ST 0107); where the platform was, is.
        let known = told.filter(|_| aged.as_secs() < HOLD);
        let nothing = Scene::default();
        let scene = known.map_or(&nothing, |observation| &observation.scene);
        let time = known.and_then(|observation| observation.time());
        let mut collection = collect(scene, &view.trail, time);
        let Some(Value::Array(found)) = collection.get_mut("features").map(Value::take) else { continue };
        features.extend(found.into_iter().map(|mut feature| {
            if let Some(properties) = feature.get_mut("properties").and_then(Value::as_object_mut) {
                properties.insert("pid".into(), view.track.into());
            }
            feature
        }));
    }
    let collection = json!({"type": "FeatureCollection", "features": features});
    Ok(([(header::CONTENT_TYPE, "application/geo+json")], collection.to_string()).into_response())
}

/// `GET …/klv/stream`: events as they come, over a WebSocket where that is asked for, else as lines of JSON.
pub(super) async fn stream(
    State(control): State<Control>,
    InputPath(id): InputPath,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let choice = Choice::read(query.as_deref(), &["pid", "fields", "max_rate"])?;
    let input = control.input(id)?;
    let upgrade = if request.headers().contains_key(header::UPGRADE) {
        let (mut parts, _) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &control).await;
        Some(upgrade.map_err(|refused| Problem::Said(refused.status(), refused.body_text().into()))?)
    } else {
        None
    };
    let client = control.streams().join(id, input.klv(), choice).ok_or_else(|| {
        let said = format!("there are {} streams of events already", stream::CLIENTS);
        Problem::Said(StatusCode::SERVICE_UNAVAILABLE, said.into())
    })?;
    if let Some(upgrade) = upgrade {
        // Clients have nothing to say.
        let upgrade = upgrade.max_message_size(HEARD).max_frame_size(HEARD).write_buffer_size(0);
        return Ok(upgrade.on_upgrade(|socket| speak(socket, client)));
    }
    let lines = futures_util::stream::unfold(client, async |mut client| {
        let line = match client.next().await {
            Next::Event(line) => line,
            Next::Quiet => Bytes::from_static(b"\n"),
            Next::Gone(_) => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(line), client))
    });
    let head = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(lines)).into_response())
}

/// Sends events until one of both ends goes.
async fn speak(mut socket: WebSocket, mut client: Client) {
    loop {
        let message = tokio::select! {
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                // pings are answered below this
                Some(Ok(_)) => continue,
            },
            next = client.next() => match next {
                Next::Event(line) => {
                    let Ok(text) = line.try_into() else { continue };
                    Message::Text(text)
                }
                Next::Quiet => Message::Ping(Bytes::new()),
                Next::Gone(why) => {
                    let close = CloseFrame { code: GOING_AWAY, reason: why.into() };
                    // It may be gone by itself.
                    let _ = socket.send(Message::Close(Some(close))).await;
                    return;
                }
            },
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The tracks of an input, or the one that is asked for, each with the time since its newest packet.
fn views(
    control: &Control,
    input: &Arc<InputCard>,
    wanted: Option<u16>,
) -> Result<Vec<(TrackView, Duration)>, Problem> {
    let metadata = input.klv();
    let Some(latest) = metadata.latest() else { return Err(absent(input)) };
    // The clock of arrivals, as far as the wall clock tells it.
    let since = control.now().duration_since(latest.sighting.wall).unwrap_or_default();
    let now = latest.sighting.arrival + since.as_nanos() as u64;
    let mut views = metadata.tracks(now);
    if let Some(wanted) = wanted {
        views.retain(|view| view.track == wanted);
        if views.is_empty() {
            return Err(Problem::Said(StatusCode::NOT_FOUND, format!("No KLV on PID {wanted}").into()));
        }
    }
    let aged = |view: TrackView| {
        let aged = now.saturating_sub(view.latest.sighting.arrival);
        (view, Duration::from_nanos(aged))
    };
    Ok(views.into_iter().map(aged).collect())
}

/// Why there is no KLV.
fn absent(input: &InputCard) -> Problem {
    Problem::not_found(match input.health().latest().filter(|report| report.packets > 0) {
        None => "No KLV: nothing has been received yet",
        Some(report) if report.klv_declared => "No KLV yet: the stream declares it, but none has come",
        Some(_) => "No KLV: the stream declares none, and none was found",
    })
}

/// Seconds for which what was said last is known (ST 0107).
const HOLD: u64 = 30;
/// Longest message of a client.
const HEARD: usize = 4096;
/// RFC 6455, 7.4.1.
const GOING_AWAY: u16 = 1001;
