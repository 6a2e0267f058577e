//! From a file's text to what shall be added. Pure: no network and no clock.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use scheduling::domain::{GRID_MINUTES, shift, span, zone};
use uuid::Uuid;

use super::event::{Event, Ignored, When};
use super::file::{self, Line};
use super::zone::Zones;

/// Root of the ids of what is imported.
const NAMESPACE: Uuid = Uuid::from_u128(0x1ca1_e4da_0000_4000_8000_0000_0000_0001);
/// Most additions of one file.
const MAX_PLANNED: usize = 10_000;
/// Most occurrences that the rules of one file may count out (COUNT): a count is followed from its beginning.
const MAX_COUNTED: usize = 500_000;
/// Longest span of one exception or blackout, in days; see calendar.proto.
const MAX_SPAN_DAYS: i64 = 366;
/// Longest name of a blackout, in characters.
const MAX_NAME: usize = 100;
/// Name of a blackout whose event has none.
const UNNAMED: &str = "Closed";

/// Whose calendar the file is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A provider's busy time, everywhere or at one clinic.
    Provider(Uuid, Option<Uuid>),
    /// Days or hours in which a clinic is closed.
    Clinic(Uuid),
    /// Days or hours in which every clinic is closed.
    Network,
}

impl Target {
    /// Names it in the ids of what is imported. Never changes, or a second import would add everything again.
    fn key(self) -> String {
        match self {
            Self::Provider(provider, clinic) => {
                format!("provider/{provider}/{}", clinic.map(|id| id.to_string()).unwrap_or_default())
            }
            Self::Clinic(clinic) => format!("clinic/{clinic}"),
            Self::Network => "network".to_owned(),
        }
    }
}

/// How to read a file.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Whose calendar it is.
    pub(super) target: Target,
    /// The clock of times that name none, and of a provider's whole days.
    pub(super) zone: Option<Tz>,
    /// First day of interest.
    pub(super) from: NaiveDate,
    /// Last day of interest.
    pub(super) until: NaiveDate,
    /// Events shown as free count too.
    pub(super) include_free: bool,
}

/// One exception or blackout to add.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// The same for the same event, time and target.
    pub(super) id: Uuid,
    /// Line of the event.
    pub(super) line: usize,
    /// What the event is called, 1 to 100 characters.
    pub(super) name: String,
    /// When: on the grid, and no longer than the service takes.
    pub(super) when: When,
}

/// Events that add nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Shown as free.
    pub(super) free: usize,
    /// Called off.
    pub(super) cancelled: usize,
    /// Nothing of it lies between the dates.
    pub(super) outside: usize,
    /// It ends when it starts.
    pub(super) empty: usize,
}

/// What a file comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In order of time.
    pub(super) planned: Vec<Planned>,
    /// What adds nothing.
    pub(super) skipped: Skipped,
    /// How many of `planned` were widened to the grid.
    pub(super) rounded: usize,
}

/// Reads a whole file, or says what is wrong with it.
pub(super) fn plan(bytes: &[u8], options: &Options) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    let mut ids = HashSet::new();
    let mut seen = false;
    let mut counted = 0_usize;
    for calendar in file::read(bytes)? {
        let mut zones = Zones::of(&calendar, options.zone);
        let components = calendar.parts.iter().filter(|part| part.name == "VEVENT");
        let events: Vec<(usize, Event<'_>)> = components.map(|part| (part.line, Event::of(part))).collect();
        seen |= !events.is_empty();
        let mut replaced: HashMap<&str, Vec<&Line>> = HashMap::new();
        for (_, event) in &events {
            if let Some(line) = event.replaces() {
                replaced.entry(event.uid()).or_default().push(line);
            }
        }
        for (line, event) in &events {
            counted = counted.saturating_add(event.counted());
            ensure!(
                counted <= MAX_COUNTED,
                "{}: with it the rules of the file count out (COUNT) more than {MAX_COUNTED} occurrences",
                event.described()
            );
            let replaced = match event.replaces() {
                // What replaces an occurrence stands for itself alone.
                Some(_) => &[],
                None => replaced.get(event.uid()).map_or(&[][..], Vec::as_slice),
            };
            let added = plan.add(event, *line, &mut zones, replaced, &mut ids, options);
            added.with_context(|| event.described())?;
        }
    }
    ensure!(seen, "the file has no events (VEVENT)");
    plan.planned.sort_by_key(|planned| (options.span(planned.when), planned.id));
    Ok(plan)
}

