//! The scheduling service on real servers, called over gRPC.

mod agenda;
mod availability;
mod catalog;
mod changes;
mod explain;
mod links;
mod making;
mod replicas;
mod templates;
mod watch;

use chrono::{Days, NaiveDate};
use kit::client::Outbound;
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use proto::clinic::scheduling::v1::{
    AvailabilityQuery, Clinic, CreateClinicRequest, OpeningHours, Provider, PutWeeklyTemplateRequest, Room,
    SearchAvailabilityRequest, SearchAvailabilityResponse, ServiceType, WeeklyTemplate,
};
use scheduling::Config;
use testkit::Servers;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) const ZONE: &str = "America/New_York";

/// A running service and the servers below it.
pub(crate) struct Suite {
    pub(crate) servers: Servers,
    pub(crate) url: String,
}

/// One clinic with one room, where one provider works 09:00 to 11:00 every day and gives visits of 30 minutes.
pub(crate) struct World {
    pub(crate) clinic: Clinic,
    pub(crate) room: Room,
    pub(crate) provider: Provider,
    pub(crate) service: ServiceType,
    pub(crate) template: WeeklyTemplate,
}

impl Suite {
    pub(crate) async fn start() -> Self {
        Self::on(Servers::start().await).await
    }

    /// Starts at an instant, so that a test may speak of dates.
    pub(crate) async fn start_at(instant: &str) -> Self {
        let servers = Servers::start().await;
        servers.advance_to(instant.parse().expect("an instant")).await;
        Self::on(servers).await
    }

    async fn on(servers: Servers) -> Self {
        let url = Self::replica(&servers).await;
        Self { servers, url }
    }

    /// Starts one more process's worth of the service on the same database and broker.
    pub(crate) async fn replica(servers: &Servers) -> String {
        Self::replica_until(servers, servers.stop.clone()).await.0
    }

    /// The same with an end of its own.
    pub(crate) async fn replica_until(
        servers: &Servers,
        stop: CancellationToken,
    ) -> (String, JoinHandle<()>) {
        let (listener, url) = testkit::listener().await;
        let public_url = url.parse().expect("an address");
        let config = Config { service: servers.service(scheduling::NAME), public_url };
        let run = scheduling::run(listener, config, servers.clock.clone(), stop);
        (url, tokio::spawn(async move { run.await.expect("the service runs until it is stopped") }))
    }

    fn as_role(&self, role: Role) -> Outbound {
        self.servers.client(&self.url, role, "somebody")
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Outbound> {
        CatalogServiceClient::new(self.as_role(Role::Manager))
    }

    pub(crate) fn catalog_as(&self, role: Role) -> CatalogServiceClient<Outbound> {
        CatalogServiceClient::new(self.as_role(role))
    }

    pub(crate) fn calendar(&self) -> CalendarServiceClient<Outbound> {
        CalendarServiceClient::new(self.as_role(Role::Manager))
    }

    pub(crate) fn availability(&self) -> AvailabilityServiceClient<Outbound> {
        AvailabilityServiceClient::new(self.as_role(Role::FrontDesk))
    }

    pub(crate) fn booking(&self) -> AvailabilityServiceClient<Outbound> {
        AvailabilityServiceClient::new(self.as_role(Role::Service))
    }

    /// A local day some days ahead, the same on every clock of the tests.
    pub(crate) fn day(&self, ahead: u64) -> NaiveDate {
        self.servers.clock.now().date_naive() + Days::new(ahead)
    }

    pub(crate) async fn world(&self) -> World {
        let clinic = self.clinic("Lakeside", ZONE).await;
        let room = self.room(&clinic, &[]).await;
        let service = self.service(making::visit("Follow-up", 30)).await;
        let provider = self.provider("Dr. Ada Osei").await;
        let template = self.template(&clinic.id, &provider.id);
        let template = self.calendar().put_weekly_template(template).await.expect("a template").into_inner();
        World { clinic, room, provider, service, template }
    }

    pub(crate) fn template(&self, clinic_id: &str, provider_id: &str) -> PutWeeklyTemplateRequest {
        let first = self.day(0).format("%Y%m%d");
        let weekly_template = WeeklyTemplate {
            provider_id: provider_id.to_owned(),
            clinic_id: clinic_id.to_owned(),
            rule: format!("DTSTART;TZID={ZONE}:{first}T090000\nRRULE:FREQ=DAILY"),
            start_time: Some(kit::fields::time_of_day(9 * 60)),
            end_time: Some(kit::fields::time_of_day(11 * 60)),
            ..Default::default()
        };
        PutWeeklyTemplateRequest { request_id: String::new(), weekly_template: Some(weekly_template) }
    }

    /// A search from `first` to `last` days ahead.
    pub(crate) fn search(&self, world: &World, first: u64, last: u64) -> SearchAvailabilityRequest {
        let query = AvailabilityQuery {
            service_type_id: world.service.id.clone(),
            first_date: Some(kit::fields::date(self.day(first))),
            last_date: Some(kit::fields::date(self.day(last))),
            ..Default::default()
        };
        SearchAvailabilityRequest { query: Some(query), ..Default::default() }
    }

    /// Searches until the answer is as `expected`.
    pub(crate) async fn until(
        &self,
        what: &str,
        search: &SearchAvailabilityRequest,
        expected: impl Fn(&SearchAvailabilityResponse) -> bool,
    ) -> SearchAvailabilityResponse {
        let client = self.availability();
        testkit::until(what, || {
            let (mut client, search, expected) = (client.clone(), search.clone(), &expected);
            async move {
                let found = client.search_availability(search).await.ok()?.into_inner();
                expected(&found).then_some(found)
            }
        })
        .await
    }
}

/// Open every day, 08:00 to 18:00.
pub(crate) fn clinic(name: &str) -> CreateClinicRequest {
    let hours = |day| OpeningHours {
        day,
        open: Some(kit::fields::time_of_day(8 * 60)),
        close: Some(kit::fields::time_of_day(18 * 60)),
    };
    let clinic = Clinic {
        name: name.to_owned(),
        time_zone: ZONE.to_owned(),
        opening_hours: (1..=7).map(hours).collect(),
        phone: "+13125550100".to_owned(),
        ..Default::default()
    };
    CreateClinicRequest { clinic: Some(clinic), ..Default::default() }
}

/// The clock times of an answer's slots, such as `09:30`.
pub(crate) fn times(found: &SearchAvailabilityResponse) -> Vec<&str> {
    found.slots.iter().map(|slot| &slot.local_start[11..16]).collect()
}

pub(crate) fn code_and_reason(status: &Status) -> (Code, String) {
    (status.code(), kit::status::reason(status))
}

/// Names of the fields that an INVALID_ARGUMENT refuses.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("the bad fields");
    details.field_violations.into_iter().map(|v| v.field).collect()
}
