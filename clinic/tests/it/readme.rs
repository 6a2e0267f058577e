//! The README's lines, run as printed against a fresh suite: each gives what the README says it gives.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::process::Home;

/// One line to type, and what it prints.
#[derive(Debug)]
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The steps of the README's console blocks: `$ ` begins a command, `> ` continues it, the rest is its output.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![];
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: vec![] });
        } else if let Some(more) = line.strip_prefix("> ") {
            let step = steps.last_mut().unwrap();
            step.command = format!("{}\n{more}", step.command);
        } else {
            steps.last_mut().unwrap().expected.push(line.to_owned());
        }
    }
    steps
}

/// Whether `printed` is what the README shows, where `…` stands for anything: within a line, or as a line for any lines.
fn matches(expected: &[String], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some((first, rest)), Some((line, lines))) => line_matches(first, line) && matches(rest, lines),
        _ => false,
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut left) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
        last = Some(part);
    }
    left.is_empty() || last == Some("")
}

#[tokio::test]
async fn every_line_of_the_readme_gives_what_it_prints() {
    // `cargo xtask test` fetches the real grpcurl and names it here.
    let Some(grpcurl) = std::env::var_os("CLINIC_GRPCURL") else {
        panic!("set CLINIC_GRPCURL to the path of grpcurl, or run `cargo xtask test`, which fetches it")
    };
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let steps = steps(&readme);
    assert!(steps.iter().filter(|s| s.command.contains("grpcurl")).count() >= 5);

    let home = Home::new();
    let up = home.up(&[]).await;
    let gateway = up.url("gateway").replace("http://127.0.0.1", "localhost");
    let mut shell = Shell::start(&home, Path::new(&grpcurl).parent().unwrap());
    for step in &steps {
        let command = step.command.replace("localhost:8080", &gateway);
        let command = command.replace("cargo run -q --", env!("CARGO_BIN_EXE_clinic"));
        // What follows by an event follows soon, not at once; asking again changes nothing.
        let asks = command.contains("/List");
        let mut printed = shell.run(&command).await;
        let end = Instant::now() + testkit::SOON;
        while asks && !is_as_shown(&step.expected, &printed) && Instant::now() < end {
            printed = shell.run(&command).await;
        }
        let shown = step.expected.join("\n");
        assert!(
            is_as_shown(&step.expected, &printed),
            "{}\nprinted:\n{printed}\ninstead of:\n{shown}",
            step.command
        );
    }
    assert!(up.stop().await.success());
}

fn is_as_shown(expected: &[String], printed: &str) -> bool {
    matches(expected, &printed.lines().collect::<Vec<_>>())
}

/// One shell for all lines, because later ones use what earlier ones kept.
struct Shell {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Shell {
    fn start(home: &Home, grpcurl: &Path) -> Self {
        let path = format!("{}:{}", grpcurl.display(), std::env::var("PATH").unwrap());
        let mut child = Command::new("bash")
            .args(["-c", "exec 2>&1; exec bash"])
            .env("PATH", path)
            .env("CLINIC_DATA_DIR", home.data())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, _child: child }
    }

    /// Types a line and reads what it prints, up to a mark of our own.
    async fn run(&mut self, command: &str) -> String {
        const MARK: &str = "--- end of step ---";
        self.input.write_all(format!("{command}\necho '{MARK}'\n").as_bytes()).await.unwrap();
        let mut printed = String::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            if line == MARK {
                return printed;
            }
            printed += &line;
            printed.push('\n');
        }
        panic!("the shell ended:\n{printed}");
    }
}
