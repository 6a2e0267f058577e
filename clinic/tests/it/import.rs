//! `clinic import ics` against the running suite.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::{ListBlackoutsRequest, ListExceptionsRequest};
use testkit::network::{Network, ZONE, in_days};
use testkit::suite::RunningSuite;
use testkit::until;
use tokio::io::AsyncWriteExt as _;

use crate::process::{Home, words};

/// A suite, a small network in it, and a manager with the program.
struct Desk {
    suite: RunningSuite,
    network: Network,
    home: Home,
    token: String,
}

impl Desk {
    async fn start() -> Self {
        let suite = RunningSuite::start().await;
        let network = suite.network().await;
        let token = suite.servers.token(Role::Manager, "manager");
        Self { suite, network, home: Home::new(), token }
    }

    /// A calendar file with these lines of events.
    fn file(&self, name: &str, events: &str) -> String {
        let file: PathBuf = self.suite.servers.folder().join(name);
        std::fs::write(&file, format!("BEGIN:VCALENDAR\r\n{events}END:VCALENDAR\r\n")).unwrap();
        file.to_str().unwrap().to_owned()
    }

    async fn import(&self, token: &str, arguments: &[&str]) -> Output {
        let arguments: Vec<&str> = ["import", "ics"].iter().chain(arguments).copied().collect();
        let mut command = self.home.command(&arguments);
        command.env("TOKEN", token).env("GATEWAY_URL", &self.suite.urls.gateway);
        command.output().await.unwrap()
    }

    /// Imports as a manager; what the last line says.
    async fn imported(&self, arguments: &[&str]) -> String {
        let output = self.import(&self.token, arguments).await;
        assert!(output.status.success(), "{}", words(&output));
        last_line(&output)
    }

