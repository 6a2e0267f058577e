//! The whole suite in one process: five services, the gateway and the sandbox providers, each on a port of its own and talking to
//! the others over it, exactly as they do in separate processes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kit::clock::Clock;
use kit::config::{Identity, Service};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Connections of each service to PostgreSQL: five services and a few administrators stay far below the server's limit.
const CONNECTIONS: u32 = 16;
/// Port of the sandbox providers unless told otherwise.
const SANDBOX_PORT: u16 = 8090;
/// How long the suite may take to become ready before its start counts as failed.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One port per server; 0 = any free one. With `--port 0` all that are not named are free ones.
#[derive(Args, Clone, Debug)]
pub struct Ports {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// The gateway: the one public port.
    #[arg(long = "port", env = "CLINIC_PORT", default_value_t = gateway::PORT)]
    pub gateway: u16,
    /// Scheduling [default: 50051].
    #[arg(long = "scheduling-port")]
    pub scheduling: Option<u16>,
    /// Appointments [default: 50052].
    #[arg(long = "appointments-port")]
    pub appointments: Option<u16>,
    /// Patients [default: 50053].
    #[arg(long = "patients-port")]
    pub patients: Option<u16>,
    /// Billing [default: 50054].
    #[arg(long = "billing-port")]
    pub billing: Option<u16>,
    /// Notify [default: 50055].
    #[arg(long = "notify-port")]
    pub notify: Option<u16>,
    /// Sandbox payment and SMS providers [default: 8090].
    #[arg(long = "sandbox-port")]
    pub sandbox: Option<u16>,
}

impl Ports {
    /// Free ports of the loopback.
    pub fn free() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            gateway: 0,
            scheduling: None,
            appointments: None,
            patients: None,
            billing: None,
            notify: None,
            sandbox: None,
        }
    }

    /// A server's port: the one named, else its own, else a free one.
    fn of(&self, named: Option<u16>, own: u16) -> u16 {
        named.unwrap_or(if self.gateway == 0 { 0 } else { own })
    }
}

/// What a suite stands on.
pub struct Config {
    /// The database as one service's role.
    pub database_url: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// The broker.
    pub nats_url: String,
    /// Whose tokens are believed, and the services' own key.
    pub identity: Identity,
    /// Time.
    pub clock: Clock,
    /// Advances a simulated clock; `None` on the real one.
    pub advance: Option<sandbox::Advance>,
    /// Where the sandbox providers keep their records.
    pub sandbox_dir: Option<PathBuf>,
    /// Where to listen.
    pub ports: Ports,
}

/// Where everything answers.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "one URL per server")]
pub struct Urls {
    pub gateway: String,
    pub scheduling: String,
    pub appointments: String,
    pub patients: String,
    pub billing: String,
    pub notify: String,
    pub sandbox: String,
}

/// A running suite.
pub struct Suite {
    /// Where everything answers.
    pub urls: Urls,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Suite {
    /// Binds every port, then starts everything. Use [`Suite::ready`] before calling it.
    pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let ports = &config.ports;
        let bind = async |name: &str, port: u16| {
            let listener = kit::platform::listen(SocketAddr::new(ports.host, port)).await;
            let listener = listener.with_context(|| format!("{name} cannot start"))?;
            let url = format!("http://{}", listener.local_addr()?);
            anyhow::Ok((listener, url))
        };
        let (gateway_port, gateway) = bind("the gateway", ports.gateway).await?;
        let (scheduling_port, scheduling) =
            bind("scheduling", ports.of(ports.scheduling, scheduling::PORT)).await?;
        let (appointments_port, appointments) =
            bind("appointments", ports.of(ports.appointments, appointments::PORT)).await?;
        let (patients_port, patients) = bind("patients", ports.of(ports.patients, patients::PORT)).await?;
        let (billing_port, billing) = bind("billing", ports.of(ports.billing, billing::PORT)).await?;
        let (notify_port, notify) = bind("notify", ports.of(ports.notify, notify::PORT)).await?;
        let (sandbox_port, sandbox) = bind("the sandbox", ports.of(ports.sandbox, SANDBOX_PORT)).await?;
        let urls = Urls { gateway, scheduling, appointments, patients, billing, notify, sandbox };

        let mut tasks = JoinSet::new();
        let (clock, settings) = (&config.clock, sandbox_settings(&config, &urls));
        tasks.spawn(sandbox::serve(sandbox_port, sandbox_config(&config, settings.clone()), stop.clone()));
        let service = |name: &str| config.service(name);
        let scheduling = scheduling::Config {
            service: service(scheduling::NAME),
            public_url: urls.gateway.parse().map_err(anyhow::Error::msg)?,
        };
        tasks.spawn(scheduling::run(scheduling_port, scheduling, clock.clone(), stop.clone()));
        let appointments = appointments::Config {
            service: service(appointments::NAME),
            scheduling_url: urls.scheduling.clone(),
            patients_url: urls.patients.clone(),
            billing_url: urls.billing.clone(),
            offer_minutes: appointments::OFFER_MINUTES,
            alternative_minutes: appointments::ALTERNATIVE_MINUTES,
        };
        tasks.spawn(appointments::run(appointments_port, appointments, clock.clone(), stop.clone()));
        let patients = patients::Config {
            service: service(patients::NAME),
            default_region: "US".parse().map_err(anyhow::Error::msg)?,
            keys: None,
        };
        tasks.spawn(patients::run(patients_port, patients, clock.clone(), stop.clone()));
        tasks.spawn(billing::run(
            billing_port,
            billing_config(service(billing::NAME), &urls, &settings)?,
            clock.clone(),
            stop.clone(),
        ));
        tasks.spawn(notify::run(
            notify_port,
            notify_config(service(notify::NAME), &urls, &settings)?,
            clock.clone(),
            stop.clone(),
        ));
        let gateway = gateway::Config {
            scheduling_url: urls.scheduling.clone(),
            appointments_url: urls.appointments.clone(),
            patients_url: urls.patients.clone(),
            billing_url: urls.billing.clone(),
            notify_url: urls.notify.clone(),
            reflection: true,
            cors_origins: Default::default(),
            public_url: None,
        };
        tasks.spawn(gateway::run(gateway_port, gateway, stop.clone()));
        Ok(Self { urls, stop, tasks })
    }

