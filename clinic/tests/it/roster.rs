//! `clinic import patients` and `clinic export` against the running suite.

use std::process::Output;

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, ExportPatientsRequest, ListAccessLogRequest, MergePatientsRequest, Patient,
    SearchPatientsRequest,
};
use testkit::suite::RunningSuite;
use testkit::until;

use crate::process::{Home, words};

const HEADER: &str = "mrn,given_name,family_name,birth_date,phone,email,language,time_zone";
const REASON: &str = "copy for the auditor";

/// A suite, and the program beside it.
struct Office {
    suite: RunningSuite,
    home: Home,
}

impl Office {
    async fn open() -> Self {
        Self { suite: RunningSuite::start().await, home: Home::new() }
    }

    fn path(&self, name: &str) -> String {
        self.suite.servers.folder().join(name).to_str().unwrap().to_owned()
    }

    /// A file of these rows.
    fn file(&self, name: &str, rows: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, format!("{HEADER}\n{rows}")).unwrap();
        path
    }

    fn command(&self, role: Role, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.home.command(arguments);
        let token = self.suite.servers.token(role, "ines");
        command.env("TOKEN", token).env("GATEWAY_URL", &self.suite.urls.gateway);
        command
    }

    async fn import(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<&str> = ["import", "patients"].iter().chain(arguments).copied().collect();
        self.command(Role::FrontDesk, &arguments).output().await.unwrap()
    }

    /// Imports without a complaint; what it says.
    async fn imported(&self, arguments: &[&str]) -> String {
        let output = self.import(arguments).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{}", words(&output));
        printed(&output)
    }

    /// Exports to a file; its rows after the first, in order.
    async fn exported(&self, name: &str) -> Vec<String> {
        let path = self.path(name);
        let output =
            self.command(Role::Admin, &["export", &path, "--reason", REASON]).output().await.unwrap();
        assert!(output.status.success(), "{}", words(&output));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.remove(0), HEADER);
        lines.sort_unstable();
        lines
    }

    /// Everybody, as they are registered.
    async fn everybody(&self) -> Vec<Patient> {
        let (mut all, mut token) = (vec![], String::new());
        loop {
            let request = ExportPatientsRequest {
                page_size: 500,
                page_token: token,
                break_glass_reason: REASON.to_owned(),
            };
            let page = self.suite.admin().patients().export_patients(request).await.unwrap().into_inner();
            all.extend(page.patients);
            token = page.next_page_token;
            if token.is_empty() {
                return all;
            }
        }
    }

    /// Whether somebody is registered with that phone.
    async fn knows(&self, phone: &str) -> bool {
        let request = SearchPatientsRequest { phone: phone.to_owned(), ..Default::default() };
        let found = self.suite.desk().patients().search_patients(request).await.unwrap();
        !found.into_inner().matches.is_empty()
    }

    async fn named(&self, given_name: &str) -> Patient {
        self.everybody().await.into_iter().find(|p| p.given_name == given_name).unwrap()
    }
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn crowd_phone(n: usize) -> String {
    format!("+1202555{n:04}")
}

/// Rows of people who share nothing.
fn crowd(people: std::ops::Range<usize>) -> String {
    let row = |n: usize| {
        let (year, month, day) = (1930 + n / 336, 1 + n / 28 % 12, 1 + n % 28);
        let phone = crowd_phone(n);
        format!("C-{n},Given{n},Family{n},{year}-{month:02}-{day:02},{phone},c{n}@example.org,,\n")
    };
    people.map(row).collect()
}

#[tokio::test]
async fn a_file_comes_in_once_and_a_dry_run_changes_nothing() {
    let office = Office::open().await;
    let file = office.file(
        "people.csv",
        "M-1,Ada,King,1915-12-10,(202) 555-0123,ada@example.org,en,America/New_York\n\
         ,José,Núñez,1990-02-28,,,es-MX,\n\
         M-3,Madonna,,1958-08-16,,,,\n",
    );
    let dry = office.imported(&[&file, "--dry-run"]).await;
    assert_eq!(dry, "would register 3, would update 0, already there 0, failed 0; nothing was changed\n");
    assert_eq!(office.everybody().await, []);

    assert_eq!(office.imported(&[&file]).await, "registered 3, updated 0, already there 0, failed 0\n");
    let everybody = office.everybody().await;
    assert_eq!(office.named("Ada").await.phone, "+12025550123");
    assert!(!office.named("José").await.mrn.is_empty());

    for again in [&[file.as_str()][..], &[&file, "--update"], &[&file, "--allow-duplicates"]] {
        let said = office.imported(again).await;
        assert_eq!(said, "registered 0, updated 0, already there 3, failed 0\n");
    }
    // The same people in another file: its requests are new, its people are not.
    let file = office.file("later.csv", "M-3,Madonna,,1958-08-16,,,,\n,José,Núñez,1990-02-28,,,es-MX,\n");
    assert_eq!(office.imported(&[&file]).await, "registered 0, updated 0, already there 2, failed 0\n");
    assert_eq!(office.everybody().await, everybody);
}

