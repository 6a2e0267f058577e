//! `clinic import`: patients of a CSV file, which [`crate::roster`] does; and busy time and holidays of another calendar, as exceptions
//! and blackouts:
//!
//! | module | what |
//! |---|---|
//! | `file` | an iCalendar file as lines and components |
//! | `zone`, `recurrence` | its time zones and rules |
//! | `event` | when an event takes place |
//! | `plan` | what a file comes to; pure |
//! | `send` | adding it, over the suite's own RPCs |
//!
//! A calendar is read whole before anything is added. Ids are derived from the events, so that a second import adds nothing twice
//! and one that broke off goes on.

mod event;
mod file;
mod plan;
#[cfg(test)]
mod plan_tests;
mod recurrence;
mod send;
mod zone;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{Datelike as _, NaiveDate, SecondsFormat};
use chrono_tz::Tz;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use kit::clock::Clock;
use proto::clinic::scheduling::v1::ExceptionCause;
use scheduling::domain::shift;
use uuid::Uuid;

use crate::{caller, roster};
use event::When;
use plan::{Options, Plan, Skipped, Target};

/// Days ahead that are imported when no last day is named.
const DAYS_AHEAD: i64 = 400;

/// What to import.
#[derive(Args, Debug)]
pub struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Patients of a CSV file, as other programs export them.
    Patients(Box<roster::import::Patients>),
    /// Busy time and holidays of an iCalendar file, as Google, Outlook, Apple and others export it: as time off, or as days on which
    /// clinics are closed.
    Ics(Box<Ics>),
}

/// Which file, for whom.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("target").args(["provider", "clinic", "network"]).required(true).multiple(true),
    after_help = "Examples:\n  \
        export TOKEN=$(clinic token --role manager)\n  \
        clinic import ics holidays.ics --network --include-free    holidays close every clinic\n  \
        clinic import ics works.ics --clinic ID --dry-run          show what would be closed\n  \
        clinic import ics busy.ics --provider ID --cause training  busy time becomes time off\n\n\
        Importing a file again adds only what is new. An event that moved is added at its new time; the entry at its old time \
        stays until it is removed (RemoveException, RemoveBlackout)."
)]
struct Ics {
    /// The file; - reads standard input.
    file: PathBuf,
    /// Busy time becomes time off of this provider, at every clinic or only at --clinic.
    #[arg(long, value_name = "ID")]
    provider: Option<Uuid>,
    /// Without --provider: each event closes this clinic.
    #[arg(long, value_name = "ID")]
    clinic: Option<Uuid>,
    /// Each event closes every clinic.
    #[arg(long, conflicts_with_all = ["provider", "clinic"])]
    network: bool,
    /// First day to import [default: today].
    #[arg(long, value_name = "DATE", value_parser = day)]
    from: Option<NaiveDate>,
    /// Last day to import [default: 400 days after the first].
    #[arg(long, value_name = "DATE", value_parser = day)]
    until: Option<NaiveDate>,
    /// Time zone of whole days and of times that name none [default: that of --clinic].
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    time_zone: Option<Tz>,
    /// Also events shown as free. Calendars of public holidays show all of theirs so.
    #[arg(long)]
    include_free: bool,
    /// Why the provider is off, as staff see it.
    #[arg(long, value_enum, requires = "provider", default_value = "other")]
    cause: Cause,
    /// Only show what would be added.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    suite: caller::Options,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cause {
    Vacation,
    Sick,
    Training,
    Other,
}

impl From<Cause> for ExceptionCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Vacation => Self::Vacation,
            Cause::Sick => Self::Sick,
            Cause::Training => Self::Training,
            Cause::Other => Self::Other,
        }
    }
}

fn day(text: &str) -> Result<NaiveDate, String> {
    let day: Option<NaiveDate> = text.parse().ok();
    day.filter(|day| recurrence::YEARS.contains(&day.year()))
        .ok_or_else(|| "write a day of this age as 2026-11-26".to_owned())
}

