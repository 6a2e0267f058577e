//! Contact data at rest: sealed, found again, moved to new keys, and never lost to a wrong one.

use std::fs;

use kit::db::Db;
use patients::app::App;
use patients::seal::Keys;
use patients::store::sealed;
use proto::clinic::patients::v1::{
    Patient, RegisterPatientRequest, SearchPatientsRequest, UpdatePatientRequest,
};
use tokio_util::sync::CancellationToken;

use crate::{Client, Suite, config, get, nobody, someone};

impl Suite {
    fn keys_file(&self) -> std::path::PathBuf {
        self.servers.identity().service_key_file.with_file_name("patients.keys")
    }

    fn db(&self) -> Db {
        Db::new(&self.servers.database_url(patients::NAME), patients::NAME, 4).expect("a pool")
    }

    /// A second replica's use cases.
    pub(crate) async fn app(&self) -> App {
        let keys = sealed::keys(&self.db(), &self.keys_file()).await.expect("the keys");
        App::new(self.db(), keys, self.servers.clock.clone())
    }

    async fn found_by_phone(&self, phone: &str) -> Vec<Patient> {
        let search = SearchPatientsRequest { phone: phone.to_owned(), ..Default::default() };
        let found = self.desk().search_patients(search).await.expect("found").into_inner().matches;
        found.into_iter().map(|m| m.patient.expect("shown")).collect()
    }
}

fn reachable() -> Patient {
    let ada = someone("Ada", "King", "202-555-0123");
    Patient { mrn: "SECRET-MRN-77".to_owned(), email: "ada.king@example.org".to_owned(), ..ada }
}

#[tokio::test]
async fn no_table_shows_a_phone_an_address_or_an_mrn() {
    let suite = Suite::start().await;
    let request =
        RegisterPatientRequest { request_id: nobody(), patient: Some(reachable()), ..Default::default() };
    let first = suite.desk().register_patient(request.clone()).await.expect("registered").into_inner();
    let again = suite.desk().register_patient(request).await.expect("answered again").into_inner();
    assert_eq!(first, again);

    let mut admin = suite.servers.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'patients'",
    )
    .fetch_all(&mut admin)
    .await
    .expect("the tables");
    let mut rows = 0;
    for table in tables {
        let sql = format!("select t::text from {table} t");
        let texts: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut admin).await.expect("its rows");
        rows += texts.len();
        for secret in ["2025550123", "ada.king@example.org", "SECRET-MRN-77", "America/Chicago"] {
            for spelling in [secret.to_owned(), hex::encode(secret)] {
                assert!(!texts.iter().any(|text| text.contains(&spelling)), "{secret} stands in {table}");
            }
        }
    }
    assert!(rows > 0);
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_one_clear_error_and_loses_nothing() {
    let suite = Suite::start().await;
    let patient = suite.registered(reachable()).await;
    let (file, aside) = (suite.keys_file(), suite.servers.folder().join("aside"));
    fs::rename(&file, &aside).expect("moved");
    let missing = sealed::keys(&suite.db(), &file).await.expect_err("no file");
    assert!(format!("{missing:#}").contains("put the file back"), "{missing:#}");
    assert!(!file.exists(), "no new keys are made where old ones are in use");

    Keys::create(&file).expect("other keys");
    let wrong = sealed::keys(&suite.db(), &file).await.expect_err("other keys");
    assert!(format!("{wrong:#}").contains("another"), "{wrong:#}");
    let half = fs::read_to_string(&aside).expect("the keys").replace("\n1 ", "\n2 ");
    fs::write(&file, half).expect("written");
    let lacking = sealed::keys(&suite.db(), &file).await.expect_err("key 1 is not there");
    assert!(format!("{lacking:#}").contains("key 1"), "{lacking:#}");

    fs::rename(&aside, &file).expect("put back");
    sealed::keys(&suite.db(), &file).await.expect("the right keys");
    let read = suite.desk().get_patient(get(&patient.id)).await.expect("all there").into_inner();
    assert_eq!(read, patient);
}

#[tokio::test]
async fn a_replica_with_a_wrong_key_does_not_start_and_says_which() {
    let suite = Suite::start().await;
    let patient = suite.registered(reachable()).await;
    let other = suite.servers.folder().join("other.keys");
    Keys::create(&other).expect("other keys");
    for (file, words) in [(other, "another"), (suite.servers.folder().join("none.keys"), "put the file back")]
    {
        let (listener, _) = testkit::listener().await;
        let config = patients::Config { keys: Some(file.clone()), ..config(&suite.servers) };
        let run =
            patients::run(listener, config, suite.servers.clock.clone(), suite.servers.stop.child_token());
        let refused = format!("{:#}", run.await.expect_err("it must not start"));
        assert!(refused.contains(words) && refused.contains("nothing was changed"), "{refused}");
        assert!(
            refused.contains(file.file_name().and_then(|name| name.to_str()).expect("a name")),
            "{refused}"
        );
    }
    assert_eq!(suite.desk().get_patient(get(&patient.id)).await.expect("all there").into_inner(), patient);
}

