//! The demo network: three clinics in two time zones, twelve providers, ten rooms, this year's holidays and 200 patients.
//!
//! Seeded over the suite's own RPCs, as a manager and a front desk would, so that what it shows is what the product does.
//! Ids are derived from names: the same network comes out every time, and a seeding that was cut short goes on.

mod network;
mod people;

use std::cell::Cell;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use kit::auth::Issuer;
use kit::client::Outbound;
use kit::clock::Clock;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use tonic::{Code, Status};
use uuid::Uuid;

/// Root of the demo's ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x5eed_c11a_1c00_4000_8000_0000_0000_0001);
/// Calls under way at once: for people, of whom each is apart from the others; for the network, whose parts wait for each other.
const PEOPLE_AT_ONCE: usize = 32;
const NETWORK_AT_ONCE: usize = 6;
/// How often a call is made again that a busy machine did not get to, and how long after.
const TRIES: usize = 5;
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The last thing that is made: when it is there, everything is.
const LAST: &str = "patient/200";

/// The id of a thing of the demo, such as `clinic/harbor` or `patient/1`.
pub fn id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// Makes what is missing of the demo network behind the gateway at `url`. `progress` hears (done, of).
pub async fn seed(
    url: &str,
    issuer: &Issuer,
    now: DateTime<Utc>,
    progress: impl Fn(usize, usize),
) -> anyhow::Result<()> {
    let token = issuer.sign("demo-seed", &[Role::Admin], Clock::System.now(), TimeDelta::hours(1))?;
    let calls = Calls { channel: Outbound::bearing(url, token)? };
    if calls.is_done().await? {
        return Ok(());
    }
    let (network, people) = (network::stages(now), people::stages(now));
    let of = network.iter().chain(&people).map(Vec::len).sum();
    let done = Cell::new(0);
    let step_done = || {
        done.set(done.get() + 1);
        progress(done.get(), of);
    };
    futures::try_join!(
        calls.run(network, NETWORK_AT_ONCE, &step_done),
        calls.run(people, PEOPLE_AT_ONCE, &step_done)
    )?;
    calls.make(people::last()).await
}

/// One call of the seeding. Each may be repeated: ids are fixed.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a few hundred exist for a few seconds")]
enum Step {
    Clinic(proto::clinic::scheduling::v1::CreateClinicRequest),
    Room(proto::clinic::scheduling::v1::CreateRoomRequest),
    ServiceType(proto::clinic::scheduling::v1::CreateServiceTypeRequest),
    Provider(proto::clinic::scheduling::v1::CreateProviderRequest),
    Template(proto::clinic::scheduling::v1::PutWeeklyTemplateRequest),
    Blackout(proto::clinic::scheduling::v1::AddBlackoutRequest),
    Fees(proto::clinic::billing::v1::SetFeeScheduleRequest),
    Patient(proto::clinic::patients::v1::RegisterPatientRequest),
    Card(proto::clinic::billing::v1::SavePaymentMethodRequest),
    Consent(proto::clinic::patients::v1::SetSmsConsentRequest),
}

struct Calls {
    channel: Outbound,
}

impl Calls {
    /// Makes one stage after the other, the steps of each many at once.
    async fn run(&self, stages: Vec<Vec<Step>>, at_once: usize, step_done: &impl Fn()) -> anyhow::Result<()> {
        for stage in stages {
            let mut running =
                futures::stream::iter(stage).map(|step| self.make(step)).buffer_unordered(at_once);
            while running.try_next().await?.is_some() {
                step_done();
            }
        }
        Ok(())
    }

    async fn is_done(&self) -> anyhow::Result<bool> {
        let request = proto::clinic::patients::v1::GetPatientRequest {
            patient_id: id(LAST).to_string(),
            view: proto::clinic::patients::v1::PatientView::Reference as i32,
            break_glass_reason: people::REASON.to_owned(),
            ..Default::default()
        };
        match PatientServiceClient::new(self.channel.clone()).get_patient(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    async fn make(&self, step: Step) -> anyhow::Result<()> {
        let mut tries = 1;
        loop {
            match self.call(step.clone()).await.or_else(there_already) {
                Ok(()) => return Ok(()),
                Err(status) if status.code() == Code::Unavailable && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(status) => anyhow::bail!("{}: {}", kit::status::reason(&status), status.message()),
            }
        }
    }

    async fn call(&self, step: Step) -> Result<(), Status> {
        let catalog = || CatalogServiceClient::new(self.channel.clone());
        let calendar = || CalendarServiceClient::new(self.channel.clone());
        let patients = || PatientServiceClient::new(self.channel.clone());
        let billing = || BillingServiceClient::new(self.channel.clone());
        match step {
            Step::Clinic(r) => catalog().create_clinic(r).await.map(drop),
            Step::Room(r) => catalog().create_room(r).await.map(drop),
            Step::ServiceType(r) => catalog().create_service_type(r).await.map(drop),
            Step::Provider(r) => catalog().create_provider(r).await.map(drop),
            Step::Template(r) => calendar().put_weekly_template(r).await.map(drop),
            Step::Blackout(r) => calendar().add_blackout(r).await.map(drop),
            Step::Fees(r) => billing().set_fee_schedule(r).await.map(drop),
            Step::Patient(r) => patients().register_patient(r).await.map(drop),
            Step::Consent(r) => patients().set_sms_consent(r).await.map(drop),
            Step::Card(r) => billing().save_payment_method(r).await.map(drop),
        }
    }
}

/// A seeding that goes on where an earlier one was cut short meets its own work.
fn there_already(status: Status) -> Result<(), Status> {
    let etag = kit::status::reason(&status) == "ETAG_MISMATCH";
    if status.code() == Code::AlreadyExists || etag { Ok(()) } else { Err(status) }
}