fn time_zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| "write an IANA name such as America/New_York".to_owned())
}

/// Imports, or shows what would be imported.
pub async fn run(import: Import) -> anyhow::Result<()> {
    match import.what {
        What::Patients(patients) => roster::import::run(*patients).await,
        What::Ics(ics) => run_ics(*ics).await,
    }
}

async fn run_ics(ics: Ics) -> anyhow::Result<()> {
    let bytes = read(&ics.file)?;
    let service = if ics.dry_run && !ics.suite.has_token() {
        None
    } else {
        Some(send::Service(ics.suite.caller("manager")?))
    };
    let clinic_zone = match (&service, ics.clinic) {
        (Some(service), Some(clinic)) => Some(service.time_zone(clinic).await?),
        _ => None,
    };
    let options = ics.options(clinic_zone)?;
    let plan = plan::plan(&bytes, &options).with_context(|| ics.file.display().to_string())?;
    match service {
        Some(service) if !ics.dry_run => {
            let done = service.add(&plan.planned, options.target, ics.cause.into()).await?;
            println!("added {}, already there {}{}", done.added, done.there, remarks(&plan));
        }
        _ => {
            show(&plan, &options);
            println!("would add {}{}; nothing was changed", plan.planned.len(), remarks(&plan));
        }
    }
    if plan.skipped.free > 0 && !matches!(options.target, Target::Provider(..)) {
        eprintln!("calendars of public holidays show their days as free: --include-free imports those too");
    }
    Ok(())
}

impl Ics {
    fn options(&self, clinic_zone: Option<Tz>) -> anyhow::Result<Options> {
        let zone = self.time_zone.or(clinic_zone);
        let today = || Clock::System.now().with_timezone(&zone.unwrap_or(Tz::UTC)).date_naive();
        let from = self.from.unwrap_or_else(today);
        let until = self.until.unwrap_or_else(|| shift(from, DAYS_AHEAD));
        anyhow::ensure!(from <= until, "--until {until} is before --from {from}");
        let target = match (self.provider, self.clinic) {
            (Some(provider), clinic) => Target::Provider(provider, clinic),
            (None, Some(clinic)) => Target::Clinic(clinic),
            (None, None) => Target::Network,
        };
        Ok(Options { target, zone, from, until, include_free: self.include_free })
    }
}

/// The whole file, or a little more than may be read of it.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let most = file::MAX_BYTES as u64 + 1;
    let mut bytes = vec![];
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(bytes)
}

/// One line for each entry.
fn show(plan: &Plan, options: &Options) {
    let times: Vec<_> = plan.planned.iter().map(|one| in_words(one.when, options.clock())).collect();
    let width = times.iter().map(String::len).max().unwrap_or_default();
    for (time, planned) in times.iter().zip(&plan.planned) {
        println!("{time:<width$}  {}", planned.name);
    }
}

/// A time as people read it, on the clock of `zone`.
fn in_words(when: When, zone: Tz) -> String {
    match when {
        When::Days(first, last) if first == last => first.to_string(),
        When::Days(first, last) => format!("{first} to {last}"),
        When::Exact(start, end) => {
            let [start, end] =
                [start, end].map(|t| t.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, true));
            format!("{start} to {end}")
        }
    }
}

/// What else there is to say of a file, as the rest of a sentence.
fn remarks(plan: &Plan) -> String {
    let Skipped { free, cancelled, outside, empty } = plan.skipped;
    let reasons =
        [(free, "free"), (cancelled, "cancelled"), (outside, "outside the dates"), (empty, "without length")];
    let named: Vec<_> =
        reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
    let mut text = format!(", skipped {}", free + cancelled + outside + empty);
    if !named.is_empty() {
        text += &format!(" ({})", named.join(", "));
    }
    if plan.rounded > 0 {
        text += &format!("; {} widened to whole 5 minutes", plan.rounded);
    }
    text
}
