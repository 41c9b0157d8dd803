//! Leaves nothing behind, however the owner ends. A small shell waits for the end of a pipe whose
//! other end the owner holds: the kernel closes it at an exit, a panic, Ctrl-C and SIGKILL alike.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the cluster's folder. Every process of a server has its data folder as working folder: that
/// finds postmasters and orphaned children, and never a stranger that was given an old process id.
/// A killed postmaster leaves a System V segment behind, which line 7 of its pid file names.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT
while read -r _; do :; done
[ -d "$1" ] || exit 0
ours() {
  if [ -d /proc/self ]; then
    ls -ld /proc/[0-9]*/cwd 2>/dev/null | awk -v folder="$1" '{
      there = pid = $0
      sub(/^.* -> /, "", there)
      sub(/\/cwd -> .*$/, "", pid)
      sub(/^.*\//, "", pid)
      if (there == folder || index(there, folder "/") == 1) print pid
    }'
  else
    for f in "$1"/*/postmaster.pid; do [ -f "$f" ] && head -n 1 "$f"; done
  fi
}
signal() { for pid in $(ours "$1"); do kill "-$2" "$pid" 2>/dev/null; done; }
signal "$1" QUIT
signal "$1" CONT
n=0
while [ -n "$(ours "$1")" ] && [ $n -lt 30 ]; do sleep 0.1; n=$((n+1)); done
signal "$1" KILL
for f in "$1"/*/postmaster.pid; do
  [ -f "$f" ] || continue
  id=$(sed -n 7p "$f" | awk '{print $2}')
  [ -n "$id" ] && ipcrm -m "$id" 2>/dev/null
done
n=0
while [ -d "$1" ] && [ $n -lt 50 ]; do rm -rf "$1" 2>/dev/null || sleep 0.1; n=$((n+1)); done
"#;

/// The net under a cluster: cleans up when it is dropped, or when this process ends in any way.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    pub(super) fn over(folder: &Path) -> io::Result<Watchdog> {
        let shell = Command::new("/bin/sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("pgweir-watchdog")
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the group that Ctrl-C reaches.
            .process_group(0)
            .spawn()?;
        Ok(Watchdog { shell })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "the development cluster's watchdog was lost");
        }
    }
}
