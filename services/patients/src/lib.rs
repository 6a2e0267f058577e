//! Patients: who they are, how to reach them, whether they may be texted, what they answer before a visit, and who looked.
//!
//! This is the only service that holds names and contact data; the others keep the patient's id and ask.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | values and rules: phone numbers, names as they are compared, consent, forms and answers |
//! | [`access`] | who asks and why; the rows of the access log and their chain |
//! | [`app`] | a method per use case |
//! | [`seal`] | encryption at rest and keyed hashes |
//! | [`store`] | all SQL |
//! | [`grpc`] | requests decoded, answers encoded |
//! | [`events`] | what the others are told, and what is followed |
//! | [`error`] | what can go wrong |
//!
//! Every read or write of patient data writes its access-log rows in the same transaction, last before the commit: the chains'
//! ends are locked from there on.

pub mod access;
pub mod app;
pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
mod repeat;
pub mod seal;
pub mod store;

use std::sync::Arc;

use kit::clock::Clock;
use kit::platform::Platform;
use proto::clinic::patients::v1::intake_service_server::IntakeServiceServer;
use proto::clinic::patients::v1::patient_service_server::PatientServiceServer;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;

/// Name of the service: its schema, its role, the context of its events.
pub const NAME: &str = "patients";
/// Domain of its errors' reasons.
pub const DOMAIN: &str = "patients.clinic";
/// Port it listens on unless told otherwise.
pub const PORT: u16 = 50053;
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
    let keys = store::sealed::keys(&platform.db, &config.keys_file()).await?;
    let app = app::App::new(platform.db.clone(), keys, platform.clock.clone());
    app.seal_plain().await?;
    platform.spawn(app.clone().follow_keys(platform.stop.clone()));
    platform.follow(events::intake::subscription(), Arc::new(events::intake::Follower(app.clone())));
    let patients = grpc::Patients::new(app.clone(), config.default_region.0);
    let routes = Routes::new(PatientServiceServer::new(patients))
        .add_service(IntakeServiceServer::new(grpc::intake::Intakes::new(app)));
    platform.serve(listener, routes, axum::Router::new()).await
}
