//! `clinic bootstrap`: what an administrator does once before the services of a deployment start.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use sqlx::{Connection as _, PgConnection};

use crate::data_dir;

/// The database to prepare, and where the keys go.
#[derive(Args, Debug)]
#[command(
    after_help = "Each role's password is taken from <SERVICE>_DB_PASSWORD, such as BILLING_DB_PASSWORD.\n\nExample:\n  \
                        DATABASE_ADMIN_URL=postgres://postgres:secret@db/clinic SCHEDULING_DB_PASSWORD=… \\\n  \
                        clinic bootstrap --identity-dir /run/identity"
)]
pub struct Bootstrap {
    /// The database, as a user who may create roles, schemas and extensions.
    #[arg(long, env = "DATABASE_ADMIN_URL", hide_env_values = true)]
    database_admin_url: String,
    /// Folder for jwks.json and service.pem; what is there stays.
    #[arg(long, env = "CLINIC_IDENTITY_DIR")]
    identity_dir: Option<PathBuf>,
}

/// Prepares the database and the keys; runs again without harm.
pub async fn run(bootstrap: Bootstrap) -> anyhow::Result<()> {
    let variable = |name: &str| format!("{}_DB_PASSWORD", name.to_ascii_uppercase());
    let missing: Vec<_> =
        kit::bootstrap::SCHEMAS.iter().map(|n| variable(n)).filter(|v| std::env::var(v).is_err()).collect();
    anyhow::ensure!(missing.is_empty(), "set the passwords of the services' roles: {}", missing.join(", "));
    let mut admin = PgConnection::connect(&bootstrap.database_admin_url)
        .await
        .context("the database does not answer at DATABASE_ADMIN_URL")?;
    kit::bootstrap::run(&mut admin, |name| std::env::var(variable(name)).unwrap_or_default()).await?;
    if let Some(folder) = &bootstrap.identity_dir {
        data_dir::identity(folder)?;
    }
    println!("the database and keys are ready");
    Ok(())
}