impl Plan {
    fn add(
        &mut self,
        event: &Event<'_>,
        line: usize,
        zones: &mut Zones<'_>,
        replaced: &[&Line],
        ids: &mut HashSet<Uuid>,
        options: &Options,
    ) -> anyhow::Result<()> {
        match event.ignored() {
            Some(Ignored::Cancelled) => {
                self.skipped.cancelled += 1;
                return Ok(());
            }
            Some(Ignored::Free) if !options.include_free => {
                self.skipped.free += 1;
                return Ok(());
            }
            Some(Ignored::Free) | None => {}
        }
        let all = event.occurrences(zones, replaced, (options.from, options.until))?;
        let window = options.window();
        let lasting: BTreeSet<When> = all.iter().copied().filter(|when| !is_empty(*when)).collect();
        let mut outside = true;
        for whole in &lasting {
            let (whole, rounded) = options.placed(*whole, zones)?;
            for when in pieces(whole) {
                let (start, end) = options.span(when);
                if start >= window.1 || end <= window.0 {
                    continue;
                }
                outside = false;
                let planned = Planned { id: id(options.target, event, when), line, name: name(event), when };
                if ids.insert(planned.id) {
                    self.planned.push(planned);
                    self.rounded += usize::from(rounded);
                }
                ensure!(
                    self.planned.len() <= MAX_PLANNED,
                    "with it the file comes to more than {MAX_PLANNED} entries: choose the dates closer with --from and --until"
                );
            }
        }
        if lasting.is_empty() && !all.is_empty() {
            self.skipped.empty += 1;
        } else if outside {
            self.skipped.outside += 1;
        }
        Ok(())
    }
}

impl Options {
    /// The clock that days are shown and compared on.
    pub(super) fn clock(&self) -> Tz {
        self.zone.unwrap_or(Tz::UTC)
    }

    /// From the first midnight of interest to the one after the last.
    fn window(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        self.span(When::Days(self.from, self.until))
    }

    /// From when until when.
    fn span(&self, when: When) -> (DateTime<Utc>, DateTime<Utc>) {
        match when {
            When::Days(first, last) => {
                let days = zone::whole_days(self.clock(), &(first..=last));
                (span::instant(days.start), span::instant(days.end))
            }
            When::Exact(start, end) => (start, end),
        }
    }

    /// An occurrence as the target takes it, and whether it was widened to the grid. A blackout may be whole days of each clinic's
    /// own clock; a provider's time off is exact.
    fn placed(&self, when: When, zones: &Zones<'_>) -> anyhow::Result<(When, bool)> {
        let (start, end) = match (when, self.target) {
            (When::Days(..), Target::Clinic(_) | Target::Network) => return Ok((when, false)),
            (When::Days(..), Target::Provider(..)) => {
                zones.floating()?;
                self.span(when)
            }
            (When::Exact(start, end), _) => (start, end),
        };
        let grid = i64::from(GRID_MINUTES) * 60;
        let past = |instant: DateTime<Utc>| instant.timestamp().rem_euclid(grid);
        let (early, late) = (past(start), (grid - past(end)) % grid);
        let wider = When::Exact(start - TimeDelta::seconds(early), end + TimeDelta::seconds(late));
        Ok((wider, early + late > 0))
    }
}

fn is_empty(when: When) -> bool {
    matches!(when, When::Exact(start, end) if start == end)
}

/// As many spans, one after the other, as the longest that the service takes makes necessary.
fn pieces(whole: When) -> Vec<When> {
    let mut found = vec![];
    match whole {
        When::Days(mut first, last) => {
            while first <= last {
                let end = shift(first, MAX_SPAN_DAYS - 1).min(last);
                found.push(When::Days(first, end));
                first = shift(end, 1);
            }
        }
        When::Exact(mut start, last) => {
            while start < last {
                let end = (start + TimeDelta::days(MAX_SPAN_DAYS)).min(last);
                found.push(When::Exact(start, end));
                start = end;
            }
        }
    }
    found
}

/// The time is part of it: an event that moved or grew since an earlier import must not pass for the one that is there.
fn id(target: Target, event: &Event<'_>, when: When) -> Uuid {
    let when = match when {
        When::Days(first, last) => format!("{first}/{last}"),
        When::Exact(start, end) => format!("{}/{}", start.timestamp(), end.timestamp()),
    };
    let event = match event.uid() {
        "" => event.summary(),
        uid => uid.to_owned(),
    };
    Uuid::new_v5(&NAMESPACE, format!("{}\n{when}\n{event}", target.key()).as_bytes())
}

fn name(event: &Event<'_>) -> String {
    let name: String = event.summary().chars().take(MAX_NAME).collect();
    match name.trim() {
        "" => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}