#[tokio::test]
async fn bad_rows_are_named_with_all_their_faults_and_the_good_ones_come_in() {
    let office = Office::open().await;
    let file = office.file(
        "people.csv",
        "m 1,Ada,King,1915-12-10,,,,\n\
         M-2,Bo,King,1990-12-31,12,nobody,,Mars\n\
         M-3,Cleo,King,31.12.1990,,,,\n\
         M-4,Dee,King,1990-12-31,,,,\n\
         M-5,,King,,,,,\n\
         M-6,Finn\n",
    );
    let output = office.import(&[&file]).await;
    let said = words(&output);
    assert!(!output.status.success());
    assert_eq!(printed(&output), "registered 1, updated 0, already there 0, failed 5\n");
    for (row, parts) in [
        (2, &["mrn"][..]),
        (3, &["phone", "email", "time_zone"]),
        (4, &["birth_date must be a date such as 1990-12-31"]),
        (6, &["given_name", "birth_date is required"]),
        (7, &["2 cells"]),
    ] {
        let line = said.lines().find(|line| line.starts_with(&format!("row {row} is not in: "))).unwrap();
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(said.contains("5 rows are not in"), "{said}");
    assert!(!said.contains("nobody") && !said.contains("Cleo"), "a complaint tells no data: {said}");

    let mended = office.file("people.csv", "M-4,Dee,King,1990-12-31,,,,\nM-6,Finn,King,1991-12-31,,,,\n");
    assert_eq!(office.imported(&[&mended]).await, "registered 1, updated 0, already there 1, failed 0\n");

    let cut = office.file("cut.csv", &format!("{}X-1,\"{}", crowd(0..3), "x".repeat(2_000_000)));
    let output = office.import(&[&cut]).await;
    assert!(!output.status.success() && words(&output).contains("row 5: it is longer"), "{}", words(&output));
    assert_eq!(printed(&output), "registered 3, updated 0, already there 0, failed 0\n");
}

#[tokio::test]
async fn other_data_under_a_known_number_is_a_conflict_unless_it_is_to_be_taken_over() {
    let office = Office::open().await;
    let file = office.file("people.csv", "M-1,Ada,King,1985-12-10,202-555-0123,ada@example.org,en,\n");
    office.imported(&[&file]).await;
    let before = office.named("Ada").await;

    // Another notation of a number and empty cells say nothing new.
    let same = office.file("same.csv", "M-1,Ada,King,1985-12-10,+1 (202) 555 0123,,,\n");
    assert_eq!(office.imported(&[&same]).await, "registered 0, updated 0, already there 1, failed 0\n");

    let moved = office.file("moved.csv", "M-1,Ada,Lovelace,1985-12-10,202-555-0199,,,\n");
    let output = office.import(&[&moved]).await;
    let said = words(&output);
    assert!(!output.status.success());
    let told = format!(
        "row 2 is not in: its MRN is registered with another family_name, phone (patient {})",
        before.id
    );
    assert!(said.contains(&told) && said.contains("--update"), "{said}");
    let dry = office.imported(&[&moved, "--update", "--dry-run"]).await;
    assert!(dry.starts_with("would register 0, would update 1,"), "{dry}");
    assert_eq!(office.named("Ada").await, before);

    assert_eq!(
        office.imported(&[&moved, "--update"]).await,
        "registered 0, updated 1, already there 0, failed 0\n"
    );
    let after = office.named("Ada").await;
    assert_eq!((after.id.as_str(), after.family_name.as_str()), (before.id.as_str(), "Lovelace"));
    assert_eq!((after.phone.as_str(), after.email.as_str()), ("+12025550199", "ada@example.org"));
}

#[tokio::test]
async fn a_likely_double_is_named_and_waits_for_a_word_while_families_come_in() {
    let office = Office::open().await;
    let file = office.file("people.csv", "M-1,Ana,Lopez,1985-12-10,202-555-0123,,,\n");
    office.imported(&[&file]).await;
    let ana = office.named("Ana").await;

    let file = office.file(
        "more.csv",
        "M-2,Anna,Lopez,1985-12-10,,,,\n\
         M-3,Luis,Garcia,2015-12-10,(202) 5550123,,,\n\
         M-4,Zoe,Young,1999-01-01,,,,\n\
         M-5,Zoe,Young,1999-01-01,,,,\n\
         M-4,Zoe,Young,1999-01-01,,,,\n",
    );
    let output = office.import(&[&file]).await;
    let said = words(&output);
    assert!(!output.status.success());
    assert_eq!(printed(&output), "registered 2, updated 0, already there 1, failed 2\n", "{said}");
    let held = format!("row 2 is not in: probably patient {} (alike in name, birth_date)", ana.id);
    assert!(said.contains(&held) && said.contains("--allow-duplicates"), "{said}");
    let family = format!("row 3 is registered: probably patient {} (alike in phone)", ana.id);
    assert!(said.contains(&family), "{said}");
    assert!(said.contains("row 5 is not in: probably patient "), "{said}");

    let output = office.import(&[&file, "--allow-duplicates"]).await;
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(printed(&output), "registered 2, updated 0, already there 3, failed 0\n");
    assert!(words(&output).contains("row 2 is registered: probably patient "), "{}", words(&output));

    // Whoever was merged into another is registered under that one.
    let (survivor, merged) = (office.named("Ana").await, office.named("Anna").await);
    let request = MergePatientsRequest {
        surviving_patient_id: survivor.id,
        surviving_etag: survivor.etag,
        merged_patient_id: merged.id,
        merged_etag: merged.etag,
        reason: "one person with two records".to_owned(),
        ..Default::default()
    };
    office.suite.as_role(Role::Manager, "max").patients().merge_patients(request).await.unwrap();
    let said = office.imported(&[&file, "--update"]).await;
    assert_eq!(said, "registered 0, updated 0, already there 5, failed 0\n");
}

#[tokio::test]
async fn killed_in_the_middle_it_goes_on_and_nobody_is_registered_twice() {
    const PEOPLE: usize = 1_500;
    let office = Office::open().await;
    let nameless: String =
        crowd(PEOPLE / 2..PEOPLE).lines().map(|l| format!("{}\n", &l[l.find(',').unwrap()..])).collect();
    let file = office.file("crowd.csv", &(crowd(0..PEOPLE / 2) + &nameless));
    for share in [PEOPLE / 5, PEOPLE * 3 / 5] {
        let mut child = office.command(Role::FrontDesk, &["import", "patients", &file]).spawn().unwrap();
        until("a part of the crowd", async || office.knows(&crowd_phone(share)).await.then_some(())).await;
        child.kill().await.unwrap();
        assert!(child.wait().await.unwrap().code().is_none(), "it was killed");
        assert!(office.everybody().await.len() < PEOPLE);
    }
    let output = office.import(&[&file]).await;
    assert!(output.status.success(), "{}", words(&output));
    let everybody = office.everybody().await;
    assert_eq!(everybody.len(), PEOPLE);
    let names: std::collections::HashSet<_> = everybody.iter().map(|p| &p.given_name).collect();
    assert_eq!(names.len(), PEOPLE);
    let again = printed(&office.import(&[&file]).await);
    assert_eq!(again, format!("registered 0, updated 0, already there {PEOPLE}, failed 0\n"));
}

#[tokio::test]
async fn what_was_exported_comes_into_another_suite_as_it_was() {
    let (old, new) = (Office::open().await, Office::open().await);
    let file = old.file(
        "people.csv",
        "M-1,Ada,\"King, \"\"Countess\"\"\",1915-12-10,+44 20 7123 4567,ada@example.org,en,Europe/London\n\
         ,José,Núñez,1990-02-28,,,es-MX,\n\
         =2,\"=HYPERLINK(\"\"x\"\")\",'t Hooft,1958-08-16,,,,\n\
         -2,@SUM,-Minus,1958-08-17,312-555-0123,,,\n\
         M-5,\"Two\nlines\",'=1,1958-08-18,,,,\n",
    );
    let output = old.import(&[&file]).await;
    assert_eq!(
        printed(&output),
        "registered 4, updated 0, already there 0, failed 1\n",
        "{}",
        words(&output)
    );
    let file = old.file("more.csv", &crowd(0..700));
    old.imported(&[&file]).await;

    let exported = old.exported("all.csv").await;
    assert!(exported.iter().any(|row| row.contains(",'+442071234567,")), "{exported:?}");
    assert!(exported.iter().any(|row| row.starts_with("'-2,'@SUM,'-Minus,")), "{exported:?}");
    let all = old.path("all.csv");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&all).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let log = ListAccessLogRequest { actor: "ines".to_owned(), page_size: 500, ..Default::default() };
    let log = old.suite.admin().patients().list_access_log(log).await.unwrap().into_inner().entries;
    assert!(log.iter().all(|e| e.action() == AccessAction::Export && e.break_glass_reason == REASON));

    let said = old.imported(&[&all]).await;
    assert_eq!(said, "registered 0, updated 0, already there 704, failed 0\n");
    let output = new.import(&[&all]).await;
    assert_eq!(
        printed(&output),
        "registered 704, updated 0, already there 0, failed 0\n",
        "{}",
        words(&output)
    );
    assert_eq!(new.exported("all.csv").await, exported);
    let bare = |patients: Vec<Patient>| {
        let mut bare: Vec<_> = patients
            .into_iter()
            .map(|p| (p.mrn, p.given_name, p.family_name, p.phone, p.email, p.language, p.time_zone))
            .collect();
        bare.sort_unstable();
        bare
    };
    assert_eq!(bare(new.everybody().await), bare(old.everybody().await));
}

