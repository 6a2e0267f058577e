//! What a file may hold, and whatever else it may hold.

#![allow(clippy::unwrap_used, reason = "a test that breaks off should say where")]

use std::io::{self, Read};

use proptest::collection::vec;
use proptest::prelude::*;
use proto::clinic::patients::v1::Patient;
use proto::google::r#type::Date;

use super::read::{MAX_CELL, MAX_ROW, Roster, Row};
use super::{Column, escaped, unescaped};

const HEADER: &str = "mrn,given_name,family_name,birth_date,phone,email,language,time_zone";

/// All rows, and why the rest could not be read.
fn rows(file: &[u8]) -> anyhow::Result<(Vec<Row>, Option<String>)> {
    let mut roster = Roster::open(file)?;
    let mut rows = vec![];
    loop {
        match roster.next() {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => return Ok((rows, None)),
            Err(error) => return Ok((rows, Some(format!("{error:#}")))),
        }
    }
}

fn patients(file: &[u8]) -> Vec<Patient> {
    let (rows, rest) = rows(file).unwrap();
    assert_eq!(rest, None);
    rows.into_iter().map(|row| row.patient.unwrap()).collect()
}

fn ada() -> Patient {
    Patient {
        given_name: "Ada".to_owned(),
        family_name: "King, \"Countess\"\nLovelace".to_owned(),
        birth_date: Some(Date { year: 1815, month: 12, day: 10 }),
        phone: "+442071234567".to_owned(),
        ..Default::default()
    }
}

#[test]
fn columns_come_in_any_order_with_marks_line_ends_and_quotes_of_any_program() {
    let lines = [
        " Phone ,BIRTH_DATE,family_name,given_name",
        "+442071234567,1815-12-10,\"King, \"\"Countess\"\"\nLovelace\", Ada ",
        "'+442071234567,1815-12-10,\"King, \"\"Countess\"\"\nLovelace\",Ada",
        ",,,",
        "",
    ];
    for (mark, end) in [("", "\n"), ("\u{feff}", "\r\n"), ("\u{feff}", "\r")] {
        let file = mark.to_owned() + &lines.join(end);
        assert_eq!(patients(file.as_bytes()), [ada(), ada()], "{end:?}");
    }
    let header_only = format!("\u{feff}{HEADER}");
    assert_eq!(patients(header_only.as_bytes()), []);
}

#[test]
fn a_first_row_that_cannot_be_used_says_which_column_and_why() {
    for (first, said) in [
        (&b""[..], "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"given_name,birth_date", "family_name is missing"),
        (b"given_name,family_name,birth_date,dob", "column 4 has another name"),
        (b"given_name,family_name,birth_date,Given_Name", "column 4 is given_name once more"),
        (b"given_name,family_name,birth_date,ph\xf6ne", "column 4 is not in UTF-8"),
        (b"given_name;family_name;birth_date", "separated by commas"),
        (b"\xff\xfeg\0i\0v\0e\0n\0", "save the file as CSV UTF-8"),
        (b"Ada,King,1815-12-10", "row 1 must name the columns"),
    ] {
        let error = format!("{:#}", Roster::open(first).err().unwrap());
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("King"), "{error}");
    }
}

#[test]
fn bad_rows_are_numbered_and_all_their_faults_named_and_the_good_ones_read() {
    let long = "x".repeat(MAX_CELL + 1);
    let mut file = format!("{HEADER}\n,Ada,King,10.12.1815,,,,\n1,2\n,Bo,King,1815-12-10,,,,\n").into_bytes();
    file.extend(b",\xff,King,later,");
    file.extend(long.as_bytes());
    file.extend(b",,,\n,Cleo,King,1815-02-30,,,,\n,Dee,King,1990-12-31,,,,");
    let (rows, rest) = rows(&file).unwrap();
    assert_eq!(rest, None);
    let said: Vec<_> = rows
        .iter()
        .map(|row| (row.number, row.patient.as_ref().map_or_else(String::as_str, |p| p.given_name.as_str())))
        .collect();
    let date = "birth_date must be a date such as 1990-12-31";
    let three = format!("given_name is not in UTF-8; {date}; phone is longer than 4 KiB");
    let cells = "it has 2 cells where the first row has 8";
    assert_eq!(said, [(2, date), (3, cells), (4, "Bo"), (5, &three), (6, date), (7, "Dee")]);
}

