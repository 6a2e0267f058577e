//! The one public port: native gRPC, grpc-web, reflection, webhooks, calendars and a page for people.
//!
//! It holds no business rule and knows no message type. Tokens pass through: every service enforces its own rules.
//!
//! | module | does |
//! |---|---|
//! | `config` | upstreams, browser origins, the public address |
//! | `protocol` | looks at a request's content type: gRPC, grpc-web, or plain HTTP |
//! | `proxy` | routes a gRPC call by its service's name, under its deadline, message by message |
//! | `web` | grpc-web in both encodings, CORS |
//! | `raw` | plain HTTP that a service answers: the providers' callbacks, published calendars |
//! | `upstreams` | the services behind this port, and whether they are ready |
//! | `page` | what a browser sees at `/` |

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler as _;
use axum::middleware::from_fn_with_state;
use kit::serve::{self, Ready};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

mod config;
mod hop;
mod page;
mod protocol;
mod proxy;
mod raw;
mod upstreams;
mod web;

pub use config::{Config, Origin, Origins};

/// The name in logs and traces.
pub const NAME: &str = "gateway";
/// Domain of the errors that the gateway itself answers.
pub const DOMAIN: &str = "gateway.clinic";
/// The port unless another is chosen.
pub const PORT: u16 = 8080;

/// Serves the public port until `stop`, then lets running calls end. Upstreams need not be up yet.
pub async fn run(listener: TcpListener, config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let app = app(&config, stop.clone()).await?;
    tracing::info!(service = NAME, address = %listener.local_addr()?, "serving");
    serve::serve(listener, app, stop).await
}

async fn app(config: &Config, stop: CancellationToken) -> anyhow::Result<Router> {
    let upstreams = Arc::new(upstreams::Upstreams::new(config)?);
    let ready = upstreams::ready(upstreams.clone());
    let grpc = grpc(config.reflection, upstreams.clone(), ready.clone(), stop).await;
    let web = web::translated(grpc.clone(), &config.cors_origins);
    let http =
        page::routes().merge(raw::routes(&upstreams, config.public_url.clone())).merge(serve::probes(ready));
    Ok(http.layer(from_fn_with_state(protocol::Doors { grpc, web }, protocol::choose)))
}

/// Health and, if wanted, reflection are answered here; every other call goes to an upstream.
async fn grpc(
    reflection: bool,
    upstreams: Arc<upstreams::Upstreams>,
    ready: Ready,
    stop: CancellationToken,
) -> Router {
    let mut routes = Routes::new(serve::health(ready, stop).await);
    if reflection {
        routes = routes.add_service(serve::reflection()).add_service(serve::reflection_v1alpha());
    }
    routes.into_axum_router().fallback_service(proxy::forward.with_state(upstreams))
}
