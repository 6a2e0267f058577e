//! `services/*/.sqlx`: what the SQL macros know about the schemas, so that a build needs no database.
//!
//! Renewing lets each service's macros ask a private PostgreSQL that has just been migrated. Checking asks such a server again
//! about every committed query and compares: it builds nothing, and so costs a second and leaves cargo's caches as they are. That
//! no query lacks its file is what every build checks by itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr as _;

use anyhow::Context as _;
use serde_json::Value;
use servers::{Postgres, PostgresOptions, RunFolder};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, SqlSafeStr as _,
};

use crate::sources::Literals;
use crate::tools;
use crate::workspace::{Service, Workspace, files_named, run as run_program};

/// Where a service's metadata is, below its folder.
const FOLDER: &str = ".sqlx";
/// The kit's migrations go into every schema; their record is apart from the service's own.
const KIT_MIGRATIONS: &str = "crates/kit/migrations";
const KIT_RECORD: &str = "_kit_migrations";
const BOOTSTRAP: &str = "crates/kit/src/bootstrap.sql";
/// With these, PostgreSQL's plans show by outer joins which columns may be null; with hash and merge joins the sides may be
/// exchanged and the macros infer it the wrong way round. The macros themselves set the last.
const SETTINGS: [&str; 3] =
    ["enable_hashjoin = off", "enable_mergejoin = off", "plan_cache_mode = force_generic_plan"];

/// Renew or check.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sqlx\n  cargo xtask sqlx billing\n  cargo xtask sqlx --check"
)]
pub(crate) struct Options {
    /// The services to renew or check; all when none is named.
    services: Vec<String>,
    /// Changes nothing; fails if a renewal would.
    #[arg(long)]
    check: bool,
}

/// Renews or checks.
pub(crate) async fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let mut services = workspace.services()?;
    if let Some(unknown) =
        options.services.iter().find(|name| services.iter().all(|service| service.name != **name))
    {
        anyhow::bail!("no service `{unknown}` has migrations");
    }
    if !options.services.is_empty() {
        services.retain(|service| options.services.contains(&service.name));
    }
    if options.check { check(workspace, &services).await } else { renew(workspace, &services).await }
}

/// Checks every service.
pub(crate) async fn check_all(workspace: &Workspace) -> anyhow::Result<()> {
    check(workspace, &workspace.services()?).await
}

/// Fails unless every committed query is still in its service's sources and PostgreSQL still says the same about it.
async fn check(workspace: &Workspace, services: &[Service]) -> anyhow::Result<()> {
    let database = Database::start(workspace, services).await?;
    let mut connection = PgConnection::connect(&database.postgres.admin_url()).await?;
    let mut stale = Vec::new();
    for service in services {
        let literals = Literals::of(&service.folder)?;
        let queries = files_named(&service.folder.join(FOLDER), "json")?;
        for path in &queries {
            if let Some(reason) = outdated(&mut connection, &literals, path).await? {
                stale.push(format!("  {}: {reason}", workspace.shown(path)));
            }
        }
        println!("{}: {} queries", service.name, queries.len());
    }
    connection.close().await?;
    anyhow::ensure!(stale.is_empty(), "these are out of date, run `cargo xtask sqlx`:\n{}", stale.join("\n"));
    Ok(())
}