/// Bytes without end, counted.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'a');
        self.0 += buffer.len();
        Ok(buffer.len())
    }
}

#[test]
fn a_quotation_mark_that_is_never_closed_costs_a_row_of_memory_and_no_more() {
    let mut endless = Endless(0);
    let start = format!("{HEADER}\n,Ada,King,1815-12-10,,,,\n,\"");
    let mut roster = Roster::open(start.as_bytes().chain(&mut endless)).unwrap();
    assert!(roster.next().unwrap().unwrap().patient.is_ok());
    let error = format!("{:#}", roster.next().unwrap_err());
    assert!(error.starts_with("row 3: it is longer than 1 MiB: a quotation mark"), "{error}");
    drop(roster);
    assert!(endless.0 <= MAX_ROW, "{} bytes were read", endless.0);

    let mut endless = Endless(0);
    assert!(Roster::open(&mut endless).is_err());
    assert!(endless.0 <= MAX_ROW, "{} bytes were read", endless.0);
}

/// Values as the service keeps them: trimmed, without control characters but these two.
fn value() -> impl Strategy<Value = String> {
    "['=+@\"\\-,;\n\ta-zÄ-ß😀 ]{0,12}".prop_map(|text| text.trim().to_owned())
}

proptest! {
    #[test]
    fn any_bytes_end_in_rows_or_complaints(bytes in vec(any::<u8>(), 0..2_000)) {
        let headed = [HEADER.as_bytes(), b"\n", &bytes].concat();
        for file in [&bytes, &headed] {
            let Ok((rows, _)) = rows(file) else { continue };
            prop_assert!(rows.len() <= file.len());
            prop_assert!(rows.windows(2).all(|two| two[0].number < two[1].number));
        }
    }

    #[test]
    fn a_good_file_with_bytes_changed_still_ends(
        changes in vec((any::<prop::sample::Index>(), prop_oneof![Just(b'"'), Just(b'\n'), Just(b','), any::<u8>()]), 0..40),
    ) {
        let row = ",Ada,\"King\",1815-12-10,+442071234567,ada@example.org,en,Europe/London\r\n";
        let mut file = format!("{HEADER}\r\n{}", row.repeat(20)).into_bytes();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Ok((rows, _)) = rows(&file) {
            prop_assert!(rows.len() <= file.len());
            for row in rows {
                prop_assert!(row.patient.is_ok() || !row.patient.unwrap_err().contains("Ada"));
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_no_spreadsheet_calculates_it(
        values in vec((value(), value(), value(), value()), 0..8),
    ) {
        let (mut csv, mut written) = (csv::Writer::from_writer(vec![]), vec![]);
        csv.write_record(Column::ALL.map(Column::name)).unwrap();
        for (given_name, family_name, phone, email) in values {
            let patient = Patient { given_name, family_name, phone, email, ..ada() };
            let row = Column::ALL.map(|column| escaped(column.of(&patient)).into_owned());
            for cell in &row {
                prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']));
            }
            csv.write_record(&row).unwrap();
            written.push(patient);
        }
        prop_assert_eq!(patients(&csv.into_inner().unwrap()), written);
    }

    #[test]
    fn an_apostrophe_of_a_name_stays(name in "'{0,3}[=+a-z-]{0,5}") {
        let cell = escaped(name.as_str().into());
        prop_assert_eq!(unescaped(&cell), name.as_str());
        prop_assert_eq!(unescaped("'t Hooft"), "'t Hooft");
    }
}
