//! Notify: the right text, once, at the right hour.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | when reminders are due, quiet hours, what is still worth sending |
//! | [`gsm7`], [`words`] | how texts are counted; the words of each reminder in each language |
//! | [`events`] | appointments' events become visits and reminders; what notify tells the others |
//! | [`dispatch`] | the worker that sends what is due |
//! | [`ports`], [`twilio`] | patients, scheduling and the SMS provider |
//! | [`store`] | all SQL |
//! | [`grpc`] | the RPCs |
//! | [`error`] | what can go wrong |
//!
//! A text is handed to the provider only after its message row is committed, and a row whose outcome is not known is looked up in
//! the provider's list before anything else: so a text is never sent twice, whenever the process dies.

pub mod config;
pub mod dispatch;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod gsm7;
pub mod ports;
pub mod signature;
pub mod store;
pub mod twilio;
pub mod words;

use std::sync::Arc;

use kit::clock::Clock;
use kit::messaging::inbox::Subscription;
use kit::platform::Platform;
use proto::clinic::notify::v1::notify_service_server::NotifyServiceServer;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;
use dispatch::Dispatcher;
use ports::Ports;

/// Name of the service: its schema, its role, the context of its events.
pub const NAME: &str = "notify";
/// Domain of its errors' reasons.
pub const DOMAIN: &str = "notify.clinic";
/// Port it listens on unless told otherwise.
pub const PORT: u16 = 50055;
/// Its schema's history.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Serves `listener` until `stop`.
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let platform = Platform::start(NAME, &config.service, &MIGRATOR, clock, stop).await?;
    let ports = Ports {
        patients: Arc::new(ports::PatientsRpc::new(platform.outbound(&config.patients_url)?)),
        clinics: Arc::new(ports::ClinicsRpc::new(platform.outbound(&config.scheduling_url)?)),
        sms: Arc::new(twilio::Twilio::new(&config.sms)?),
    };
    serve(listener, platform, ports, config.default_language).await
}

/// As [`run`], on a platform and ports of the caller's choice.
pub async fn serve(
    listener: TcpListener,
    platform: Platform,
    ports: Ports,
    default_language: words::Language,
) -> anyhow::Result<()> {
    let subscription = Subscription { context: "appointments", consumer: NAME, subjects: events::subjects() };
    platform.follow(subscription, Arc::new(events::Visits::new(platform.clock.clone())));
    let dispatcher = Dispatcher::new(platform.db.clone(), platform.clock.clone(), ports, default_language);
    platform.spawn(dispatcher.run(platform.stop.clone()));
    let routes = Routes::new(NotifyServiceServer::new(grpc::Notify::new(platform.db.clone())));
    platform.serve(listener, routes, axum::Router::new()).await
}
