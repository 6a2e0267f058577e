//! Patients: one replica as a process, a million invented patients in PostgreSQL, one caller here.
//!
//! The patients are written as an earlier release stored them, in plain text, so that the start shows how long sealing them takes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{Days, NaiveDate};
use kit::client::Outbound;
use kit::db::Db;
use kit::fields::date;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::SearchPatientsRequest;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use testkit::Servers;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::load::{Caller, in_turn};
use crate::processes::{Process, load_average};
use crate::roster;

/// Different names there are. The n-th is drawn as often as one over the root of n, so that the first family name has one patient in
/// two hundred, as the most frequent ones of large countries do.
const GIVEN_NAMES: f64 = 3_000.0;
const FAMILY_NAMES: f64 = 40_000.0;
/// Patients written at once.
const BATCH: usize = 10_000;
/// Patients whom searches ask for.
const SOUGHT: usize = 500;
/// Searches of each kind.
const CALLS: usize = 1_000;
/// Patients in a page, unless asked otherwise.
const PAGE: usize = 50;
/// How long sealing may take before the measurement gives up.
const START_WITHIN: Duration = Duration::from_secs(1_800);
/// So that every run measures the same patients.
const SEED: u64 = 21;
/// Birth dates are spread over so many days.
const BIRTH_DAYS: u64 = 36_500;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many patients.
    #[arg(long, default_value_t = 1_000_000)]
    patients: usize,
    /// How many more are imported then.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
}

/// Starts everything, measures, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL and NATS, writing {} patients", options.patients);
    let servers = Servers::durable().await;
    let sought = fill(&servers, options.patients).await?;
    eprintln!("starting patients, which seals them");
    let begun = Instant::now();
    let service = Process::service(patients::NAME, &servers).await?;
    let client = PatientServiceClient::new(servers.client(&service.url, Role::FrontDesk, "bench"));
    testkit::until_within(START_WITHIN, "a first answer", || {
        let (mut client, request) = (client.clone(), Kind::Phone.request(&sought[0]));
        async move { client.search_patients(request).await.ok() }
    })
    .await;
    let sealed = begun.elapsed();
    let mut admin = servers.admin().await;
    for table in ["patients.patient", "patients.contact", "patients.name_word"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("vacuum analyze {table}"))).execute(&mut admin).await?;
    }
    let mut searches = vec![];
    for kind in Kind::ALL {
        eprintln!("{}", kind.name());
        let mut caller = Seeker { client: client.clone(), sought: sought.clone(), kind, next: 0 };
        let times =
            in_turn(&mut caller, CALLS).await.with_context(|| format!("searching by {}", kind.name()))?;
        let mut figures = times.figures();
        figures["by"] = kind.name().into();
        searches.push(figures);
    }
    let bytes: i64 =
        sqlx::query_scalar("select pg_database_size(current_database())").fetch_one(&mut admin).await?;
    let named = |n| (name(n % GIVEN_NAMES as usize, 0, ""), name(n % FAMILY_NAMES as usize, 1, "er"));
    let import = roster::measure(&servers, &service, options.rows, named).await?;
    Ok(json!({
        "import": import,
        "patients": options.patients,
        "calls": CALLS,
        "start_s": sealed.as_secs_f64(),
        "database_bytes": bytes,
        "load_average": load_average()?,
        "searches": searches,
    }))
}

/// Someone to be found.
#[derive(Clone)]
struct Person {
    given: String,
    family: String,
    phone: String,
    mrn: String,
    birth_date: NaiveDate,
}

/// What is known of someone.
#[derive(Clone, Copy)]
enum Kind {
    Name,
    Accents,
    Typo,
    Beginnings,
    Family,
    Initials,
    Nobody,
    Phone,
    LocalPhone,
    Mrn,
    BirthDate,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Name,
        Self::Accents,
        Self::Typo,
        Self::Beginnings,
        Self::Family,
        Self::Initials,
        Self::Nobody,
        Self::Phone,
        Self::LocalPhone,
        Self::Mrn,
        Self::BirthDate,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Name => "both names, family name first",
            Self::Accents => "both names, in capitals with accents",
            Self::Typo => "both names, a letter missing",
            Self::Beginnings => "the beginnings of both names",
            Self::Family => "family name alone",
            Self::Initials => "two initials",
            Self::Nobody => "a name that nobody has",
            Self::Phone => "phone, E.164",
            Self::LocalPhone => "phone, as people dial it",
            Self::Mrn => "MRN",
            Self::BirthDate => "birth date",
        }
    }

    fn request(self, person: &Person) -> SearchPatientsRequest {
        let mut request = SearchPatientsRequest::default();
        let Person { given, family, .. } = person;
        match self {
            Self::Name => request.query = format!("{family} {given}"),
            Self::Accents => {
                let name = format!("{given} {family}").to_uppercase();
                request.query = name
                    .replace('A', "Á")
                    .replace('E', "È")
                    .replace('I', "Ï")
                    .replace('O', "Ô")
                    .replace('U', "Ů");
            }
            Self::Typo => {
                let (start, end) = family.split_at(3);
                request.query = format!("{given} {start}{}", &end[1..]);
            }
            Self::Beginnings => request.query = format!("{} {}", &given[..3], &family[..4]),
            Self::Family => request.query.clone_from(family),
            Self::Initials => request.query = format!("{} {}", &given[..1], &family[..1]),
            Self::Nobody => request.query = format!("{}x{} xyzzyx", &given[..2], &given[2..]),
            Self::Phone => request.phone.clone_from(&person.phone),
            Self::LocalPhone => {
                let (area, rest) = person.phone[2..].split_at(3);
                request.phone = format!("({area}) {}-{}", &rest[..3], &rest[3..]);
            }
            Self::Mrn => request.mrn.clone_from(&person.mrn),
            Self::BirthDate => request.birth_date = Some(date(person.birth_date)),
        }
        request
    }
}

