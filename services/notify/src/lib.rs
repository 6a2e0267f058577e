//! Notify: the right text, once, at the right hour.
//!
//! | module | holds |
//! |---|---|
//! | [`domain`] | when reminders are due, quiet hours, what is still worth sending |
//! | [`gsm7`], [`words`], [`templates`] | how texts are counted; the words of each message in each language |
//! | [`planning`] | appointments' and billing's events become visits, reminders and notices |
//! | [`writer`], [`courier`] | messages are written; notices become messages when they may be told |
//! | [`bells`] | workers are woken when something was committed that is due |
//! | [`dispatch`], [`post`] | the workers that text and e-mail what is due |
//! | [`handover`], [`group`], [`pace`] | texts on their way to the provider, written in groups, at the sender's pace |
//! | [`callback`], [`signature`] | what the provider tells, and whether it is the provider who tells it |
//! | [`replies`] | texts received: whose they are, what they change, what is answered |
//! | [`app`] | what somebody asks to be sent, and the words they set |
//! | [`events`] | what notify tells the others |
//! | [`merges`] | what a merged patient had is the survivor's |
//! | [`ports`], [`twilio`], [`mail`], [`invite`] | patients, scheduling, the SMS provider, the mail relay and what calendars read |
//! | [`store`] | all SQL |
//! | [`grpc`] | the RPCs |
//! | [`error`] | what can go wrong |
//!
//! A text is handed to the provider only after its message row is committed, and a row whose outcome is not known is looked up in
//! the provider's list before anything else: so a text is never sent twice, whenever the process dies.

pub mod app;
pub mod bells;
pub mod callback;
pub mod config;
pub mod courier;
pub mod dispatch;
pub mod domain;
pub mod error;
pub mod events;
pub mod group;
pub mod grpc;
pub mod gsm7;
pub mod handover;
pub mod invite;
pub mod mail;
pub mod merges;
pub mod pace;
pub mod planning;
pub mod ports;
pub mod post;
pub mod replies;
pub mod signature;
pub mod store;
pub mod templates;
pub mod twilio;
pub mod words;
pub mod writer;

use std::sync::Arc;

use kit::clock::Clock;
use kit::messaging::inbox::Subscription;
use kit::platform::Platform;
use proto::clinic::notify::v1::notify_service_server::NotifyServiceServer;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use callback::Webhooks;
pub use config::Config;
use dispatch::Dispatcher;
use handover::Handover;
use pace::Pace;
use ports::Ports;
use replies::worker::{Partners, Replies};

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
    let patients = platform.outbound(&config.patients_url)?;
    let ports = Ports {
        patients: Arc::new(ports::PatientsRpc::new(patients.clone())),
        clinics: Arc::new(ports::ClinicsRpc::new(platform.outbound(&config.scheduling_url)?)),
        sms: Arc::new(twilio::Twilio::new(&config.sms)?),
        mail: mail::Smtp::new(&config.mail)?.map(|smtp| Arc::new(smtp) as Arc<dyn ports::Mailer>),
    };
    let partners = Partners {
        holders: Arc::new(replies::ports::HoldersRpc::new(patients)),
        visits: Arc::new(replies::ports::VisitsRpc::new(platform.outbound(&config.appointments_url)?)),
    };
    let (language, portal) = (config.default_language, config.portal_url);
    serve(listener, platform, ports, partners, &config.sms, language, &portal).await
}

/// As [`run`], on a platform and ports of the caller's choice.
pub async fn serve(
    listener: TcpListener,
    platform: Platform,
    ports: Ports,
    partners: Partners,
    sms: &config::Sms,
    default_language: words::Language,
    portal_url: &str,
) -> anyhow::Result<()> {
    let (db, clock) = (platform.db.clone(), platform.clock.clone());
    let bells = Arc::<bells::Bells>::default();
    let subjects = planning::visit_subjects();
    let visits = Subscription { context: "appointments", consumer: NAME, subjects };
    platform.follow(visits, Arc::new(planning::Visits::new(clock.clone(), bells.clone())));
    let subjects = planning::payment_subjects();
    let payments = Subscription { context: "billing", consumer: NAME, subjects };
    platform.follow(payments, Arc::new(planning::Payments::new(clock.clone(), bells.clone())));
    platform.follow(merges::subscription(), Arc::new(merges::Merges));

    let templates = templates::Templates::new(db.clone(), default_language);
    let writer = writer::Writer::new(ports.clinics.clone(), templates, portal_url);
    let pace = Pace::new(db.pool().clone(), &sms.sms_from, sms.sms_rate);
    let handover = Handover::new(db.clone(), clock.clone(), ports.sms.clone(), pace);
    let dispatcher =
        Dispatcher::new(db.clone(), clock.clone(), ports.clone(), handover.clone(), writer.clone());
    platform.spawn(dispatcher.run(bells.clone(), platform.stop.clone()));
    let courier =
        courier::Courier::new(db.clone(), clock.clone(), ports.clone(), handover.clone(), writer.clone());
    for queue in [courier::Queue::Offers, courier::Queue::News] {
        platform.spawn(courier.clone().run(queue, bells.clone(), platform.stop.clone()));
    }
    let post = post::Post::new(db.clone(), clock.clone(), ports.clone());
    platform.spawn(post.run(platform.stop.clone()));

    let bell = Arc::default();
    let webhooks = Webhooks::new(db.clone(), clock.clone(), handover.clone(), sms, Arc::clone(&bell));
    let (ports_of_app, writer_of_app) = (ports.clone(), writer.clone());
    let app =
        app::App { db: db.clone(), clock: clock.clone(), ports: ports_of_app, writer: writer_of_app, bells };
    let own_number = sms.sms_from.clone();
    let replies = Replies { db, clock, ports, partners, handover, writer, own_number, bell };
    platform.spawn(replies.run(platform.stop.clone()));
    let routes = Routes::new(NotifyServiceServer::new(grpc::Notify::new(app)));
    platform.serve(listener, routes, webhooks.router()).await
}