#[tokio::test]
async fn who_may_not_is_told_how_and_no_half_file_stays() {
    let office = Office::open().await;
    let file = office.file("people.csv", "M-1,Ada,King,1985-12-10,,,,\n");
    let run = async |role: Option<Role>, arguments: &[&str]| {
        let mut command = office.command(role.unwrap_or(Role::Patient), arguments);
        if role.is_none() {
            command.env_remove("TOKEN");
        }
        let output = command.output().await.unwrap();
        assert!(!output.status.success(), "{}", printed(&output));
        words(&output)
    };
    let (import, export) = (["import", "patients", &file], office.path("all.csv"));
    let export = ["export", &export, "--reason", REASON];
    for (role, arguments, said) in [
        (None, &import[..], "no token: run export TOKEN=$(clinic token --role front_desk)"),
        (Some(Role::Provider), &import, "clinic token --role front_desk"),
        (None, &export, "no token: run export TOKEN=$(clinic token --role admin)"),
        (Some(Role::FrontDesk), &export, "clinic token --role admin"),
        (Some(Role::Admin), &["export", export[1], "--reason", "why"], "10 to 500 characters"),
        (Some(Role::Admin), &["export", &file, "--reason", REASON], "is there already"),
        (Some(Role::Admin), &["export", "/nowhere/all.csv", "--reason", REASON], "cannot be written"),
        (Some(Role::FrontDesk), &["import", "patients", "nowhere.csv"], "nowhere.csv: it cannot be read"),
        (
            Some(Role::FrontDesk),
            &["import", "patients", &file, "--gateway", "http://127.0.0.1:9"],
            "clinic up",
        ),
    ] {
        let told = run(role, arguments).await;
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    let left = std::fs::read_dir(office.suite.servers.folder()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("all.csv")), "{left:?}");
}

#[tokio::test]
async fn an_export_to_standard_output_is_the_file_alone() {
    let office = Office::open().await;
    let file = office.file("people.csv", "M-1,Ada,King,1985-12-10,,,,\n");
    office.imported(&[&file]).await;
    let output = office.command(Role::Admin, &["export", "-", "--reason", REASON]).output().await.unwrap();
    assert_eq!(printed(&output), format!("{HEADER}\nM-1,Ada,King,1985-12-10,,,,\n"), "{}", words(&output));
}

#[tokio::test]
async fn their_help_has_examples() {
    for command in [&["import", "patients", "--help"][..], &["export", "--help"]] {
        let output = Home::new().run(command).await;
        assert!(printed(&output).contains("Examples:"), "{}", printed(&output));
    }
}