    /// Starts of free visits that lie between two instants.
    async fn free(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> usize {
        let slots = self.network.slots(&self.suite.desk(), &self.network.free_visit, from).await;
        let starts = slots.iter().filter_map(|slot| slot.interval?.start_time);
        starts.filter(|start| (from.timestamp()..until.timestamp()).contains(&start.seconds)).count()
    }
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn event(uid: &str, lines: &str) -> String {
    format!("BEGIN:VEVENT\r\nUID:{uid}\r\nSUMMARY:{uid}\r\n{lines}END:VEVENT\r\n")
}

#[tokio::test]
async fn a_holiday_closes_the_clinic_once_and_a_dry_run_nothing() {
    let desk = Desk::start().await;
    let clinic = desk.network.clinic.as_str();
    let day = in_days(desk.suite.servers.clock.now(), 5).with_timezone(&ZONE).date_naive();
    let midnight = day.and_time(chrono::NaiveTime::MIN).and_local_timezone(ZONE).unwrap().to_utc();
    let (noon, later) = (midnight + TimeDelta::hours(12), midnight + TimeDelta::hours(20));
    let holiday = event("holiday", &format!("DTSTART;VALUE=DATE:{}\r\n", day.format("%Y%m%d")));
    let free =
        event("maybe", &format!("DTSTART;VALUE=DATE:{}\r\nTRANSP:TRANSPARENT\r\n", day.format("%Y%m%d")));
    let file = desk.file("holidays.ics", &(holiday + &free));
    assert!(desk.free(noon, later).await > 0);

    let dry = desk.imported(&[&file, "--clinic", clinic, "--dry-run"]).await;
    assert_eq!(dry, "would add 1, skipped 1 (1 free); nothing was changed");
    assert!(desk.free(noon, later).await > 0);

    let first = desk.imported(&[&file, "--clinic", clinic]).await;
    assert_eq!(first, "added 1, already there 0, skipped 1 (1 free)");
    until("a closed day", async || (desk.free(noon, later).await == 0).then_some(())).await;
    let again = desk.imported(&[&file, "--clinic", clinic]).await;
    assert_eq!(again, "added 0, already there 1, skipped 1 (1 free)");
    let listed = desk.suite.admin().calendar().list_blackouts(ListBlackoutsRequest::default()).await.unwrap();
    let names: Vec<_> = listed.into_inner().blackouts.into_iter().map(|b| (b.name, b.clinic_id)).collect();
    assert_eq!(names, [("holiday".to_owned(), clinic.to_owned())]);

    let network = desk.imported(&[&file, "--network", "--include-free"]).await;
    assert_eq!(network, "added 2, already there 0, skipped 0");
}

#[tokio::test]
async fn busy_time_becomes_time_off_and_goes_on_where_it_stopped() {
    let desk = Desk::start().await;
    let provider = desk.network.provider.as_str();
    let start = in_days(desk.suite.servers.clock.now(), 7);
    let busy = |uid: &str, days: i64, minutes: i64| {
        let (from, until) =
            (start + TimeDelta::days(days), start + TimeDelta::days(days) + TimeDelta::minutes(minutes));
        let time = |t: DateTime<Utc>| t.format("%Y%m%dT%H%M%SZ").to_string();
        event(uid, &format!("DTSTART:{}\r\nDTEND:{}\r\n", time(from), time(until)))
    };
    let end = start + TimeDelta::hours(1);
    assert!(desk.free(start, end).await > 0);
    let file = desk.file("busy.ics", &busy("round", 0, 60));
    assert_eq!(desk.imported(&[&file, "--provider", provider]).await, "added 1, already there 0, skipped 0");
    until("time off", async || (desk.free(start, end).await == 0).then_some(())).await;

    // The same calendar a week later: one event more, of 42 minutes.
    let file = desk.file("busy.ics", &(busy("round", 0, 60) + &busy("lecture", 1, 42)));
    let more = desk.imported(&[&file, "--provider", provider, "--cause", "training"]).await;
    assert_eq!(more, "added 1, already there 1, skipped 0; 1 widened to whole 5 minutes");
    let request = ListExceptionsRequest { provider_id: provider.to_owned(), ..Default::default() };
    let listed = desk.suite.admin().calendar().list_exceptions(request).await.unwrap().into_inner();
    let minutes = listed.exceptions.iter().map(|exception| {
        let interval = exception.interval.unwrap();
        (interval.end_time.unwrap().seconds - interval.start_time.unwrap().seconds) / 60
    });
    let mut minutes: Vec<_> = minutes.collect();
    minutes.sort_unstable();
    assert_eq!(minutes, [45, 60]);

    let nobody = uuid::Uuid::now_v7().to_string();
    let refused = desk.import(&desk.token, &[&file, "--provider", &nobody]).await;
    let said = words(&refused);
    assert!(!refused.status.success(), "{said}");
    for part in ["line ", "was not added", "0 of 2", "the same command", "PROVIDER_NOT_FOUND"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn without_a_managers_token_it_says_how_to_get_one() {
    let desk = Desk::start().await;
    let file = desk.file("one.ics", &event("one", "DTSTART;VALUE=DATE:20991231\r\n"));
    let front_desk = desk.suite.servers.token(Role::FrontDesk, "desk");
    for token in ["", "nonsense"] {
        let refused = desk.import(token, &[&file, "--clinic", &desk.network.clinic]).await;
        let said = words(&refused);
        assert!(!refused.status.success() && said.contains("clinic token --role manager"), "{said}");
    }
    let file = desk.file("one.ics", &event("one", "DTSTART;VALUE=DATE:20991231\r\n"));
    let refused = desk.import(&front_desk, &[&file, "--network", "--from", "2099-12-01"]).await;
    let said = words(&refused);
    assert!(!refused.status.success() && said.contains("clinic token --role manager"), "{said}");
    assert!(said.contains("ROLE_REQUIRED"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_done_is_said_before_anything_is_asked() {
    let home = Home::new();
    let run = async |arguments: &[&str], input: &str| {
        let arguments: Vec<&str> = ["import", "ics"].iter().chain(arguments).copied().collect();
        let mut command = home.command(&arguments);
        command.env_remove("TOKEN").env_remove("GATEWAY_URL").stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Who refuses the arguments reads nothing.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let provider = uuid::Uuid::nil().to_string();
    let floating = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20991231T090000\nDTEND:20991231T100000\nEND:VEVENT\nEND:VCALENDAR\n";
    let dry = ["-", "--provider", provider.as_str(), "--dry-run", "--from", "2099-12-01"];
    for (arguments, input, said) in [
        (&["-"][..], "", "--provider"),
        (&["-", "--network", "--provider", &provider], "", "--network"),
        (&["-", "--network", "--from", "tomorrow"], "", "2026-11-26"),
        (
            &["-", "--network", "--dry-run", "--from", "2099-12-01", "--until", "2099-11-01"],
            "",
            "before --from",
        ),
        (&["-", "--network", "--dry-run"], "hello", "line 1"),
        (&["-", "--network", "--dry-run"], "", "line 1"),
        (&["nowhere.ics", "--network"], "", "nowhere.ics cannot be read"),
        (&["-", "--network"], floating, "clinic token --role manager"),
        (&dry, floating, "--time-zone"),
        (
            &["-", "--clinic", &provider, "--gateway", "http://127.0.0.1:9", "--token", "t"],
            floating,
            "clinic up",
        ),
    ] {
        let refused = run(arguments, input).await;
        assert!(
            !refused.status.success() && words(&refused).contains(said),
            "{arguments:?}: {}",
            words(&refused)
        );
    }
    let zoned: Vec<&str> = dry.iter().chain(&["--time-zone", "Asia/Kolkata"]).copied().collect();
    let shown = run(&zoned, floating).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(
        shown,
        "2099-12-31T09:00:00+05:30 to 2099-12-31T10:00:00+05:30  Closed\nwould add 1, skipped 0; nothing was changed\n"
    );
}

#[tokio::test]
async fn its_help_has_examples() {
    let output = Home::new().run(&["import", "ics", "--help"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Examples:") && text.contains("--include-free"), "{text}");
}
