//! Connections enter, requests go to the routes. Drains when told to, for a bounded time.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::normalize_path::NormalizePath;

use super::guard::{Guard, guard};
use super::rest::{Control, routes};

/// Serves the API until `shutdown` is ready, then lets requests under way finish for at most five seconds.
/// `names` are host names that the server goes by, besides addresses and `localhost`.
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
    let (draining, drained) = oneshot::channel::<()>();
    let server =
        axum::serve(listener, router(control, address.ip(), names)).with_graceful_shutdown(async move {
            shutdown.await;
            drop(draining);
        });
    let late = async {
        let _ = drained.await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served,
        () = late => Ok(()),
    }
}

/// Everything a request passes: the guard, then the path without a trailing slash, then the routes.
pub(super) fn router(control: Control, bound: IpAddr, names: Vec<String>) -> Router {
    let routes = NormalizePath::trim_trailing_slash(routes(control));
    Router::new().fallback_service(routes).layer(from_fn_with_state(Guard::new(bound, names), guard))
}

const DRAIN: Duration = Duration::from_secs(5);
