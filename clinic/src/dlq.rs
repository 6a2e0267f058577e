//! `clinic dlq`: events that a consumer failed on again and again.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use kit::messaging::{self, dead_letters};

/// Where to look, and what to do.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  clinic dlq list\n  clinic dlq redrive 17     send one back\n  \
                        clinic dlq redrive --all  send all back, after the cause is mended")]
pub struct Dlq {
    /// NATS with the suite's streams; `clinic up` prints its own.
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true,
        global = true
    )]
    nats_url: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what waits: number, consumer, event, last error.
    List,
    /// Send events back on their own subjects; those who had applied them know their ids.
    Redrive {
        /// The event's number in the list.
        #[arg(required_unless_present = "all")]
        number: Option<u64>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

/// Lists or redrives.
pub async fn run(dlq: Dlq) -> anyhow::Result<()> {
    let client = async_nats::connect(&dlq.nats_url)
        .await
        .with_context(|| format!("NATS does not answer at {}; name it with --nats-url", dlq.nats_url))?;
    let js = messaging::jetstream(client);
    let letters = dead_letters::list(&js).await?;
    match dlq.command {
        Command::List if letters.is_empty() => println!("no event waits"),
        Command::List => {
            for l in &letters {
                println!(
                    "{:>6}  {:<14} {}  {}\n        {}",
                    l.sequence, l.consumer, l.subject, l.event_id, l.error
                );
            }
        }
        Command::Redrive { number, all } => {
            let chosen: Vec<_> = letters.iter().filter(|l| all || number == Some(l.sequence)).collect();
            anyhow::ensure!(
                all || !chosen.is_empty(),
                "no event with that number waits; see `clinic dlq list`"
            );
            for letter in &chosen {
                dead_letters::redrive(&js, letter).await?;
            }
            println!("sent back {} event(s)", chosen.len());
        }
    }
    Ok(())
}
