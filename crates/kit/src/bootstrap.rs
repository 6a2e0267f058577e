//! What an administrator does once per database: extensions, the shared clock, one schema and one role per service.
//!
//! A service's role owns its own schema and can neither read nor write another's.

use anyhow::Context as _;
use chrono::TimeDelta;
use sqlx::postgres::types::PgInterval;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The services that own a schema; each has a role of the same name.
pub const SCHEMAS: [&str; 5] = ["scheduling", "appointments", "patients", "billing", "notify"];

/// Holds back a second bootstrap of the same database that starts at the same moment.
const LOCK: i64 = 0x636c_696e_6963;

/// Prepares the database behind `admin`. `password` gives each role's; it is set anew on every run, so that rotating one is
/// changing it and running this again.
pub async fn run(admin: &mut PgConnection, password: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let mut tx = admin.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql(include_str!("bootstrap.sql")).execute(&mut *tx).await.context(
        "the database must allow the extensions btree_gist and pg_trgm, and its user must be allowed to create them",
    )?;
    for name in SCHEMAS {
        let secret = password(name);
        anyhow::ensure!(
            !secret.is_empty() && secret.chars().all(|c| c.is_ascii_graphic() && c != '\'' && c != '\\'),
            "the password of role {name} must be printable ASCII without quotes and backslashes"
        );
        // Identifiers are our own constants and the password was just checked: DDL takes no bind parameters.
        let sql = format!(
            "do $$ begin
                 if not exists (select from pg_roles where rolname = '{name}') then create role {name} login; end if;
             end $$;
             alter role {name} login password '{secret}';
             grant {name} to current_user;
             create schema if not exists {name} authorization {name};
             grant usage on schema extensions, clock to {name};
             grant execute on function clock.now() to {name};"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.with_context(|| format!("role {name}"))?;
    }
    tx.commit().await?;
    Ok(())
}

/// Moves the database's clock to `ahead` of the machine's. Only a simulated suite does this.
pub async fn set_clock(admin: &mut PgConnection, ahead: TimeDelta) -> sqlx::Result<()> {
    let ahead = PgInterval { months: 0, days: 0, microseconds: ahead.num_microseconds().unwrap_or(i64::MAX) };
    sqlx::query("select clock.set($1)").bind(ahead).execute(admin).await.map(drop)
}

/// How far the database's clock was left ahead by an earlier simulated run.
pub async fn clock_offset(admin: &mut PgConnection) -> sqlx::Result<TimeDelta> {
    let seconds: f64 = sqlx::query_scalar("select extract(epoch from ahead)::float8 from clock.skew")
        .fetch_one(admin)
        .await?;
    Ok(TimeDelta::microseconds((seconds * 1e6) as i64))
}
