//! `bench/RESULTS.md`: one section for each part, each saying what machine it is from, so that a part can be measured again by
//! itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

const HEAD: &str = "# Results\n\nMeasured by `cargo xtask bench`; each section is from one run of it.\n";
const HEADING: &str = "\n## ";

/// Writes `body` as the section `heading`, and keeps the other sections that `order` names.
pub(super) fn keep(file: &Path, order: &[&str], heading: &str, body: &str) -> anyhow::Result<()> {
    let old = fs::read_to_string(file).unwrap_or_default();
    let body = format!("On {}.\n\n{body}", machine());
    fs::write(file, merged(&old, order, heading, &body))
        .with_context(|| format!("{} cannot be written", file.display()))
}

fn merged(old: &str, order: &[&str], heading: &str, body: &str) -> String {
    let sections = old.split(HEADING).skip(1).filter_map(|section| section.split_once('\n'));
    let mut sections: BTreeMap<&str, &str> = sections.collect();
    sections.insert(heading, body);
    let known = order.iter().filter_map(|heading| Some((heading, sections.get(heading)?.trim())));
    known.fold(HEAD.to_owned(), |text, (heading, body)| format!("{text}{HEADING}{heading}\n\n{body}\n"))
}

/// Processor, cores and memory, as the machine itself says.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let processor =
        field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "an unnamed processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kb =
        field(&read("/proc/meminfo"), "MemTotal").and_then(|v| v.trim_end_matches(" kB").parse::<f64>().ok());
    format!("{cores} cores of {processor}, {:.0} GiB", kb.unwrap_or_default() / 1024.0 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_measured_again_leaves_the_others_as_they_were() {
        let order = ["A", "B", "C"];
        let text = merged("", &order, "C", "three");
        let text = merged(&text, &order, "A", "one\n\n| 1 |\n");
        assert_eq!(text, format!("{HEAD}\n## A\n\none\n\n| 1 |\n\n## C\n\nthree\n"));
        let text = merged(&text, &order, "C", "four");
        assert_eq!(text, format!("{HEAD}\n## A\n\none\n\n| 1 |\n\n## C\n\nfour\n"));
    }
}