/// Registers patients, corrects them and looks them up again until told to stop; answers them as they are in the end.
async fn at_work(mut here: Client, mut there: Client, shift: u32, stop: CancellationToken) -> Vec<Patient> {
    let mut patients = vec![];
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let phone = format!("+1202555{shift}{:03}", 100 + n % 100);
        let ada = Patient { email: format!("ada.{shift}.{n}@example.org"), ..someone("Ada", "King", &phone) };
        let request = RegisterPatientRequest { patient: Some(ada), ..Default::default() };
        let request = RegisterPatientRequest { request_id: nobody(), ..request };
        let first = here.register_patient(request.clone()).await.expect("registered").into_inner();
        let again =
            there.register_patient(request).await.expect("answered by the other replica").into_inner();
        assert_eq!(first, again);
        let fields =
            Patient { email: format!("king.{shift}.{n}@example.org"), ..first.patient.expect("shown") };
        let change = UpdatePatientRequest {
            patient: Some(fields),
            update_mask: Some(prost_types::FieldMask { paths: vec!["email".into()] }),
            ..Default::default()
        };
        let changed = there.update_patient(change).await.expect("corrected").into_inner();
        let search = SearchPatientsRequest { mrn: changed.mrn.clone(), ..Default::default() };
        let found = here.search_patients(search).await.expect("found").into_inner().matches;
        assert_eq!(found[0].patient.as_ref(), Some(&changed));
        patients.push(changed);
    }
    patients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_added_while_two_replicas_work_and_no_call_fails() {
    const NEWEST: u32 = 3;
    let suite = Suite::start().await;
    let (one, two) = (suite.desk(), suite.replica().await);
    testkit::until("the second replica", async || {
        two.clone()
            .search_patients(SearchPatientsRequest { mrn: "M".into(), ..Default::default() })
            .await
            .ok()
    })
    .await;
    let stop = CancellationToken::new();
    let work = [(&one, &two), (&two, &one)].into_iter().zip(1..);
    let work: Vec<_> = work
        .map(|((here, there), shift)| {
            tokio::spawn(at_work(here.clone(), there.clone(), shift, stop.child_token()))
        })
        .collect();
    for id in 2..=NEWEST {
        let count = "select count(*) from patients.contact where substring(sealed from 1 for 4) = $1";
        assert_eq!(Keys::add(&suite.keys_file()).expect("added"), id);
        let (newest, before) = (id.to_be_bytes(), (id - 1).to_be_bytes());
        testkit::until("data under the newest key alone", async || {
            let mut admin = suite.servers.admin().await;
            let sealed = async |by: [u8; 4], admin: &mut sqlx::PgConnection| -> i64 {
                sqlx::query_scalar(count).bind(by.to_vec()).fetch_one(admin).await.expect("counted")
            };
            let (new, old) = (sealed(newest, &mut admin).await, sealed(before, &mut admin).await);
            (new > 0 && old == 0).then_some(())
        })
        .await;
    }
    stop.cancel();
    let mut count = 0;
    for work in work {
        for patient in work.await.expect("no call failed") {
            let read = one.clone().get_patient(get(&patient.id)).await.expect("read").into_inner();
            assert_eq!(read, patient);
            count += 1;
        }
    }
    assert!(count > 0, "nobody worked meanwhile");
}

#[tokio::test]
async fn a_new_key_seals_everything_anew_while_patients_are_read() {
    const PATIENTS: usize = 20;
    let suite = Suite::start().await;
    let mut patients = vec![];
    for n in 0..PATIENTS {
        patients.push(suite.registered(someone("Ada", "King", &format!("202-555-01{n:02}"))).await);
    }
    let replica = suite.app().await;
    assert_eq!(Keys::add(&suite.keys_file()).expect("added"), 2);
    let reading = async {
        for patient in &patients {
            let read = suite.desk().get_patient(get(&patient.id)).await.expect("read").into_inner();
            assert_eq!(&read, patient);
        }
    };
    let (rotated, ()) = tokio::join!(replica.rotate(), reading);
    rotated.expect("sealed anew");
    testkit::until("the end of the old key", async || {
        let old: i64 = sqlx::query_scalar(
            "select count(*) from patients.contact c join patients.patient p on p.id = c.patient_id
             where substring(c.sealed from 1 for 4) <> '\\x00000002'
                or substring(p.mrn_sealed from 1 for 4) <> '\\x00000002'",
        )
        .fetch_one(&mut suite.servers.admin().await)
        .await
        .expect("counted");
        (old == 0).then_some(())
    })
    .await;
    reading_all(&suite, &patients).await;
    assert_eq!(replica.rotate().await.expect("nothing left"), 0);
}

async fn reading_all(suite: &Suite, patients: &[Patient]) {
    for patient in patients {
        assert_eq!(suite.found_by_phone(&patient.phone).await, std::slice::from_ref(patient));
    }
}

#[tokio::test]
async fn what_an_earlier_release_left_in_plain_text_is_sealed_at_the_start() {
    let suite = Suite::start().await;
    let patient = suite.registered(reachable()).await;
    let mut admin = suite.servers.admin().await;
    for sql in [
        "update patients.contact set sealed = null, phone_hash = null, email_hash = null, phone = '+12025550123',
             email = 'ada.king@example.org', language = 'es-MX', time_zone = 'America/Chicago'",
        "update patients.patient set mrn_sealed = null, mrn_hash = null, mrn = 'SECRET-MRN-77'",
    ] {
        sqlx::query(sql).execute(&mut admin).await.expect("as it was");
    }
    suite.app().await.seal_plain().await.expect("sealed");
    assert_eq!(suite.found_by_phone("(202) 555-0123").await, [patient]);
    let plain: i64 = sqlx::query_scalar(
        "select count(*) from patients.contact c, patients.patient p
         where c.phone is not null or c.email is not null or c.time_zone is not null or p.mrn is not null",
    )
    .fetch_one(&mut admin)
    .await
    .expect("counted");
    assert_eq!(plain, 0);
}
