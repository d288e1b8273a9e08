//! A stream in the list of videos of a TAK Server: whether it shall stand there enters, requests over HTTPS with our
//! certificate leave. What was entered is withdrawn, also at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::sync::{Mutex, watch};

use super::Remarks;
use crate::app::dial::connect;
use crate::net::{HostPolicy, connect_tls};
use crate::tak::cot::Video;
use crate::tak::marti::{self, Request};
use crate::telemetry::TakStats;

/// Whose turn it is: what a former connection entered is withdrawn before the next one enters it.
pub(in crate::app) type Turn = Arc<Mutex<()>>;

/// Where the list is, and what is shown there.
#[derive(Clone)]
pub(super) struct Registry {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) policy: Arc<HostPolicy>,
}

/// Enters and withdraws what `wanted` says, until its sender is gone; then withdraws.
pub(super) async fn keep(
    registry: Registry,
    mut wanted: watch::Receiver<Option<Video>>,
    turn: Turn,
    stats: Arc<TakStats>,
    remarks: Remarks,
) {
    let _turn = turn.lock().await;
    let mut entered: Option<Video> = None;
    let mut complained = false;
    loop {
        let want = wanted.borrow_and_update().clone();
        if want != entered {
            let done = match (&want, &entered) {
                (Some(video), _) => registry.enter(video).await,
                (None, Some(video)) => {
                    registry.ask(&marti::withdraw(&video.uid)).await.map_err(|why| why.to_string())
                }
                (None, None) => Ok(()),
            };
            match done {
                Ok(()) => {
                    let word = if want.is_some() { "entered into" } else { "withdrawn from" };
                    remarks.say(format!("{word} the list of videos of {}", registry.host));
                    (entered, complained) = (want, false);
                    stats.registered.store(entered.is_some(), Relaxed);
                }
                // Said once, not with every try.
                Err(why) if !std::mem::replace(&mut complained, true) => {
                    remarks.say(format!("the list of videos of {}: {why}", registry.host));
                }
                Err(_) => {}
            }
        }
        let retry =
            async { if complained { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = retry => {}
        }
    }
    if let Some(video) = entered {
        // The server forgets nothing by itself; that it cannot be told is known by then.
        let _ = registry.ask(&marti::withdraw(&video.uid)).await;
        stats.registered.store(false, Relaxed);
    }
}

impl Registry {
    async fn enter(&self, video: &Video) -> Result<(), String> {
        let status = self.ask(&marti::enter(video)).await;
        match status {
            Err(Refused(status)) if (400..500).contains(&status) && status != 401 && status != 403 => {
                // It may stand there already, from a time that did not end well.
                self.ask(&marti::replace(video)).await.map_err(|why| why.to_string())
            }
            other => other.map_err(|why| why.to_string()),
        }
    }

    async fn ask(&self, request: &Request) -> Result<(), Trouble> {
        match tokio::time::timeout(TIMEOUT, self.exchange(request)).await {
            Ok(Ok(200..=299)) => Ok(()),
            Ok(Ok(status)) => Err(Refused(status)),
            Ok(Err(why)) => Err(Broken(why)),
            Err(_) => Err(Broken(format!("no answer within {TIMEOUT:?}"))),
        }
    }

    /// One request on a connection of its own; the status of the answer.
    async fn exchange(&self, request: &Request) -> Result<u16, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let (socket, _) = connect(&self.host, self.port, &self.policy).await.map_err(|e| words(&e))?;
        let tls = connect_tls(socket, &self.host, Arc::clone(&self.tls)).await.map_err(|e| words(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|e| words(&e))?;
        let place = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let built = hyper::Request::builder()
            .method(request.method)
            .uri(&request.path)
            .header("host", format!("{place}:{}", self.port))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(request.body.clone())));
        let answer = async {
            let answer = sender.send_request(built.map_err(|e| words(&e))?).await.map_err(|e| words(&e))?;
            let status = answer.status().as_u16();
            // Read, so that the server can end in peace; what it says is not needed.
            let _ = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok::<u16, String>(status)
        };
        tokio::pin!(connection);
        tokio::pin!(answer);
        let mut alive = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                // The answer may have come before the end, which servers do not always announce: it knows.
                _ = &mut connection, if alive => alive = false,
            }
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the server answers with status {0}")]
    Refused(u16),
    #[error("{0}")]
    Broken(String),
}

use Trouble::{Broken, Refused};

/// For one request, its connection included.
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;
