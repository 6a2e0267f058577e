//! `clinic check`: whether records are as they were written.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use patients::store::access_log;
use sqlx::{Connection as _, PgConnection};

/// Where to look, and what at.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  DATABASE_URL=postgres://patients:secret@db/clinic clinic check access-log"
)]
pub struct Check {
    /// The database, as a user who may read the schema `patients`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow every chain of the access log; fail at the first row that was edited, deleted or moved, and name it.
    AccessLog,
}

/// Checks.
pub async fn run(check: Check) -> anyhow::Result<()> {
    let url = check.database_url.context("name the database with --database-url or DATABASE_URL")?;
    let mut database = PgConnection::connect(&url).await.context("the database does not answer")?;
    match check.command {
        Command::AccessLog => {
            let mut tx = database.begin().await?;
            let verified = access_log::verify(&mut tx).await?;
            if let Some(broken) = verified.broken {
                anyhow::bail!(
                    "the access log was changed: {broken} (the {} rows checked before are as they were written)",
                    verified.rows
                );
            }
            println!("all {} rows of the access log are as they were written", verified.rows);
        }
    }
    Ok(())
}