/// Why a query's file is out of date, if it is.
async fn outdated(
    connection: &mut PgConnection,
    literals: &Literals,
    path: &Path,
) -> anyhow::Result<Option<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let query = file["query"].as_str().with_context(|| format!("{} names no query", path.display()))?;
    if !literals.make_up(query) {
        return Ok(Some("no source has this query any more".to_owned()));
    }
    match connection.describe(AssertSqlSafe(query.to_owned()).into_sql_str()).await {
        Ok(described) if serde_json::to_value(&described)? == file["describe"] => Ok(None),
        Ok(_) => Ok(Some("PostgreSQL gives other columns or parameters".to_owned())),
        Err(sqlx::Error::Database(error)) => Ok(Some(error.message().to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Has each service's macros write their metadata anew.
async fn renew(workspace: &Workspace, services: &[Service]) -> anyhow::Result<()> {
    let database = Database::start(workspace, services).await?;
    for service in services {
        // A folder and a server that no build has seen: by these variables the services' build scripts know that the macros
        // have to run again.
        let fresh = database.run.path().join(&service.name);
        fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
        let mut cargo = workspace.command("cargo");
        cargo
            .args(["check", "--all-targets", "--package", &service.name])
            .envs([("SQLX_OFFLINE", "false"), ("DATABASE_URL", &database.postgres.admin_url())])
            .env("SQLX_OFFLINE_DIR", &fresh);
        run_program(&mut cargo)?;
        replace(service, &fresh)?;
    }
    Ok(())
}

/// Makes the committed metadata what `fresh` holds; files that are right already are left alone.
fn replace(service: &Service, fresh: &Path) -> anyhow::Result<()> {
    let folder = service.folder.join(FOLDER);
    let (old, new) = (read(&folder)?, read(fresh)?);
    anyhow::ensure!(
        old.is_empty() || !new.is_empty(),
        "cargo did not run the SQL macros of {} again: its build.rs must name SQLX_OFFLINE_DIR in rerun-if-env-changed",
        service.name
    );
    let writing = || format!("cannot write {}", folder.display());
    fs::create_dir_all(&folder).with_context(writing)?;
    let (mut written, mut removed) = (0, 0);
    for (name, text) in new.iter().filter(|(name, text)| old.get(*name) != Some(text)) {
        fs::write(folder.join(name), text).with_context(writing)?;
        written += 1;
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        fs::remove_file(folder.join(name)).with_context(writing)?;
        removed += 1;
    }
    println!("{}: {} queries, {written} written, {removed} removed", service.name, new.len());
    Ok(())
}

/// Metadata by file name.
fn read(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for path in files_named(folder, "json")? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        texts.extend(path.file_name().map(|name| (name.to_string_lossy().into_owned(), text)));
    }
    Ok(texts)
}

/// A private PostgreSQL in which every service's schema is as its migrations make it.
struct Database {
    postgres: Postgres,
    // Last: removed after the server has ended.
    run: RunFolder,
}

impl Database {
    async fn start(workspace: &Workspace, services: &[Service]) -> anyhow::Result<Self> {
        let binaries = tools::servers().await?;
        let run = RunFolder::create(None)?;
        let options = PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable: false };
        let postgres = Postgres::start(&binaries, options).await?;
        let database = Self { postgres, run };
        database.prepare(workspace, services).await?;
        Ok(database)
    }

    /// Migrations are read here, not compiled in: a service does not compile while its metadata is out of date.
    async fn prepare(&self, workspace: &Workspace, services: &[Service]) -> anyhow::Result<()> {
        let mut admin = PgConnection::connect(&self.postgres.admin_url()).await?;
        let bootstrap = workspace.path(BOOTSTRAP);
        let mut sql =
            fs::read_to_string(&bootstrap).with_context(|| format!("cannot read {}", bootstrap.display()))?;
        for setting in SETTINGS {
            sql += &format!("alter database postgres set {setting};\n");
        }
        for Service { name, .. } in services {
            sql += &format!("create role {name}; create schema {name} authorization {name};\n");
        }
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.context(BOOTSTRAP)?;
        admin.close().await?;

        for service in services {
            // The error's own text ends with its cause's.
            let failed = |error| anyhow::anyhow!("the migrations of {}: {error}", service.name);
            self.migrate(workspace, service).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn migrate(&self, workspace: &Workspace, service: &Service) -> sqlx::Result<()> {
        let path = format!("{},extensions", service.name);
        let options = PgConnectOptions::from_str(&self.postgres.admin_url())?;
        let mut connection = options.options([("search_path", path)]).connect().await?;
        let mut kit = Migrator::new(workspace.path(KIT_MIGRATIONS)).await?;
        kit.dangerous_set_table_name(KIT_RECORD);
        kit.run(&mut connection).await?;
        Migrator::new(service.folder.join("migrations")).await?.run(&mut connection).await?;
        connection.close().await
    }
}
