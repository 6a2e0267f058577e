//! Calendars and availability: clinics, rooms, providers and service types; when providers work; which slots are free.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | rules of calendars and free time, and the search itself; pure |
//! | [`mirror`] | the network in memory, followed by counters |
//! | [`app`] | what callers can do, one transaction each |
//! | [`store`] | all SQL |
//! | [`events`] | what appointments tell, as busy time; what is told to others |
//! | `grpc` | requests in, answers out |
//! | [`ical`], `feed` | calendars as iCalendar files; published under links, over HTTP |
//!
//! Writes go to PostgreSQL with their events; searches are answered from memory and never touch it. A free slot is advice: the
//! appointments service decides.

pub mod app;
mod config;
pub mod domain;
pub mod error;
pub mod events;
mod feed;
mod grpc;
pub mod ical;
pub mod mirror;
pub mod store;

use std::sync::Arc;

use kit::clock::Clock;
use kit::messaging::inbox::Subscription;
use kit::platform::Platform;
use proto::clinic::scheduling::v1::availability_service_server::AvailabilityServiceServer;
use proto::clinic::scheduling::v1::calendar_service_server::CalendarServiceServer;
use proto::clinic::scheduling::v1::catalog_service_server::CatalogServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;

/// Schema, role, context of events, consumer.
pub const NAME: &str = "scheduling";
/// Domain of error reasons.
pub const DOMAIN: &str = "scheduling.clinic";
/// Port when none is chosen.
pub const PORT: u16 = 50051;
/// This service's schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Serves on `listener` until `stop`.
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let platform = Platform::start(NAME, &config.service, &MIGRATOR, clock.clone(), stop.clone()).await?;
    let Some(follower) = mirror::Follower::start(platform.db.clone(), clock.clone(), &stop).await else {
        return Ok(());
    };
    let mirror = follower.mirror();
    platform.spawn(follower.run(stop.clone()));
    let appointments = Subscription { context: "appointments", consumer: NAME, subjects: events::followed() };
    platform.follow(appointments, Arc::new(events::BusyTime { mirror: mirror.clone() }));
    let signer = app::link::Signer::new(config.public_url);
    let app = app::App { db: platform.db.clone(), clock, mirror, signer, stop };
    let routes = Routes::new(CatalogServiceServer::new(grpc::Catalog(app.clone())))
        .add_service(CalendarServiceServer::new(grpc::Calendar(app.clone())))
        .add_service(AvailabilityServiceServer::new(grpc::Availability::new(app.clone())));
    platform.serve(listener, routes, feed::router(app)).await
}
