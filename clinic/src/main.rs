//! The `clinic` command line.

use clap::{Parser, Subcommand};
use clinic::{bootstrap, check, dlq, import, keys, probe, roster, token, up};

/// Clinic scheduling: availability, bookings, co-pays and reminders.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  clinic                                  start everything, with the demo network\n  \
                  clinic up --data-dir /tmp/two --port 0  a second copy on free ports\n  \
                  clinic token --role front_desk          print a token for grpcurl"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::Up,
    #[command(flatten)]
    telemetry: kit::config::Telemetry,
}

#[derive(Subcommand)]
enum Command {
    /// Start the whole suite on this machine (the default).
    Up(up::Up),
    /// Print a token of the local development issuer, and nothing else.
    Token(token::Token),
    /// Patients of a CSV file; busy time and holidays of another calendar.
    Import(import::Import),
    /// Copy all patients out, as the CSV file that import reads.
    Export(roster::export::Export),
    /// Events that a consumer gave up on: list them, send them back.
    Dlq(dlq::Dlq),
    /// The keys that patient data is sealed with.
    Keys(keys::CommandLine),
    /// Whether records are as they were written.
    Check(check::Check),
    /// Prepare a database: extensions, clock, one schema and role per service; and the suite's keys.
    Bootstrap(bootstrap::Bootstrap),
    /// Exit 0 if an address answers its readiness check, 1 if not: a container's health check.
    Probe(probe::Probe),
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Up(cli.up)) {
        Command::Up(up) => up::run(up, &cli.telemetry).await,
        Command::Token(token) => token::run(&token),
        Command::Import(import) => import::run(import).await,
        Command::Export(export) => roster::export::run(export).await,
        Command::Dlq(dlq) => dlq::run(dlq).await,
        Command::Keys(line) => keys::run(&line),
        Command::Check(check) => check::run(check).await,
        Command::Bootstrap(bootstrap) => bootstrap::run(bootstrap).await,
        Command::Probe(probe) => probe::run(&probe).await,
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clinic: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
