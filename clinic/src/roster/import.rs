//! `clinic import patients`: every row of a file that is not registered yet, a few at a time.
//!
//! Nothing is kept about how far an import came: rows that are registered are recognised, so the same command goes on where the last
//! one ended, however it ended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::clinic::patients::v1::Patient;
use ring::digest;
use uuid::Uuid;

use super::Column;
use super::bring::{Became, Desk, Refused, Rules};
use super::read::Roster;
use crate::caller;

/// Rows under way at once.
const AT_ONCE: usize = 16;
/// Bytes read at a time to tell one file from another.
const CHUNK: usize = 64 * 1024;
/// Last digits of a phone number by which two rows may share it, whatever their notation.
const PHONE_DIGITS: usize = 7;

/// Which file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        export TOKEN=$(clinic token --role front_desk)\n  \
        clinic import patients people.csv --dry-run             show what is wrong and what would be done\n  \
        clinic import patients people.csv                       register everybody who is not\n  \
        clinic import patients people.csv 2> mend.txt           with the rows to mend in a file\n  \
        clinic import patients people.csv --update              take over what the file has anew\n\n\
        The file is in UTF-8, with commas. Its first row names the columns, in any order:\n  \
        mrn,given_name,family_name,birth_date,phone,email,language,time_zone\n\
        given_name, family_name and birth_date must be there; birth_date is written 1990-12-31. An empty cell says nothing: \
        it neither changes nor contradicts what is registered. A row without an mrn gets one.\n\n\
        Who is registered is recognised by mrn, without one by all that the row says. Import the same file again to go on after a break, \
        or after mending rows: nobody is registered twice. A row whose name and birth date are those of another patient is not \
        registered; one that merely shares a phone number or an address is, and is named. A dry run does not compare the rows \
        of the file with each other.\n\n\
        An apostrophe before = + - @ is taken off, as clinic export puts it there against spreadsheets that calculate.")]
pub(crate) struct Patients {
    /// The file.
    file: PathBuf,
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Patients whose mrn is registered with other data get the file's; otherwise such a row is an error.
    #[arg(long)]
    update: bool,
    /// Also register who has name and birth date of another patient.
    #[arg(long)]
    allow_duplicates: bool,
    #[command(flatten)]
    suite: caller::Options,
}

/// Imports, or tells what would be imported. Fails if a row did not come in.
pub(crate) async fn run(patients: Patients) -> anyhow::Result<()> {
    let Patients { file, dry_run, update, allow_duplicates, suite } = patients;
    let caller = suite.caller("front_desk")?;
    let named = || file.display().to_string();
    let (open, bytes, id) = identified(&file).with_context(named)?;
    let roster = Roster::open(open).with_context(named)?;
    let desk = Desk { caller, rules: Rules { dry_run, update, allow_duplicates } };
    let progress = progress(bytes);
    let mut import = Import { desk: &desk, file: id, progress, done: Done::default() };
    let ended = import.all(roster).await;
    import.progress.finish_and_clear();
    let done = import.done;
    println!("{}", done.in_words(dry_run));
    ended.with_context(|| format!("{}: the same command goes on with the rest", file.display()))?;
    anyhow::ensure!(
        done.failed == 0,
        "{} rows are not in; mend those named above and import the file again",
        done.failed
    );
    Ok(())
}

/// How far the file is read: where the complaints go, or on the other stream when those go to a file.
fn progress(bytes: u64) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::stdout() };
    let progress = ProgressBar::with_draw_target(Some(bytes), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent}% {msg}, {eta} left") {
        progress.set_style(style);
    }
    progress.set_message("0 rows");
    progress
}

/// A file, its length, and an id that another file does not have. The id tells nothing of what is in it to who does not have the file.
fn identified(file: &Path) -> anyhow::Result<(File, u64, Uuid)> {
    let mut open = File::open(file).context("it cannot be read")?;
    let mut sha = digest::Context::new(&digest::SHA256);
    let (mut bytes, mut chunk) = (0, vec![0; CHUNK]);
    loop {
        let read = open.read(&mut chunk).context("it cannot be read")?;
        if read == 0 {
            break;
        }
        sha.update(&chunk[..read]);
        bytes += read as u64;
    }
    open.rewind().context("it cannot be read twice: save it as a file")?;
    Ok((open, bytes, Uuid::new_v5(&Uuid::nil(), sha.finish().as_ref())))
}

