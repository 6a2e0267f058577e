//! A canary: a patient with unmistakable data goes through the whole suite, logging at its most talkative, and everything that comes
//! out or stays behind is searched for her. Where her data may be stands in [`ALLOWED`], with the reason.

mod mistakes;
mod needles;
mod outputs;
mod story;
mod visits;

use std::collections::BTreeSet;
use std::fs::{self, File};

use prost_reflect::DescriptorPool;
use proto::FILE_DESCRIPTOR_SET;
use testkit::Servers;

use self::needles::{Kind, LEAKS, Search};
use self::outputs::{Collector, Output, events, files, rows};
use self::story::Story;
use crate::process::{Home, Up};

use Kind::{Answer, BirthDate, Email, Mrn, Name, Phone};

/// Place (its beginning), what may be there, why.
const ALLOWED: [(&str, &[Kind], &str); 17] = [
    ("answer PatientService/RegisterPatient to FRONT_DESK", &[Name, Phone, Email, Mrn], "what it registered"),
    ("answer PatientService/UpdatePatient to PATIENT", &[Name, Phone, Email, Mrn], "her own record"),
    ("answer PatientService/MergePatients to MANAGER", &[Name, Phone, Email, Mrn], "the record that remains"),
    ("answer PatientService/GetPatient to SERVICE", &[Phone, Email], "services see contact alone"),
    ("answer PatientService/GetPatient to ", &[Name, Phone, Email, Mrn], "roles that may look at records"),
    ("answer PatientService/SearchPatients to SERVICE", &[Phone, Email], "services see contact alone"),
    (
        "answer PatientService/SearchPatients to ",
        &[Name, Phone, Email, Mrn],
        "roles that may look at records",
    ),
    (
        "answer PatientService/ExportPatients to ADMIN",
        &[Name, Phone, Email, Mrn],
        "broke the glass, and it is logged",
    ),
    ("answer IntakeService/GetIntake to PATIENT", &[Answer], "her own answers"),
    ("answer IntakeService/GetIntake to FRONT_DESK", &[Answer], "helps her fill the form in"),
    ("answer IntakeService/GetIntake to PROVIDER", &[Answer], "whom the answers are for"),
    ("answer IntakeService/GetIntake to ADMIN", &[Answer], "broke the glass, and it is logged"),
    (
        "table patients.patient.",
        &[Name, BirthDate],
        "names are searched with typos, which nothing sealed can be",
    ),
    ("table patients.name_word.", &[Name], "the words that typos are looked for in"),
    ("file postgres/", &[Name], "the two tables, their indexes and their write-ahead log"),
    ("file home/sandbox/", &[Phone], "the SMS provider's own records"),
    ("text's number", &[Phone], "where the text goes"),
];

fn allowed(place: &str, kind: Kind) -> Option<usize> {
    // The first row that begins like the place decides.
    let row = ALLOWED.iter().position(|(begins, _, _)| place.starts_with(begins))?;
    ALLOWED[row].1.contains(&kind).then_some(row)
}

/// What is where it may not be, each with its surroundings; and the rows of [`ALLOWED`] that were of use.
fn leaks(search: &Search, outputs: &[Output]) -> (Vec<String>, BTreeSet<usize>) {
    let (mut leaks, mut used) = (vec![], BTreeSet::new());
    for output in outputs {
        for (kind, around) in search.find(&output.bytes) {
            match allowed(&output.place, kind) {
                Some(row) => {
                    used.insert(row);
                }
                None => leaks.push(format!("{kind:?} in {}: {around:?}", output.place)),
            }
        }
    }
    (leaks, used)
}

/// Full names of the methods of patients, without the package.
fn methods() -> BTreeSet<String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "clinic.patients.v1");
    let names = services.flat_map(|service| {
        service.methods().map(|m| format!("{}/{}", service.name(), m.name())).collect::<Vec<_>>()
    });
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patients_data_is_found_where_it_belongs_and_nowhere_else() {
    let servers = Servers::start().await;
    let collector = Collector::start(servers.stop.clone()).await;
    let home = Home::new();
    let log = servers.folder().join("suite.log");
    let mut command = home.command(&["up", "--port", "0", "--no-demo", "--sim-clock", "--log", "debug"]);
    command
        .env("DATABASE_URL", servers.postgres.admin_url())
        .env("NATS_URL", servers.nats.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .stderr(File::create(&log).unwrap());
    let up = Up::started(command.spawn().unwrap(), &home.data()).await;

    let mut story = Story::new(&up, &servers);
    story.told_whole().await;
    story.pages().await;
    let Story { mut outputs, answered, .. } = story;
    assert!(methods().is_subset(&answered), "never answered: {:?}", methods().difference(&answered));
    outputs.push(Output::new("screen", up.screen.clone()));
    assert!(up.stop().await.success());

    outputs.push(collector.output());
    outputs.extend(rows(&mut servers.admin().await).await);
    outputs.extend(events(&servers).await);
    outputs.extend(files("file postgres", &servers.folder().join("postgres")));
    outputs.extend(files("file nats", &servers.folder().join("nats")));
    outputs.extend(files("file home", &home.data()));
    outputs.push(Output::new("log", fs::read(&log).unwrap()));
    seen(&outputs);

    let search = Search::new();
    let (found, used) = leaks(&search, &outputs);
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
    let idle: Vec<_> = (0..ALLOWED.len()).filter(|row| !used.contains(row)).map(|row| ALLOWED[row]).collect();
    assert!(idle.is_empty(), "what nothing needs is not allowed: {idle:?}");
    planted(&search, &mut outputs);
}

/// Fails unless every kind of output is there: a search of nothing finds nothing.
fn seen(outputs: &[Output]) {
    let bytes = |place: &str| -> usize {
        outputs.iter().filter(|o| o.place.starts_with(place)).map(|o| o.bytes.len()).sum()
    };
    for place in [
        "answer ",
        "error of ",
        "log",
        "spans",
        "metrics of patients",
        "stream APPOINTMENTS",
        "stream PATIENTS",
        "stream BILLING",
        "stream NOTIFY",
        "table patients.intake.answers",
        "table patients.access_log.",
        "table patients.outbox.",
        "table patients.request.",
        "table notify.message.body",
        "table billing.charge.",
        "table appointments.reservation.",
        "file postgres/",
        "file nats/",
        "file home/",
        "text's words",
        "payment provider",
    ] {
        assert!(bytes(place) > 0, "there is no {place}");
    }
    let log = outputs.iter().find(|o| o.place == "log").unwrap();
    assert!(log.bytes.windows(5).any(|word| word == b"DEBUG"), "the log is at its most talkative");
}

/// A leak of each kind, planted into each output that may not have it, is found there.
fn planted(search: &Search, outputs: &mut [Output]) {
    let mut places = BTreeSet::new();
    for output in outputs {
        // One file or message stands for all of its kind: the search is the same.
        let kind_of_place = output.place.split('/').next().unwrap_or_default().to_owned();
        if !places.insert(kind_of_place) {
            continue;
        }
        let whole = output.bytes.len();
        for (kind, leak) in LEAKS {
            output.bytes.extend_from_slice(leak);
            let (found, _) = leaks(search, std::slice::from_ref(output));
            let named = found.iter().any(|leak| leak.starts_with(&format!("{kind:?} in {}", output.place)));
            assert_eq!(named, allowed(&output.place, kind).is_none(), "{kind:?} in {}", output.place);
            output.bytes.truncate(whole);
        }
    }
}
