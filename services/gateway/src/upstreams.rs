//! The services behind this port: what each answers for, and whether it can work now.

use std::sync::Arc;
use std::time::Duration;

use kit::serve::Ready;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::config::Config;

/// An upstream that has not said how it is by then does not answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// One service of the suite.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Its name, for people.
    name: &'static str,
    /// Prefix of the full names of its gRPC services.
    package: &'static str,
    /// The connection, made on first use and again when lost.
    pub(crate) channel: Channel,
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Upstreams {
    /// Publishes calendars.
    pub(crate) scheduling: Upstream,
    appointments: Upstream,
    patients: Upstream,
    /// Takes the payment provider's webhooks.
    pub(crate) billing: Upstream,
    /// Takes the SMS provider's webhooks.
    pub(crate) notify: Upstream,
}

impl Upstreams {
    /// The table that `config` describes; connects to nobody yet.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let upstream = |name, package, url: &str| {
            anyhow::Ok(Upstream { name, package, channel: kit::client::channel(url)? })
        };
        Ok(Self {
            scheduling: upstream("scheduling", "clinic.scheduling.v1.", &config.scheduling_url)?,
            appointments: upstream("appointments", "clinic.appointments.v1.", &config.appointments_url)?,
            patients: upstream("patients", "clinic.patients.v1.", &config.patients_url)?,
            billing: upstream("billing", "clinic.billing.v1.", &config.billing_url)?,
            notify: upstream("notify", "clinic.notify.v1.", &config.notify_url)?,
        })
    }

    fn all(&self) -> [&Upstream; 5] {
        [&self.scheduling, &self.appointments, &self.patients, &self.billing, &self.notify]
    }

    /// The upstream of a method such as `clinic.billing.v1.BillingService/GetCharge`.
    pub(crate) fn answering(&self, method: &str) -> Option<&Upstream> {
        self.all().into_iter().find(|upstream| method.starts_with(upstream.package))
    }
}

impl Upstream {
    /// What is wrong with it, in public words.
    async fn trouble(&self) -> Option<String> {
        let mut client = HealthClient::new(self.channel.clone());
        let answer = tokio::time::timeout(CHECK_TIMEOUT, client.check(HealthCheckRequest::default())).await;
        match answer {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => None,
            Ok(Ok(_)) => Some(format!("{} is not ready", self.name)),
            Ok(Err(_)) | Err(_) => Some(format!("{} does not answer", self.name)),
        }
    }
}

/// Ready when every upstream is; otherwise names those that are not.
pub(crate) fn ready(upstreams: Arc<Upstreams>) -> Ready {
    Arc::new(move || {
        let upstreams = upstreams.clone();
        Box::pin(async move {
            let troubles = futures::future::join_all(upstreams.all().map(Upstream::trouble)).await;
            let troubles: Vec<_> = troubles.into_iter().flatten().collect();
            if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
        })
    })
}
