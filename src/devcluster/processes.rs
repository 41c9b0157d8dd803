//! Signals for a postmaster and its children. PostgreSQL gives every child a process group of its
//! own, so a signal to the postmaster's group reaches the postmaster only.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal`; a process that is gone already is as good as one that received it.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(?pid, ?signal, %error, "signal not delivered");
    }
}

/// The direct children of a process, dead ones that nobody has waited for left out.
pub(super) fn children(parent: u32) -> Vec<u32> {
    match fs::read_dir("/proc") {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| living_parent_of(*pid) == Some(parent))
            .collect(),
        Err(_) => children_from_ps(parent),
    }
}

/// Is any of these still running?
pub(super) fn any_alive(pids: &[u32]) -> bool {
    pids.iter().any(|pid| match fs::exists("/proc/self") {
        Ok(true) => living_parent_of(*pid).is_some(),
        _ => i32::try_from(*pid)
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()),
    })
}

fn living_parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too: read on after the last one.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}

fn children_from_ps(parent: u32) -> Vec<u32> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u32>);
            let pid = fields.next()?.ok()?;
            (fields.next()?.ok()? == parent).then_some(pid)
        })
        .collect()
}
