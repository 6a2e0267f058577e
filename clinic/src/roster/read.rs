//! A CSV file as patients, one row at a time: whatever it holds, memory is bounded and the complaint names row and column.

use std::io::{self, Read};

use anyhow::{Context as _, bail};
use csv::{ByteRecord, Reader, ReaderBuilder};
use proto::clinic::patients::v1::Patient;

use super::{Column, unescaped};

/// Bytes of a row. More is taken for a quotation mark that nothing closes, which would swallow the rest of the file.
pub(super) const MAX_ROW: usize = 1024 * 1024;
/// Bytes of a cell: no field of the contract comes near.
pub(super) const MAX_CELL: usize = 4 * 1024;

/// A file whose first row was understood.
pub(super) struct Roster<R> {
    csv: Reader<Bounded<R>>,
    columns: Vec<Column>,
    record: ByteRecord,
}

/// One row after the first.
#[derive(Debug)]
pub(super) struct Row {
    /// As spreadsheets count: the first row is 1.
    pub(super) number: u64,
    /// Who it tells of, or all that is wrong with it.
    pub(super) patient: Result<Patient, String>,
}

impl<R: Read> Roster<R> {
    /// Reads the first row, which names the columns in any order.
    pub(super) fn open(input: R) -> anyhow::Result<Self> {
        let bounded = Bounded { input, left: MAX_ROW };
        let mut csv = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bounded);
        let mut record = ByteRecord::new();
        if !read(&mut csv, &mut record).context("row 1")? {
            bail!("the file is empty; its first row must name the columns: {}", Column::names());
        }
        let columns = columns(&record)?;
        Ok(Self { csv, columns, record })
    }

    /// The next row that is not blank; `None` = there are no more. Fails where the rest cannot be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Row>> {
        loop {
            let number = self.csv.position().record() + 1;
            if !read(&mut self.csv, &mut self.record).with_context(|| format!("row {number}"))? {
                return Ok(None);
            }
            // Spreadsheets leave rows of empty cells behind.
            if self.record.iter().any(|cell| !cell.trim_ascii().is_empty()) {
                return Ok(Some(Row { number, patient: self.patient() }));
            }
        }
    }

    /// Bytes that were read so far.
    pub(super) fn position(&self) -> u64 {
        self.csv.position().byte()
    }

    fn patient(&self) -> Result<Patient, String> {
        let (cells, columns) = (self.record.len(), self.columns.len());
        if cells != columns {
            return Err(format!("it has {cells} cells where the first row has {columns}"));
        }
        let (mut patient, mut problems) = (Patient::default(), vec![]);
        for (column, cell) in self.columns.iter().zip(&self.record) {
            let set = if cell.len() > MAX_CELL {
                Err("is longer than 4 KiB")
            } else {
                let text = str::from_utf8(cell).map_err(|_| "is not in UTF-8");
                text.and_then(|text| column.set(&mut patient, unescaped(text.trim())))
            };
            if let Err(problem) = set {
                problems.push(format!("{} {problem}", column.name()));
            }
        }
        if problems.is_empty() { Ok(patient) } else { Err(problems.join("; ")) }
    }
}

/// Reads a record; `false` = there are no more.
fn read<R: Read>(csv: &mut Reader<Bounded<R>>, record: &mut ByteRecord) -> anyhow::Result<bool> {
    csv.get_mut().left = MAX_ROW;
    let there = csv.read_byte_record(record);
    if there.is_err() && csv.get_ref().left == 0 {
        bail!("it is longer than 1 MiB: a quotation mark is not closed, there or shortly before");
    }
    Ok(there?)
}

/// What stands in which column.
fn columns(first: &ByteRecord) -> anyhow::Result<Vec<Column>> {
    let (mut columns, mut problems) = (vec![], vec![]);
    for (number, cell) in (1..).zip(first) {
        let name = str::from_utf8(cell).map(str::trim);
        let known = Column::ALL.into_iter().find(|c| name.is_ok_and(|n| n.eq_ignore_ascii_case(c.name())));
        match (name, known) {
            (Err(_), _) => {
                problems.push(format!("column {number} is not in UTF-8: save the file as CSV UTF-8"))
            }
            (Ok(_), None) => problems.push(format!("column {number} has another name")),
            (Ok(_), Some(column)) if columns.contains(&column) => {
                problems.push(format!("column {number} is {} once more", column.name()));
            }
            (Ok(_), Some(column)) => columns.push(column),
        }
        if problems.len() > Column::ALL.len() {
            break;
        }
    }
    let missing: Vec<_> =
        Column::REQUIRED.iter().filter(|c| !columns.contains(c)).map(|c| c.name()).collect();
    if !missing.is_empty() {
        problems.push(format!("{} is missing", missing.join(", ")));
    }
    if first.len() == 1 && first.iter().any(|cell| cell.contains(&b';') || cell.contains(&b'\t')) {
        problems.push("columns must be separated by commas".to_owned());
    }
    if !problems.is_empty() {
        bail!("row 1 must name the columns, from {}: {}", Column::names(), problems.join("; "));
    }
    Ok(columns)
}

/// What it reads from, as far as one row may reach.
struct Bounded<R> {
    input: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = buffer.len().min(self.left);
        let read = self.input.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}
