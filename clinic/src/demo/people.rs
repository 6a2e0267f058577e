//! 200 patients, every tenth with a saved sandbox card and texts agreed to. All of them are invented; the numbers are reserved for fiction.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kit::fields::{date, timestamp};
use proto::clinic::billing::v1::SavePaymentMethodRequest;
use proto::clinic::patients::v1::{
    Patient, RegisterPatientRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
};

use super::{Step, id};

/// Why an administrator's token touches patients' records while seeding.
pub(super) const REASON: &str = "seeding the demo network";

/// How many patients there are.
const PATIENTS: usize = 200;
/// One in so many has a card on file.
const WITH_CARD: usize = 10;
/// The one patient whose card can be saved but never charged.
const DECLINED: usize = 2;

const GIVEN: [&str; 20] = [
    "Ada", "Bruno", "Chloe", "David", "Elif", "Frank", "Greta", "Hassan", "Ines", "Jamal", "Karin", "Luis",
    "Maya", "Noah", "Olga", "Pavel", "Quinn", "Rosa", "Samir", "Tess",
];
const FAMILY: [&str; 25] = [
    "Abbott", "Bauer", "Castillo", "Dubois", "Evans", "Fischer", "García", "Hughes", "Ivanova", "Jensen",
    "Kowalski", "López", "Moreau", "Nguyen", "O'Brien", "Patel", "Quiroga", "Rossi", "Schmidt", "Tanaka",
    "Ueda", "Vargas", "Walker", "Young", "Zhang",
];
const LANGUAGES: [&str; 4] = ["en", "en", "es", "en"];

/// The patients but the last, then what belongs to them.
pub(super) fn stages(now: DateTime<Utc>) -> Vec<Vec<Step>> {
    vec![(1..PATIENTS).map(patient).collect(), cards().into_iter().chain(consents(now)).collect()]
}

/// The patient whose presence says that the seeding is complete.
pub(super) fn last() -> Step {
    patient(PATIENTS)
}

fn patient(n: usize) -> Step {
    // Strides that share no factor with the lengths walk through all combinations.
    let (given, family) = (GIVEN[n * 7 % GIVEN.len()], FAMILY[n * 11 % FAMILY.len()]);
    let born =
        NaiveDate::from_ymd_opt(1940, 1, 1).expect("a date") + TimeDelta::days((n as i64 * 147) % 29_000);
    let area = if n <= PATIENTS / 2 { 202 } else { 312 };
    let zone = if n <= PATIENTS / 2 { "America/New_York" } else { "America/Chicago" };
    Step::Patient(RegisterPatientRequest {
        patient_id: id(&format!("patient/{n}")).to_string(),
        patient: Some(Patient {
            mrn: format!("D{n:06}"),
            given_name: given.to_owned(),
            family_name: family.to_owned(),
            birth_date: Some(date(born)),
            phone: format!("+1{area}55501{:02}", (n - 1) % 100),
            email: format!("patient{n}@example.org"),
            language: LANGUAGES[n % LANGUAGES.len()].to_owned(),
            time_zone: zone.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Who has a card also agreed to texts.
fn consents(now: DateTime<Utc>) -> impl Iterator<Item = Step> {
    (1..PATIENTS).step_by(WITH_CARD).map(move |n| {
        Step::Consent(SetSmsConsentRequest {
            request_id: id(&format!("consent/{n}")).to_string(),
            patient_id: id(&format!("patient/{n}")).to_string(),
            state: SmsConsentState::Granted as i32,
            source: SmsConsentSource::PaperForm as i32,
            wording: "The clinic may send me texts about my visits.".to_owned(),
            wording_language: "en".to_owned(),
            decide_time: Some(timestamp(now)),
        })
    })
}

/// Cards by the sandbox's test tokens.
fn cards() -> Vec<Step> {
    let card = |n: usize, token: &str| {
        Step::Card(SavePaymentMethodRequest {
            request_id: id(&format!("card/{n}")).to_string(),
            patient_id: id(&format!("patient/{n}")).to_string(),
            provider_token: token.to_owned(),
            make_default: true,
        })
    };
    let good = (1..PATIENTS).step_by(WITH_CARD).map(|n| card(n, "pm_card_visa"));
    good.chain([card(DECLINED, "pm_card_chargeCustomerFail")]).collect()
}
