//! The program of `bench/` and what it printed: figures of running services.

use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;

use super::engine::time;
use crate::workspace::{self, Workspace};

/// What one command of the program measured.
pub(super) struct Figures(Value);

impl Figures {
    /// Builds the program and `packages` for release, runs its `command`, and reads what it prints.
    pub(super) fn measure(
        workspace: &Workspace,
        packages: &[&str],
        command: &str,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let mut cargo = workspace.command("cargo");
        cargo.args(["build", "--release", "--package", "bench"]);
        for package in packages {
            cargo.args(["--package", package]);
        }
        workspace::run(&mut cargo)?;
        let mut bench = workspace.command(workspace.path("target/release/bench"));
        let output = bench.arg(command).args(options).stderr(Stdio::inherit()).output()?;
        anyhow::ensure!(output.status.success(), "`bench {command}` ended with {}", output.status);
        let figures = serde_json::from_slice(&output.stdout);
        Ok(Self(figures.with_context(|| format!("the figures of `bench {command}`"))?))
    }

    /// The number at a JSON pointer (RFC 6901).
    pub(super) fn number(&self, at: &str) -> anyhow::Result<f64> {
        self.0.pointer(at).and_then(Value::as_f64).with_context(|| format!("no figure {at}"))
    }

    /// The number at `at`, microseconds, in the unit that fits.
    pub(super) fn time(&self, at: &str) -> anyhow::Result<String> {
        self.number(at).map(time)
    }

    /// How many elements the array at `at` has; none when there is no array.
    pub(super) fn count(&self, at: &str) -> usize {
        self.0.pointer(at).and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// The text at `at`.
    pub(super) fn text(&self, at: &str) -> anyhow::Result<&str> {
        self.0.pointer(at).and_then(Value::as_str).with_context(|| format!("no text {at}"))
    }

    /// The numbers at `at` by their names.
    pub(super) fn named(&self, at: &str) -> anyhow::Result<Vec<(&str, f64)>> {
        let object =
            self.0.pointer(at).and_then(Value::as_object).with_context(|| format!("no figures {at}"))?;
        object.iter().map(|(name, value)| Ok((name.as_str(), value.as_f64().context("a number")?))).collect()
    }
}
