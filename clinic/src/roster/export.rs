//! `clinic export`: everybody, as the file that `clinic import patients` reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::clinic::patients::v1::ExportPatientsRequest;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;

use super::{Column, escaped};
use crate::caller::{self, Caller, with_retries};

/// Patients asked for at a time.
const PAGE: i32 = 500;

/// Where to, and what for.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        export TOKEN=$(clinic token --role admin)\n  \
        clinic export people.csv --reason 'yearly copy for the auditor'\n  \
        clinic export - --reason 'move to the new clinic' | age -r KEY > people.csv.age   without a readable file\n\n\
        The columns are those that clinic import patients reads; consent to texts, forms and visits are not in it. An apostrophe \
        stands before each value that a spreadsheet would calculate, phone numbers among them; import takes it off again. \
        One line per patient enters the access log, with the reason.")]
pub struct Export {
    /// The file to make, readable by you alone; - writes to standard output.
    file: PathBuf,
    /// What the copy is for, 10 to 500 characters.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    suite: caller::Options,
}

/// Exports. A file is there whole or not at all.
pub async fn run(export: Export) -> anyhow::Result<()> {
    let Export { file, reason, suite } = export;
    let caller = suite.caller("admin")?;
    if file == Path::new("-") {
        let count = copy(&caller, &reason, io::stdout().lock()).await?;
        eprintln!("exported {count}");
        return Ok(());
    }
    anyhow::ensure!(!file.exists(), "{} is there already; name another file", file.display());
    let mut part = file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let named = || format!("{} cannot be written", part.display());
    let open = private(&part).with_context(named)?;
    let copied = async {
        let count = copy(&caller, &reason, io::BufWriter::new(&open)).await?;
        open.sync_all().with_context(named)?;
        fs::rename(&part, &file).with_context(|| format!("{} cannot be written", file.display()))?;
        anyhow::Ok(count)
    };
    match copied.await {
        Ok(count) => println!("exported {count} to {}", file.display()),
        Err(error) => {
            // Half a copy is nobody's; that it could not be removed would say less than why it is half.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    }
    Ok(())
}

/// A fresh file for its owner alone, in place of one that an earlier export left.
fn private(file: &Path) -> io::Result<File> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

/// Writes everybody, and answers how many they are.
async fn copy(caller: &Caller, reason: &str, output: impl Write) -> anyhow::Result<u64> {
    let mut csv = csv::Writer::from_writer(output);
    csv.write_record(Column::ALL.map(Column::name))?;
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} patients") {
        progress.set_style(style);
    }
    let mut request = ExportPatientsRequest {
        page_size: PAGE,
        page_token: String::new(),
        break_glass_reason: reason.to_owned(),
    };
    loop {
        let page = with_retries(|| {
            let mut patients = PatientServiceClient::new(caller.channel());
            let request = request.clone();
            async move { patients.export_patients(request).await }
        });
        let page = page.await.map_err(|status| caller.explained(&status))?.into_inner();
        for patient in &page.patients {
            let row = Column::ALL.map(|column| escaped(column.of(patient)).into_owned());
            csv.write_record(&row)?;
        }
        progress.inc(page.patients.len() as u64);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    csv.flush()?;
    progress.finish_and_clear();
    Ok(progress.position())
}