/// An import under way.
struct Import<'a> {
    desk: &'a Desk,
    file: Uuid,
    progress: ProgressBar,
    done: Done,
}

/// What became of the rows so far.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    registered: u64,
    updated: u64,
    there: u64,
    failed: u64,
}

impl Done {
    fn in_words(self, dry_run: bool) -> String {
        let Self { registered, updated, there, failed } = self;
        if dry_run {
            format!(
                "would register {registered}, would update {updated}, already there {there}, failed {failed}; nothing was changed"
            )
        } else {
            format!("registered {registered}, updated {updated}, already there {there}, failed {failed}")
        }
    }

    fn rows(self) -> u64 {
        self.registered + self.updated + self.there + self.failed
    }
}

impl Import<'_> {
    /// Brings every row in. Ends early where the next rows would fail as well.
    async fn all<R: Read>(&mut self, mut roster: Roster<R>) -> anyhow::Result<()> {
        let (desk, file) = (self.desk, self.file);
        let mut running = FuturesUnordered::new();
        let mut in_work: HashMap<u64, Vec<String>> = HashMap::with_capacity(AT_ONCE);
        let unread = loop {
            let row = match roster.next() {
                Ok(Some(row)) => row,
                Ok(None) => break Ok(()),
                Err(unread) => break Err(unread),
            };
            let patient = match row.patient {
                Ok(patient) => patient,
                Err(problem) => {
                    self.failed(row.number, &problem);
                    continue;
                }
            };
            // Two rows of one person at once would not see each other.
            let traits = traits(&patient);
            let alike =
                |work: &HashMap<u64, Vec<String>>| work.values().flatten().any(|one| traits.contains(one));
            while in_work.len() == AT_ONCE || alike(&in_work) {
                if let Some((number, became)) = running.next().await {
                    in_work.remove(&number);
                    self.became(number, became)?;
                }
            }
            self.progress.set_position(roster.position());
            in_work.insert(row.number, traits);
            running.push(async move {
                let request_id = Uuid::new_v5(&file, &row.number.to_be_bytes());
                (row.number, desk.bring(request_id, &patient).await)
            });
        };
        while let Some((number, became)) = running.next().await {
            self.became(number, became)?;
        }
        unread
    }

    fn became(
        &mut self,
        number: u64,
        became: Result<(Became, Option<String>), Refused>,
    ) -> anyhow::Result<()> {
        match became {
            Ok((became, remark)) => {
                let (count, word) = match became {
                    Became::Registered if self.desk.rules.dry_run => {
                        (&mut self.done.registered, "would be registered")
                    }
                    Became::Registered => (&mut self.done.registered, "is registered"),
                    Became::Updated => (&mut self.done.updated, "is updated"),
                    Became::There => (&mut self.done.there, "is there"),
                };
                *count += 1;
                if let Some(remark) = remark {
                    self.say(&format!("row {number} {word}: {remark}"));
                }
            }
            Err(Refused::Row(problem)) => self.failed(number, &problem),
            Err(Refused::All(status)) => {
                return Err(self.desk.caller.explained(&status).context(format!("row {number}")));
            }
        }
        let rows = self.done.rows();
        let each_second = rows as f64 / self.progress.elapsed().as_secs_f64();
        self.progress.set_message(format!("{rows} rows, {each_second:.0}/s"));
        Ok(())
    }

    fn failed(&mut self, number: u64, problem: &str) {
        self.done.failed += 1;
        self.say(&format!("row {number} is not in: {problem}"));
    }

    fn say(&self, words: &str) {
        self.progress.suspend(|| eprintln!("{words}"));
    }
}

/// What two rows of one person would share.
fn traits(patient: &Patient) -> Vec<String> {
    let digits: String = patient.phone.chars().filter(char::is_ascii_digit).collect();
    let phone = digits[digits.len().saturating_sub(PHONE_DIGITS)..].to_owned();
    let named = [
        (Column::Mrn, patient.mrn.clone()),
        (Column::BirthDate, Column::BirthDate.of(patient).into_owned()),
        (Column::Phone, phone),
        (Column::Email, patient.email.to_lowercase()),
    ];
    let said = named.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(column, value)| format!("{}:{value}", column.name())).collect()
}
