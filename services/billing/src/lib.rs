//! Billing: co-pays, no-show fees and the ledger.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | values, states and rules; no I/O |
//! | [`app`] | use cases, and the worker that drives charges to their end |
//! | [`store`] | all SQL |
//! | [`gateway`] | the payment provider: the port, and Stripe's protocol |
//! | [`ports`] | the appointments service, which reconciliation asks |
//! | [`grpc`], [`webhook`], [`events`], [`wire`] | the edges: calls, the provider's callbacks, events in and out, encoding |
//! | [`config`], [`error`] | options; what can go wrong |
//!
//! What holds: the provider is never asked inside a transaction; what it will be asked is committed before, under a key that
//! makes asking twice harmless; whatever moves money writes state, event and ledger in one transaction.

pub mod app;
pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod gateway;
pub mod grpc;
pub mod ports;
pub mod store;
pub mod webhook;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use kit::clock::Clock;
use kit::platform::Platform;
use proto::clinic::billing::v1::billing_service_server::BillingServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::app::{App, reconcile, webhooks, worker};
pub use crate::config::Config;
use crate::gateway::stripe::Stripe;
use crate::ports::Remote;

/// The service's name: schema, role, context of its events, consumer of others'.
pub const NAME: &str = "billing";
/// Domain of its errors.
pub const DOMAIN: &str = "billing.clinic";
/// Port it listens on when none is named.
pub const PORT: u16 = 50054;

/// The schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Serves on `listener` until `stop`.
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let gateway = Arc::new(Stripe::new(&config)?);
    let platform = Platform::start(NAME, &config.service, &MIGRATOR, clock, stop).await?;
    let app = App {
        db: platform.db.clone().by_key(),
        gateway,
        appointments: Arc::new(Remote { appointments: platform.outbound(&config.appointments_url)? }),
        clock: platform.clock.clone(),
        currency: config.currency,
        wake: Arc::default(),
        books: Arc::default(),
    };
    platform.spawn(worker::run(app.clone(), platform.stop.clone()));
    platform.spawn(worker::plan_looks(app.clone(), platform.stop.clone()));
    platform.spawn(worker::forget_webhooks(app.clone(), platform.stop.clone()));
    platform.spawn(webhooks::run(app.clone(), platform.stop.clone()));
    platform.spawn(webhooks::backfill(app.clone(), platform.stop.clone()));
    let every = Duration::from_secs(config.reconcile_every_secs);
    platform.spawn(reconcile::on_schedule(app.clone(), every, platform.stop.clone()));
    platform.follow(events::subscription(NAME), Arc::new(events::Visits(app.clone())));
    kit::merges::follow(&platform);
    let deliveries = webhook::router(app.clone(), config.payments_webhook_secret);
    let routes = Routes::new(BillingServiceServer::new(grpc::Grpc { app }));
    platform.serve(listener, routes, deliveries).await
}
