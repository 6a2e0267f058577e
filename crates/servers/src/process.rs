//! What the system tells about another process: from `/proc` where there is one, else from `ps`.

use std::fs;
use std::process::Command;

use rustix::process::Pid;

const LINUX: bool = cfg!(target_os = "linux");

/// The words it was started with; `None` when it is gone.
pub(crate) fn command_line(pid: Pid) -> Option<String> {
    if LINUX {
        return Some(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).into_owned());
    }
    ps("args=", pid)
}

/// Whether every thread of it is stopped: a stop signal reaches them one after the other.
pub(crate) fn is_frozen(pid: Pid) -> bool {
    if LINUX {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        // The state follows the program's name, which stands in parentheses and may hold any of them.
        return threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
            .all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')));
    }
    ps("stat=", pid).is_none_or(|state| state.starts_with('T'))
}

fn ps(column: &str, pid: Pid) -> Option<String> {
    let output = Command::new("ps").args(["-ww", "-o", column, "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
