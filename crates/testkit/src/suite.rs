//! The whole suite in the test's own process, on free ports, composed by the same code as `clinic up`.

use clinic::suite::{Config, Ports, Suite, Urls};
use kit::client::Outbound;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::waitlist_service_client::WaitlistServiceClient;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::notify::v1::notify_service_client::NotifyServiceClient;
use proto::clinic::patients::v1::intake_service_client::IntakeServiceClient;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;

use crate::Servers;
use crate::network::Network;

/// A running suite on servers of its own.
pub struct RunningSuite {
    /// Where everything answers.
    pub urls: Urls,
    /// What it stands on.
    pub servers: Servers,
    suite: Suite,
}

impl RunningSuite {
    /// Starts everything and waits until it is ready.
    pub async fn start() -> Self {
        Self::on(Servers::start().await).await
    }

    /// Starts the suite on servers that may have data already.
    pub async fn on(servers: Servers) -> Self {
        let admin = servers.postgres.port();
        let config = Config {
            database_url: Box::new(move |role| crate::database_url(admin, role)),
            nats_url: servers.nats.url(),
            identity: servers.identity(),
            clock: servers.clock.clone(),
            advance: Some(servers.advancer()),
            sandbox_dir: Some(servers.folder().join("sandbox")),
            ports: Ports::free(),
        };
        let mut suite = Suite::start(config, servers.stop.child_token()).await.expect("the suite starts");
        suite.ready().await.expect("the suite becomes ready");
        Self { urls: suite.urls.clone(), servers, suite }
    }

    /// Stops the services, as SIGTERM would; the servers and their data stay.
    pub async fn stop(self) -> Servers {
        self.suite.stop().await.expect("a clean stop");
        self.servers
    }

    /// Calls through the gateway in one role.
    pub fn as_role(&self, role: Role, subject: &str) -> Desk {
        Desk::new(self.servers.client(&self.urls.gateway, role, subject))
    }

    /// Calls through the gateway as the front desk.
    pub fn desk(&self) -> Desk {
        self.as_role(Role::FrontDesk, "desk")
    }

    /// The small network of journeys.
    pub async fn network(&self) -> Network {
        Network::build(&self.admin(), self.servers.clock.now()).await
    }

    /// Calls through the gateway as an administrator.
    pub fn admin(&self) -> Desk {
        self.as_role(Role::Admin, "admin")
    }
}

/// One caller's clients of every service, through the gateway.
#[derive(Clone)]
pub struct Desk {
    channel: Outbound,
}

#[allow(missing_docs, reason = "one client per service of the contract")]
impl Desk {
    pub fn new(channel: Outbound) -> Self {
        Self { channel }
    }
    pub fn catalog(&self) -> CatalogServiceClient<Outbound> {
        CatalogServiceClient::new(self.channel.clone())
    }
    pub fn calendar(&self) -> CalendarServiceClient<Outbound> {
        CalendarServiceClient::new(self.channel.clone())
    }
    pub fn availability(&self) -> AvailabilityServiceClient<Outbound> {
        AvailabilityServiceClient::new(self.channel.clone())
    }
    pub fn booking(&self) -> BookingServiceClient<Outbound> {
        BookingServiceClient::new(self.channel.clone())
    }
    pub fn waitlist(&self) -> WaitlistServiceClient<Outbound> {
        WaitlistServiceClient::new(self.channel.clone())
    }
    pub fn patients(&self) -> PatientServiceClient<Outbound> {
        PatientServiceClient::new(self.channel.clone())
    }
    pub fn intakes(&self) -> IntakeServiceClient<Outbound> {
        IntakeServiceClient::new(self.channel.clone())
    }
    pub fn billing(&self) -> BillingServiceClient<Outbound> {
        BillingServiceClient::new(self.channel.clone())
    }
    pub fn notify(&self) -> NotifyServiceClient<Outbound> {
        NotifyServiceClient::new(self.channel.clone())
    }
}
