//! Patients as rows of a CSV file: what `clinic export` writes and `clinic import patients` reads.
//!
//! | module | what |
//! |---|---|
//! | `read` | a file as patients, row by row, within bounds |
//! | `import`, `bring` | all rows, one row: what is registered already, and what becomes of the rest |
//! | `export` | everybody, page by page |
//!
//! No complaint shows a cell's content, only row and column: complaints end in logs and tickets.

mod bring;
pub mod export;
pub mod import;
mod read;
#[cfg(test)]
mod read_tests;

use std::borrow::Cow;

use chrono::{Datelike as _, NaiveDate};
use kit::fields::date;
use proto::clinic::patients::v1::Patient;

/// A column of the file; each is a field of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Mrn,
    GivenName,
    FamilyName,
    BirthDate,
    Phone,
    Email,
    Language,
    TimeZone,
}

impl Column {
    /// In the order they are written in.
    const ALL: [Self; 8] = [
        Self::Mrn,
        Self::GivenName,
        Self::FamilyName,
        Self::BirthDate,
        Self::Phone,
        Self::Email,
        Self::Language,
        Self::TimeZone,
    ];
    /// Those that a file cannot be without.
    const REQUIRED: [Self; 3] = [Self::GivenName, Self::FamilyName, Self::BirthDate];

    /// As it stands in the first row.
    fn name(self) -> &'static str {
        match self {
            Self::Mrn => "mrn",
            Self::GivenName => "given_name",
            Self::FamilyName => "family_name",
            Self::BirthDate => "birth_date",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Language => "language",
            Self::TimeZone => "time_zone",
        }
    }

    /// All names, as a first row has them.
    fn names() -> String {
        Self::ALL.map(Self::name).join(",")
    }

    /// What a patient has in this column.
    fn of(self, patient: &Patient) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Mrn => &patient.mrn,
            Self::GivenName => &patient.given_name,
            Self::FamilyName => &patient.family_name,
            Self::BirthDate => {
                let Some(d) = patient.birth_date else { return Cow::Borrowed("") };
                return format!("{:04}-{:02}-{:02}", d.year, d.month, d.day).into();
            }
            Self::Phone => &patient.phone,
            Self::Email => &patient.email,
            Self::Language => &patient.language,
            Self::TimeZone => &patient.time_zone,
        })
    }

    /// Gives a patient what stands in this column; the service judges it. Fails with what is wrong with a date.
    fn set(self, patient: &mut Patient, text: &str) -> Result<(), &'static str> {
        let place = match self {
            Self::Mrn => &mut patient.mrn,
            Self::GivenName => &mut patient.given_name,
            Self::FamilyName => &mut patient.family_name,
            Self::BirthDate => {
                if !text.is_empty() {
                    patient.birth_date = Some(date(day(text).ok_or("must be a date such as 1990-12-31")?));
                }
                return Ok(());
            }
            Self::Phone => &mut patient.phone,
            Self::Email => &mut patient.email,
            Self::Language => &mut patient.language,
            Self::TimeZone => &mut patient.time_zone,
        };
        text.clone_into(place);
        Ok(())
    }
}

/// A date of ISO 8601, with a year of four digits.
fn day(text: &str) -> Option<NaiveDate> {
    let day: NaiveDate = text.parse().ok()?;
    (1000..=9999).contains(&day.year()).then_some(day)
}

/// Whether a spreadsheet would take a cell for a formula, apostrophes in front aside.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

/// A value as it is written: with an apostrophe before what a spreadsheet would calculate. That includes phone numbers, which would
/// lose their plus sign.
fn escaped(value: Cow<'_, str>) -> Cow<'_, str> {
    if is_formula(&value) { format!("'{value}").into() } else { value }
}

/// The value of a cell, with or without that apostrophe.
fn unescaped(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|value| is_formula(value)).unwrap_or(cell)
}