    /// Waits until every service answers through the gateway, or one of them failed to start.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let mut health = HealthClient::new(kit::client::channel(&self.urls.gateway)?);
        let serving = async {
            loop {
                let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
                if answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = serving => Ok(()),
            failed = self.tasks.join_next() => match failed {
                Some(ended) => ended?.and_then(|()| Err(anyhow::anyhow!("a service stopped while starting"))),
                None => Err(anyhow::anyhow!("nothing was started")),
            },
            () = tokio::time::sleep(READY_WITHIN) => {
                Err(anyhow::anyhow!("the suite was not ready within {READY_WITHIN:?}; see the log above"))
            }
        }
    }

    /// Runs until it is stopped, or until one of its parts fails.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            if !self.stop.is_cancelled() {
                self.stop.cancel();
                return ended?.and_then(|()| Err(anyhow::anyhow!("a service stopped by itself")));
            }
        }
        Ok(())
    }

    /// Stops everything and waits for it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

impl Config {
    fn service(&self, name: &str) -> Service {
        Service {
            database_url: (self.database_url)(name),
            database_connections: CONNECTIONS,
            nats_url: self.nats_url.clone(),
            identity: self.identity.clone(),
        }
    }
}

fn sandbox_settings(config: &Config, urls: &Urls) -> sandbox::Settings {
    sandbox::Settings {
        webhook_url: Some(format!("{}/webhooks/payments", urls.gateway)),
        sms_inbound_url: Some(format!("{}/webhooks/sms/inbound", urls.gateway)),
        data_dir: config.sandbox_dir.clone(),
        ..Default::default()
    }
}

fn sandbox_config(config: &Config, settings: sandbox::Settings) -> sandbox::Config {
    let clock = config.clock.clone();
    sandbox::Config { settings, clock: Arc::new(move || clock.now()), advance: config.advance.clone() }
}

/// How long one call to the sandbox may take before its outcome counts as unknown; the services' own default.
const PAYMENTS_TIMEOUT_MS: u64 = 8_000;
/// From one scheduled reconciliation to the next: a day, the service's own default.
const RECONCILE_EVERY_SECS: u64 = 24 * 60 * 60;
/// The sender of texts: a number reserved for fiction.
const SMS_FROM: &str = "+12025550199";
/// The sender of e-mails, were there a relay.
const MAIL_FROM: &str = "clinic@localhost";

fn billing_config(
    service: Service,
    urls: &Urls,
    sandbox: &sandbox::Settings,
) -> anyhow::Result<billing::Config> {
    Ok(billing::Config {
        appointments_url: urls.appointments.clone(),
        service,
        payments_api_base: urls.sandbox.clone(),
        payments_api_key: sandbox.payments_key.as_str().into(),
        payments_webhook_secret: sandbox.webhook_secret.as_str().into(),
        payments_timeout_ms: PAYMENTS_TIMEOUT_MS,
        reconcile_every_secs: RECONCILE_EVERY_SECS,
        currency: "USD".parse().map_err(anyhow::Error::msg)?,
    })
}

fn notify_config(
    service: Service,
    urls: &Urls,
    sandbox: &sandbox::Settings,
) -> anyhow::Result<notify::Config> {
    Ok(notify::Config {
        service,
        patients_url: urls.patients.clone(),
        scheduling_url: urls.scheduling.clone(),
        appointments_url: urls.appointments.clone(),
        default_language: notify::words::Language::English,
        portal_url: urls.gateway.clone(),
        sms: notify::config::Sms {
            sms_api_base: urls.sandbox.clone(),
            sms_account_sid: sandbox.sms_account.clone(),
            sms_auth_token: sandbox.sms_token.clone(),
            sms_from: SMS_FROM.to_owned(),
            sms_rate: notify::config::SMS_RATE,
            sms_public_url: Some(urls.gateway.parse().map_err(anyhow::Error::msg)?),
        },
        mail: notify::config::Mail { smtp_url: None, mail_from: MAIL_FROM.to_owned() },
    })
}
