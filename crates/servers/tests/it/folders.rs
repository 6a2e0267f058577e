//! Who may use a folder, and when it goes.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

use servers::{DataDir, Error, Postgres, PostgresOptions, RunFolder};

use crate::{binaries, nats, until};

#[test]
fn a_second_suite_in_one_data_folder_is_told_who_has_it() {
    let run = RunFolder::create(None).unwrap();
    let folder = run.path().join("data");
    let first = DataDir::lock(&folder).unwrap();
    assert_eq!(
        DataDir::lock(&folder).unwrap_err().to_string(),
        format!(
            "the data folder {} is in use by process {}: stop it, or choose another folder with --data-dir",
            folder.display(),
            std::process::id()
        )
    );
    drop(first);
    DataDir::lock(&folder).unwrap();
}

#[tokio::test]
async fn a_second_server_in_one_folder_is_refused() {
    let run = RunFolder::create(None).unwrap();
    let options = || PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable: false };
    let _first = Postgres::start(&binaries().await, options()).await.unwrap();
    let refused = Postgres::start(&binaries().await, options()).await.unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
}

#[tokio::test]
async fn a_run_folder_goes_with_the_last_of_its_owner_and_its_servers() {
    let run = RunFolder::create(None).unwrap();
    let path = run.path().to_owned();
    let nats = nats(&run).await;
    drop(run);
    assert!(path.exists());
    drop(nats);
    until("the run folder is gone", || !path.exists()).await;
}

#[test]
fn a_dropped_run_folder_is_gone_at_once() {
    let run = RunFolder::create(None).unwrap();
    let path = run.path().to_owned();
    assert!(path.is_dir());
    drop(run);
    assert!(!path.exists());
}

#[test]
fn run_folders_without_an_owner_are_swept_and_others_are_not() {
    let outer = RunFolder::create(None).unwrap();
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let abandoned = outer.path().join(format!("clinic-run-{}-0", ended.id()));
    let other = outer.path().join("clinic-run-notes");
    fs::create_dir_all(abandoned.join("postgres")).unwrap();
    fs::create_dir(&other).unwrap();
    let living = RunFolder::create(Some(outer.path())).unwrap();
    let next = RunFolder::create(Some(outer.path())).unwrap();
    assert!(!abandoned.exists());
    assert!(other.exists() && living.path().exists() && next.path().exists());
}

#[test]
fn roots_servers_are_not_put_where_their_user_cannot_go() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let run = RunFolder::create(None).unwrap();
    let closed = run.path().join("closed");
    fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let wanted = closed.join("data");
    let refused = DataDir::lock(&wanted).unwrap_err().to_string();
    assert!(refused.contains("choose a folder that everyone may enter"), "{refused}");
    assert!(!wanted.exists());

    let instead = servers::reachable_data_dir(&wanted).unwrap();
    assert!(
        instead.starts_with("/var/lib/clinic-suite") && instead.ends_with(flat_name(&wanted)),
        "{instead:?}"
    );
    assert_eq!(servers::reachable_data_dir(run.path()).unwrap(), run.path());
}

fn flat_name(path: &std::path::Path) -> String {
    path.display().to_string().trim_start_matches('/').replace('/', "-")
}
