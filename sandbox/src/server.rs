//! The accept loop. It differs from axum's own in one thing: a response marked `HangUp` closes the connection, unsent.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::faults::HangUp;

/// How long open connections may take to end once the server stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// Wait after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection was ended on purpose, without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up by script")]
struct HungUp;

pub(crate) async fn run(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let builder = Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Without it small answers wait for the other side's delayed acknowledgement; failing is harmless.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let answer = router.clone().oneshot(Request::from(request.map(Body::new)));
            async move {
                match answer.await {
                    Ok(response) if response.extensions().get::<HangUp>().is_some() => Err(HungUp),
                    Ok(response) => Ok(response),
                    Err(never) => match never as Infallible {},
                }
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection ended early.");
            }
        });
    }
    drop(listener);
    // Connections that outstay the farewell are cut when the runtime ends.
    let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
}
