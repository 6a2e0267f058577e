//! The suite's programs as processes of their own, built like this one and beside it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use testkit::Servers;

/// Ticks a second that Linux counts processor time in, on every architecture.
const TICKS: f64 = 100.0;
/// What sandbox and billing know each other by.
const PAYMENTS_KEY: &str = "sk_test_bench";
pub(crate) const WEBHOOK_SECRET: &str = "whsec_bench";
/// What sandbox and notify know each other by.
const SMS_ACCOUNT: &str = "AC0000000000000000000000000000be9c";
const SMS_TOKEN: &str = "bench";
/// Texts a second that a sender may send: more than it can.
const NO_LIMIT: &str = "1000000";

/// A running program, with what operators get by default; its log goes where ours goes. Ended on drop.
pub(crate) struct Process {
    /// Where it answers.
    pub(crate) url: String,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts the service `name` on `servers`. It may not listen yet.
    pub(crate) async fn service(name: &str, servers: &Servers) -> anyhow::Result<Self> {
        Self::service_at(name, free_address().await?, servers, |_| {})
    }

    /// Starts a gateway in front of one service, which it is told of by `variable`.
    pub(crate) async fn gateway(variable: &str, service: &Self) -> anyhow::Result<Self> {
        Self::start("gateway", free_address().await?, |command| {
            command.env(variable, &service.url);
        })
    }

    fn service_at(
        name: &str,
        address: SocketAddr,
        servers: &Servers,
        dress: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let options = servers.service(name);
        let identity = options.identity;
        Self::start(name, address, |command| {
            command
                .env("DATABASE_URL", options.database_url)
                .env("NATS_URL", options.nats_url)
                .env("CLINIC_JWKS_FILE", identity.jwks_file)
                .env("CLINIC_SERVICE_KEY_FILE", identity.service_key_file);
            dress(command);
        })
    }

    fn start(name: &str, address: SocketAddr, dress: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let program = env::current_exe()?.with_file_name(name);
        let mut command = Command::new(&program);
        command.env("LISTEN", address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        dress(&mut command);
        let child =
            command.spawn().with_context(|| format!("{} does not start: build it", program.display()))?;
        Ok(Self { url: url(address), child })
    }

    /// Starts notify, which asks `others` for patients and clinics.
    pub(crate) async fn notify(servers: &Servers, sandbox: &Self, others: &str) -> anyhow::Result<Self> {
        Self::service_at("notify", free_address().await?, servers, |command| {
            command
                .env("PATIENTS_URL", others)
                .env("SCHEDULING_URL", others)
                .env("SMS_API_BASE", &sandbox.url)
                .env("SMS_ACCOUNT_SID", SMS_ACCOUNT)
                .env("SMS_AUTH_TOKEN", SMS_TOKEN)
                .env("SMS_FROM", "+12025550199")
                .env("SMS_RATE", NO_LIMIT);
        })
    }

    /// Starts appointments, which asks `scheduling` about slots and `others` for patients; bookings have no co-pay.
    pub(crate) async fn appointments(
        servers: &Servers,
        scheduling: &Self,
        others: &str,
    ) -> anyhow::Result<Self> {
        Self::service_at("appointments", free_address().await?, servers, |command| {
            command.env("SCHEDULING_URL", &scheduling.url).env("PATIENTS_URL", others);
        })
    }

    /// Starts the sandbox as an SMS provider that takes texts and never delivers them.
    pub(crate) async fn sms_sandbox() -> anyhow::Result<Self> {
        let address = free_address().await?;
        Self::start("sandbox", address, |command| {
            command
                .env("SANDBOX_LISTEN", address.to_string())
                .env("SANDBOX_SMS_ACCOUNT", SMS_ACCOUNT)
                .env("SANDBOX_SMS_TOKEN", SMS_TOKEN)
                .env("SANDBOX_SMS_STEP_MS", "3600000");
        })
    }

    /// The memory it has now, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        memory_of(self.child.id())
    }

    /// The processor time it has used so far, by all its threads.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        Ok(Program::read(self.child.id())?.used)
    }
}