struct Seeker {
    client: PatientServiceClient<Outbound>,
    sought: Vec<Person>,
    kind: Kind,
    next: usize,
}

impl Caller for Seeker {
    async fn call(&mut self) -> Result<(), Status> {
        let person = &self.sought[self.next % self.sought.len()];
        self.next += 1;
        let found = self.client.search_patients(self.kind.request(person)).await?.into_inner().matches;
        let mrn = &person.mrn;
        let is_there = found.iter().any(|m| m.patient.as_ref().is_some_and(|p| p.mrn == *mrn));
        // What many share has more than a page of them.
        let good = match self.kind {
            Kind::Nobody => !is_there,
            Kind::Beginnings | Kind::Family | Kind::Initials => !found.is_empty(),
            Kind::Name
            | Kind::Accents
            | Kind::Typo
            | Kind::Phone
            | Kind::LocalPhone
            | Kind::Mrn
            | Kind::BirthDate => is_there || found.len() == PAGE,
        };
        if good { Ok(()) } else { Err(Status::new(Code::Internal, "a search does not find the patient")) }
    }
}

/// The `n`-th name that begins with a letter of `first`: six letters and an ending.
fn name(n: usize, first: usize, ending: &str) -> String {
    const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwz";
    const VOWELS: &[u8] = b"aeiou";
    /// Shares no factor with the number of syllables, so that neighbours in rank are none in spelling.
    const SPREAD: usize = 7_919;
    let syllables = CONSONANTS.len() * VOWELS.len();
    let mut rest = (n * SPREAD + first) % syllables.pow(3);
    let mut text = String::new();
    for _ in 0..3 {
        let syllable = rest % syllables;
        text.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        text.push(char::from(VOWELS[syllable % VOWELS.len()]));
        rest /= syllables;
    }
    text + ending
}

/// Writes the patients; answers those to be sought.
async fn fill(servers: &Servers, count: usize) -> anyhow::Result<Vec<Person>> {
    let db = Db::new(&servers.database_url(patients::NAME), patients::NAME, 1)?;
    db.migrate(&patients::MIGRATOR).await?;
    let mut lots = StdRng::seed_from_u64(SEED);
    let first_day = NaiveDate::from_ymd_opt(1925, 1, 1).unwrap_or_default();
    let mut sought = vec![];
    for start in (0..count).step_by(BATCH) {
        let mut people = Vec::with_capacity(BATCH);
        for n in start..count.min(start + BATCH) {
            let mut rank = |names: f64| (names * lots.random::<f64>().powi(2)) as usize;
            let (given, family) = (name(rank(GIVEN_NAMES), 0, ""), name(rank(FAMILY_NAMES), 1, "er"));
            let birth_date = first_day + Days::new(lots.random_range(0..BIRTH_DAYS));
            people.push(Person {
                given,
                family,
                phone: format!("+1202{:07}", 2_000_000 + n),
                mrn: format!("M{n:08}"),
                birth_date,
            });
        }
        write(&db, &people).await?;
        if sought.len() < SOUGHT {
            sought.extend(people.into_iter().take(SOUGHT.div_ceil(count.div_ceil(BATCH))));
        }
    }
    // As the migration did on such data, which no statement's time limit ends.
    sqlx::query(
        "insert into patients.name_word (word, near)
         select word, patients.near(word)
         from (select distinct unnest(string_to_array(search_name, ' ')) as word from patients.patient) as present",
    )
    .execute(&mut servers.admin().await)
    .await?;
    Ok(sought)
}

async fn write(db: &Db, people: &[Person]) -> anyhow::Result<()> {
    let ids: Vec<_> = people.iter().map(|_| Uuid::now_v7()).collect();
    let given: Vec<_> = people.iter().map(|p| p.given.clone()).collect();
    let family: Vec<_> = people.iter().map(|p| p.family.clone()).collect();
    let mrns: Vec<_> = people.iter().map(|p| p.mrn.clone()).collect();
    let phones: Vec<_> = people.iter().map(|p| p.phone.clone()).collect();
    let birth_dates: Vec<_> = people.iter().map(|p| p.birth_date).collect();
    let mut tx = db.begin().await?;
    sqlx::query(
        "insert into patients.patient
            (id, mrn, given_name, family_name, search_name, birth_date, create_time, update_time)
         select id, mrn, given, family, given || ' ' || family, day, now(), now()
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::date[]) as p (id, mrn, given, family, day)",
    )
    .bind(&ids)
    .bind(&mrns)
    .bind(&given)
    .bind(&family)
    .bind(&birth_dates)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "insert into patients.contact (patient_id, phone, email, language, time_zone)
         select id, phone, '', 'en', '' from unnest($1::uuid[], $2::text[]) as p (id, phone)",
    )
    .bind(&ids)
    .bind(&phones)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
