//! The judge: knows the plot and what the provider took, and no line of the service.

use std::collections::HashMap;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;

use super::plot::{Case, Deed, Event, Plot, phone};

/// A text as the provider has it.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) to: String,
    pub(super) body: String,
    pub(super) at: DateTime<Utc>,
}

/// What the judge found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) sent: usize,
    pub(super) not_due: usize,
    pub(super) faults: Vec<String>,
}

/// How late a text may leave: a lost answer is looked up a minute later, several in a row a few.
const LATE: TimeDelta = TimeDelta::minutes(25);

/// What a reminder of a case says, to tell it from all other texts.
type Said = (usize, bool, String);

pub(super) fn judge(plot: &Plot, taken: &[Taken]) -> Verdict {
    let mut verdict = Verdict::default();
    let stories = plot.stories();
    let mut found: HashMap<Said, Vec<&Taken>> = HashMap::new();
    for text in taken {
        let case = case_of(&text.body);
        at_a_decent_hour(&plot.cases[case], text, &mut verdict);
        consented(&stories[&case], text, &mut verdict);
        if let Some(said) = reminder(case, &text.body) {
            found.entry(said).or_default().push(text);
        }
    }
    for (case, story) in &stories {
        let facts = &plot.cases[*case];
        for expected in expected(*case, facts, story) {
            let texts = found.remove(&expected.said).unwrap_or_default();
            let Some((due, to)) = expected.due else {
                verdict.not_due += 1;
                if !texts.is_empty() {
                    verdict.faults.push(format!("not due: {:?} got {texts:?}", expected.said));
                }
                continue;
            };
            match texts.as_slice() {
                [text] if text.to == to && (due..due + LATE).contains(&(text.at + TimeDelta::seconds(1))) => {
                    verdict.sent += 1;
                }
                [text] => verdict.faults.push(format!("due {due} to {to}: {:?} got {text:?}", expected.said)),
                others => verdict.faults.push(format!("due {due}, once: {:?} got {others:?}", expected.said)),
            }
        }
    }
    verdict
        .faults
        .extend(found.into_iter().map(|(said, texts)| format!("never planned: {said:?} got {texts:?}")));
    verdict
}

/// Clinics are called after their cases: "K12: …".
fn case_of(body: &str) -> usize {
    let name = body.strip_prefix('K').and_then(|rest| rest.split_once(':')).map(|(number, _)| number);
    name.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("whose is {body:?}?"))
}

/// What a reminder says; `None` = the text is none.
fn reminder(case: usize, body: &str) -> Option<Said> {
    let day_before = body.contains("reminder of your visit, ");
    let (_, rest) =
        body.split_once("reminder of your visit, ").or_else(|| body.split_once("see you soon, "))?;
    let (when, _) = rest.split_once(". Reply 1")?;
    Some((case, day_before, when.to_owned()))
}

fn at_a_decent_hour(case: &Case, text: &Taken, verdict: &mut Verdict) {
    let hour = text.at.with_timezone(&case.home).hour();
    if !(8..21).contains(&hour) {
        verdict.faults.push(format!("at {hour} o'clock: {text:?}"));
    }
}

fn consented(story: &[&Event], text: &Taken, verdict: &mut Verdict) {
    let withdrawn = story.iter().find(|deed| matches!(deed.what, Deed::Withdraw)).map(|deed| deed.at);
    if withdrawn.is_some_and(|at| at <= text.at) {
        verdict.faults.push(format!("withdrawn at {withdrawn:?}: {text:?}"));
    }
}

struct Expected {
    said: Said,
    /// When, and to which number; `None` = never.
    due: Option<(DateTime<Utc>, String)>,
}

/// Two reminders for each time that the visit was scheduled to.
fn expected(case: usize, facts: &Case, story: &[&Event]) -> Vec<Expected> {
    let mut all = vec![];
    for (place, deed) in story.iter().enumerate() {
        let Deed::Schedule(start) = deed.what else { continue };
        let ended =
            story[place + 1..].iter().find(|later| matches!(later.what, Deed::Schedule(_) | Deed::Cancel));
        for day_before in [true, false] {
            let said = start.with_timezone(&facts.clinic_zone).format("%a, %b %-d at %-I:%M %p").to_string();
            let moment = moment(day_before, start, deed.at, facts.home);
            let due = moment
                .filter(|at| ended.is_none_or(|end| *at < end.at))
                .filter(|at| !story.iter().any(|deed| matches!(deed.what, Deed::Withdraw) && deed.at <= *at));
            let due = due.map(|at| {
                let moved = story.iter().any(|deed| matches!(deed.what, Deed::Renumber(_)) && deed.at <= at);
                (at, phone(case, u32::from(moved)))
            });
            all.push(Expected { said: (case, day_before, said), due });
        }
    }
    all
}

/// When a reminder of a visit booked at `booked` should come to someone who lives in `home`.
fn moment(day_before: bool, start: DateTime<Utc>, booked: DateTime<Utc>, home: Tz) -> Option<DateTime<Utc>> {
    let lead = if day_before { TimeDelta::hours(24) } else { TimeDelta::hours(2) };
    let decent = |at: DateTime<Utc>| (8..21).contains(&at.with_timezone(&home).hour());
    let at = start - lead;
    if at < booked {
        // Half an hour before, to the moment, is a little less by the time it is heard of.
        let still_helps = !day_before && start - booked > TimeDelta::minutes(30);
        return Some(booked).filter(|at| still_helps && decent(*at));
    }
    if decent(at) {
        return Some(at);
    }
    let local = at.with_timezone(&home);
    let day = if local.hour() < 8 { local.date_naive() - Days::new(1) } else { local.date_naive() };
    let eight = NaiveTime::from_hms_opt(20, 0, 0).expect("a time of day");
    let evening =
        home.from_local_datetime(&day.and_time(eight)).single().expect("no clocks change then").to_utc();
    Some(evening).filter(|evening| *evening >= booked)
}
