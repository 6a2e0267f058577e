//! Cases that failed once, as commands: they outlive every change of how cases are drawn.

use chrono::{TimeDelta, TimeZone as _, Utc};

use super::commands::{Answer, At, Command, Truth, Want};

/// A quarter past two, so many days after a case begins.
fn slot(days: i64) -> At {
    Utc.with_ymd_and_hms(2027, 3, 8, 14, 15, 0).single().expect("an instant") + TimeDelta::days(days)
}

/// A slot of the first clinic and provider.
fn want(patient: usize, kind: usize, start: At) -> Want {
    Want { patient, kind, clinic: 0, provider: Some(0), start }
}

fn block(days: i64, told: bool) -> Command {
    Command::Block { provider: 0, from: slot(days), minutes: 15, told }
}

/// Each with what went wrong.
pub(crate) fn cases() -> [(&'static str, Vec<Command>); 5] {
    [
        (
            "a visit without a co-pay, refused by the calendar, was said to need the patient's one hold as well",
            vec![
                block(1, false),
                Command::Hold(want(0, 0, slot(8))),
                Command::Book(want(0, 0, slot(1)), Answer::Authorized),
            ],
        ),
        (
            "a hold's booking, asked for again under its request id, was judged by the calendar again",
            vec![
                Command::Hold(want(0, 2, slot(1))),
                Command::BookHold { which: 0, answer: Answer::ActionRequired },
                block(1, true),
                Command::Repeat { other_body: false },
            ],
        ),
        (
            "a late authorization of a hold that the calendar had ended could not be handled",
            vec![
                Command::Book(want(0, 2, slot(1)), Answer::Lost(Truth::Authorized)),
                block(1, true),
                Command::Look(Answer::Authorized),
                Command::Deliver { event: 0 },
            ],
        ),
        (
            "a patient who came after all was kept out by a hold whose time was up",
            vec![
                Command::Book(want(0, 0, slot(0)), Answer::Authorized),
                Command::PassTo(slot(0) + TimeDelta::seconds(90)),
                Command::Complete { which: 0, stale: false, no_show: true },
                Command::Hold(want(1, 0, slot(0))),
                Command::Pass(300),
                Command::CheckIn { which: 0, stale: false },
            ],
        ),
        (
            "it hung on what was known of the patient whether a hold whose time was up ended, though another room was free",
            vec![
                Command::Hold(want(0, 0, slot(8))),
                Command::Release { which: 0, stale: false },
                Command::Hold(Want { provider: Some(1), ..want(2, 0, slot(1)) }),
                Command::Hold(want(1, 0, slot(1))),
                Command::Pass(300),
                Command::Release { which: 1, stale: false },
                Command::Book(Want { provider: Some(1), ..want(0, 0, slot(1)) }, Answer::Authorized),
            ],
        ),
    ]
}