/// What a booking with a co-pay takes: it holds the processes and is told where they answer.
pub(crate) struct Processes {
    pub(crate) appointments: Process,
    pub(crate) billing: Process,
    _others: [Process; 2],
}

impl Processes {
    /// Starts appointments, scheduling, billing, and the sandbox, whose webhooks go to billing.
    pub(crate) async fn booking(servers: &Servers) -> anyhow::Result<Self> {
        let Payments { billing, sandbox } = Payments::start(servers).await?;
        let scheduling = Process::service("scheduling", servers).await?;
        let appointments = Process::service_at("appointments", free_address().await?, servers, |command| {
            command.env("SCHEDULING_URL", &scheduling.url).env("BILLING_URL", &billing.url);
        })?;
        Ok(Self { appointments, billing, _others: [scheduling, sandbox] })
    }
}

/// Billing and the sandbox payment provider.
pub(crate) struct Payments {
    pub(crate) billing: Process,
    pub(crate) sandbox: Process,
}

impl Payments {
    /// Starts both; the sandbox's webhooks go to billing.
    pub(crate) async fn start(servers: &Servers) -> anyhow::Result<Self> {
        let (billing, sandbox) = (free_address().await?, free_address().await?);
        let sandbox = Process::start("sandbox", sandbox, |command| {
            command
                .env("SANDBOX_LISTEN", sandbox.to_string())
                .env("SANDBOX_WEBHOOK_URL", format!("{}/webhooks/payments", url(billing)))
                .env("SANDBOX_WEBHOOK_EVENTS", billing::gateway::stripe::EVENTS.join(","))
                .env("SANDBOX_PAYMENTS_KEY", PAYMENTS_KEY)
                .env("SANDBOX_WEBHOOK_SECRET", WEBHOOK_SECRET);
        })?;
        let billing = Process::service_at("billing", billing, servers, |command| {
            command
                .env("PAYMENTS_API_BASE", &sandbox.url)
                .env("PAYMENTS_API_KEY", PAYMENTS_KEY)
                .env("PAYMENTS_WEBHOOK_SECRET", WEBHOOK_SECRET);
        })?;
        Ok(Self { billing, sandbox })
    }
}

/// The memory that a process has now, in bytes.
pub(crate) fn memory_of(id: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The processor time that this process and every one below it have used so far, by the program's name.
pub(crate) fn processor_times() -> anyhow::Result<BTreeMap<String, Duration>> {
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        // Not a process, or gone meanwhile.
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(program) = Program::read(id) else { continue };
        programs.insert(id, program);
    }
    let ours = |mut id: u32| loop {
        if id == std::process::id() {
            return true;
        }
        let Some(program) = programs.get(&id) else { return false };
        id = program.parent;
    };
    let mut times = BTreeMap::new();
    for (_, program) in programs.iter().filter(|(id, _)| ours(**id)) {
        *times.entry(program.name.clone()).or_default() += program.used;
    }
    Ok(times)
}

struct Program {
    name: String,
    parent: u32,
    used: Duration,
}

impl Program {
    fn read(id: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // proc(5): fields 4, 14 and 15, counted from 1; the second is the name in brackets, which may hold blanks.
        let (head, rest) = stat.rsplit_once(')').context("a name in brackets")?;
        let (_, name) = head.split_once('(').context("a name in brackets")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).context("fewer fields than proc(5) says");
        let ticks = field(14)?.parse::<u64>()? + field(15)?.parse::<u64>()?;
        let used = Duration::from_secs_f64(ticks as f64 / TICKS);
        Ok(Self { name: name.to_owned(), parent: field(4)?.parse()?, used })
    }
}

pub(crate) async fn free_address() -> anyhow::Result<SocketAddr> {
    let (listener, _) = testkit::listener().await;
    Ok(listener.local_addr()?)
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// How many processes wanted a core, on average over the last minute.
pub(crate) fn load_average() -> anyhow::Result<f64> {
    let averages = fs::read_to_string("/proc/loadavg")?;
    Ok(averages.split(' ').next().unwrap_or_default().parse()?)
}
