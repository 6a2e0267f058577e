//! Appointments against a reference model: random calls, events, times, failures and restarts. After every command the answer and
//! the tables are as the model says, and rules that no state may break are read from the tables alone.
//!
//! A failing case is made short, printed as a list, and kept in `model.regressions` to be tried first from then on.
//! `PROPTEST_CASES` says how many cases are tried; a fault that was found becomes a case of `failed_once`.

mod commands;
mod failed_once;
mod neighbours;
mod reference;
mod rig;
mod tables;
mod values;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine as _;
use tokio::runtime::Runtime;

use commands::{Answer, Command};
use reference::Model;
use rig::Rig;

/// Cases when nobody says how many; so many end within a minute on a busy machine of two cores.
const CASES: u32 = 120;
/// Commands of a case.
const COMMANDS: std::ops::Range<usize> = 1..40;
/// Tries to make a failing case shorter.
const SHRINKS: u32 = 4_000;
/// Cases that failed once.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/model.regressions");
/// How every case ends: after one look beyond all leases nothing is undecided, and then holds run out.
const END: [Command; 4] = [
    Command::Pass(20),
    Command::Look(Answer::Authorized),
    Command::Pass(300),
    Command::Look(Answer::Authorized),
];

#[test]
fn appointments_do_what_the_reference_model_does() {
    let runtime = runtime();
    let rig = RefCell::new(runtime.block_on(Rig::start()));
    let config = Config::default();
    let mut runner = TestRunner::new(Config {
        cases: std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| config.cases),
        max_shrink_iters: SHRINKS,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        source_file: Some(file!()),
        ..config
    });
    let outcome = runner.run(&Model::sequential_strategy(COMMANDS), |(model, commands, seen)| {
        let mut rig = rig.borrow_mut();
        runtime.block_on(follow(&mut rig, model, &commands, seen)).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(first, (model, commands, _))) => {
            let mut rig = rig.borrow_mut();
            let (broken, commands) =
                runtime.block_on(shortest(&mut rig, &model, commands, first.to_string()));
            panic!("{broken}\n\nafter\n{}", told(model, &commands))
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn what_failed_once_does_not_fail_again() {
    runtime().block_on(async {
        let mut rig = Rig::start().await;
        for (what, commands) in failed_once::cases() {
            let followed = follow(&mut rig, Model::new(), &commands, None).await;
            followed.unwrap_or_else(|broken| panic!("{what}\n\n{broken}"));
        }
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One case: model and program side by side.
async fn follow(
    rig: &mut Rig,
    mut model: Model,
    commands: &[Command],
    seen: Option<Arc<AtomicUsize>>,
) -> Result<(), String> {
    let mut case = rig.case().await;
    for (i, command) in commands.iter().chain(&END).enumerate() {
        if let Some(seen) = seen.as_ref().filter(|_| i < commands.len()) {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        let before = model.clone();
        model = Model::apply(model, command);
        case.step(&before, *command, &model).await.map_err(|broken| format!("{command}: {broken}"))?;
        if i > commands.len() && matches!(command, Command::Look(_)) {
            case.nothing_is_forgotten(model.now).await?;
        }
    }
    Ok(())
}

/// The failing case without the commands that it fails without, and how it fails. The runner's own shrinking cannot leave out a
/// command that makes an appointment, or tells an event, when a later one is named by its place after it.
async fn shortest(
    rig: &mut Rig,
    model: &Model,
    mut commands: Vec<Command>,
    mut broken: String,
) -> (String, Vec<Command>) {
    for i in (0..commands.len()).rev() {
        for (appointments, events) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let mut fewer = commands.clone();
            fewer.remove(i);
            fewer[i..].iter_mut().for_each(|command| command.renumber(appointments, events));
            if let Err(still) = follow(rig, model.clone(), &fewer, None).await {
                (broken, commands) = (still, fewer);
                break;
            }
        }
    }
    (broken, commands)
}

/// The commands of a case, with what the model says to each.
fn told(mut model: Model, commands: &[Command]) -> String {
    let mut list = String::new();
    for command in commands {
        model = Model::apply(model, command);
        let _ = writeln!(list, "{} | {command} -> {}", model.now.format("%d %H:%M:%S"), model.expected);
    }
    list
}
