//! `clinic import patients`: a file of invented people brought in through the gateway, and once more when all are there.

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{Days, NaiveDate};
use proto::clinic::auth::v1::Role;
use serde_json::{Value, json};
use testkit::Servers;

use crate::processes::{Process, memory_of};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Birth dates are spread over so many days.
const BIRTH_DAYS: usize = 30_000;

/// Imports `rows` people whom `name` names by number, twice.
pub(crate) async fn measure(
    servers: &Servers,
    patients: &Process,
    rows: usize,
    name: impl Fn(usize) -> (String, String),
) -> anyhow::Result<Value> {
    let gateway = Process::gateway("PATIENTS_URL", patients).await?;
    let file = servers.folder().join("people.csv");
    write(&file, rows, name)?;
    let (mut figures, token) = (vec![], servers.token(Role::FrontDesk, "bench"));
    for what in ["nobody is registered yet", "everybody is"] {
        eprintln!("an import of {rows} rows; {what}");
        let mut command = Command::new(env::current_exe()?.with_file_name("clinic"));
        // Invented names are alike more often than real ones.
        command.args(["import", "patients", "--allow-duplicates"]).arg(&file);
        command.env("TOKEN", &token).env("GATEWAY_URL", &gateway.url);
        let begun = Instant::now();
        let (status, memory) = watched(&mut command).await?;
        let seconds = begun.elapsed().as_secs_f64();
        anyhow::ensure!(status.success(), "the import ended with {status}");
        let at = |tenths: usize| memory.get((memory.len() * tenths / 10).min(memory.len().saturating_sub(1)));
        figures.push(json!({
            "what": what, "seconds": seconds, "per_second": rows as f64 / seconds,
            "memory": { "tenth": at(1), "half": at(5), "end": at(10), "peak": memory.iter().max() },
        }));
    }
    Ok(json!({ "rows": rows, "runs": figures }))
}

/// Runs a program to its end; how it ended, and the memory it had meanwhile.
async fn watched(command: &mut Command) -> anyhow::Result<(ExitStatus, Vec<u64>)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("clinic does not start: build it")?;
    let mut memory = vec![];
    loop {
        tokio::time::sleep(LOOK).await;
        // Gone between two looks: then it has no memory to look at.
        memory.extend(memory_of(child.id()).ok());
        if let Some(status) = child.try_wait()? {
            return Ok((status, memory));
        }
    }
}

/// A file as `clinic import patients` reads it.
fn write(file: &Path, rows: usize, name: impl Fn(usize) -> (String, String)) -> anyhow::Result<()> {
    let mut csv = BufWriter::new(File::create(file)?);
    writeln!(csv, "mrn,given_name,family_name,birth_date,phone,email,language,time_zone")?;
    let first = NaiveDate::from_ymd_opt(1930, 1, 1).context("a date")?;
    for n in 0..rows {
        let (given, family) = name(n);
        let born = first + Days::new((n * 7_919 % BIRTH_DAYS) as u64);
        writeln!(
            csv,
            "I{n:08},{given},{family},{born},+1303{:07},{given}.{n}@example.org,en,America/Denver",
            2_000_000 + n
        )?;
    }
    csv.into_inner()?.sync_all()?;
    Ok(())
}
