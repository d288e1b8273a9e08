//! Connections enter, requests go to the routes. Bounds what a caller may hold: connections, and time. Drains when told
//! to, for a bounded time.

use std::future::Future;
use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_http::normalize_path::NormalizePath;

use super::guard::{Guard, guard};
use super::problem::Problem;
use super::rest::{Control, routes};

/// Serves the API until `shutdown` is ready, then lets requests under way finish for at most five seconds.
/// `names` are host names that the server goes by, besides addresses and `localhost`. At most 1,024 connections are
/// held, more are answered 503; who does not send a whole head within 10 s, or a whole request and take its answer
/// within 30 s, is let go. Streams of events end with `shutdown`, and have a limit of their own.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    names: Vec<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the API has no authentication yet: whoever reaches this address controls the engine");
    }
    let (streams, router) = (control.clone(), router(control, address.ip(), names));
    let shutdown = async move {
        shutdown.await;
        // They would go on for as long as there are events.
        streams.streams().close();
    };
    accept(listener, router, Limits::default(), shutdown).await;
    Ok(())
}

/// Serves `router` as the API is served, to whoever calls the host by a name that it goes by.
pub(super) async fn serve_router(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let bound = listener.local_addr()?.ip();
    // Others reach it by names that nobody knows here; a page that has a browser ask learns nothing else by that.
    let router = match bound.is_loopback() {
        true => router.layer(from_fn_with_state(Guard::new(bound, Vec::new()), guard)),
        false => router,
    };
    accept(listener, router, Limits { connections: 64, ..Limits::default() }, shutdown).await;
    Ok(())
}

/// Everything a request passes: the guard, then the path without a trailing slash, then the routes.
pub(super) fn router(control: Control, bound: IpAddr, names: Vec<String>) -> Router {
    let routes = NormalizePath::trim_trailing_slash(routes(control));
    Router::new().fallback_service(routes).layer(from_fn_with_state(Guard::new(bound, names), guard))
}

/// What callers may hold.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at the same time.
    connections: usize,
    /// From the connection, or from the last answer, to the end of the next request's head.
    head: Duration,
    /// From the head to the answer; and for how long a peer may leave what was sent unacknowledged.
    request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(10), request: Duration::from_secs(30) }
    }
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let router = router.layer(from_fn_with_state(limits.request, within));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let (drain, mut connections) = (watch::Sender::new(false), JoinSet::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // A caller that left before it was accepted, or no descriptor left: the next one may find one.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if connections.len() >= limits.connections {
            refuse(stream);
            continue;
        }
        // Without it, answers that nobody reads hold their connection for ever.
        let socket = socket2::SockRef::from(&stream);
        let patience = socket.set_tcp_user_timeout(Some(limits.request));
        // Events that wait in the kernel grow old; here they make room for newer ones.
        let unsent = patience.and_then(|()| socket.set_tcp_notsent_lowat(UNSENT));
        if let Err(error) = unsent.and_then(|()| stream.set_nodelay(true)) {
            tracing::debug!(%error, "a connection was lost");
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut draining = drain.subscribe();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                // An error says that the server is gone.
                _ = draining.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    drain.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("requests under way were cut off");
    }
}

/// Says that there are too many, as far as the socket takes it at once.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // The peer may be gone; it learns as much by that.
        let _ = stream.write_all(TOO_MANY);
    }
}

/// Answers 408 to a request that is not answered in time: its body does not come.
async fn within(State(time): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let said = format!("the request did not come to its end within {} s", time.as_secs_f32());
            Problem::Said(StatusCode::REQUEST_TIMEOUT, said.into()).into_response()
        }
    }
}

const DRAIN: Duration = Duration::from_secs(5);
/// Bytes that the kernel takes beyond what is on its way.
const UNSENT: u32 = 64 << 10;
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 34\r\n\r\n{\"detail\":\"too many connections\"}\n";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    const LIMITS: Limits =
        Limits { connections: 8, head: Duration::from_millis(300), request: Duration::from_millis(300) };

    /// A server that says `hello`, and reads bodies; it ends when the sender is dropped.
    async fn start(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/read", post(async |body: String| body))
            .route("/slow", get(async || tokio::time::sleep(Duration::from_millis(100)).await));
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        server.spawn(accept(listener, router, limits, async { drop(stopped.await) }));
        (address, stop, server)
    }

    /// All that comes until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn callers_who_never_end_their_head_are_let_go() {
        let (address, _stop, _server) = start(LIMITS).await;
        let mut held = Vec::new();
        for _ in 0..LIMITS.connections {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        // One too many, told at once.
        let mut late = TcpStream::connect(address).await.unwrap();
        let refused = rest(&mut late).await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.ends_with("connections\"}\n"), "{refused}");
        let length = refused.split_once("\r\n\r\n").unwrap().1.len();
        assert!(refused.contains(&format!("content-length: {length}\r\n")), "{refused}");
        // Half of them are silent, half send a header for ever.
        let mut dribbling = JoinSet::new();
        for (i, mut stream) in held.into_iter().enumerate() {
            dribbling.spawn(async move {
                if i % 2 == 0 {
                    return rest(&mut stream).await;
                }
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
                while stream.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                rest(&mut stream).await
            });
        }
        let ended = dribbling.join_all().await;
        assert!(ended.iter().all(|said| !said.contains("200")), "{ended:?}");
        assert!(ask(address, HELLO).await.ends_with("hello"), "there is room again");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (address, _stop, _server) = start(LIMITS).await;
        let said = ask(address, "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("within 0.3 s"), "{said}");
        let whole = "POST /read HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nwhole";
        assert!(ask(address, whole).await.ends_with("\r\n\r\nwhole"));
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests_until_it_is_idle() {
        let (address, _stop, _server) = start(LIMITS).await;
        let many = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20);
        let said = ask(address, &many).await;
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 20, "{said}");
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_before_the_end() {
        let (address, stop, mut server) = start(Limits::default()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stop);
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(rest(&mut silent).await, "");
        assert!(server.join_next().await.unwrap().is_ok());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
