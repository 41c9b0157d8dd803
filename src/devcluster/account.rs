//! Who runs the servers (an operating system account), and in which folder.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fault::{DevClusterError, Doing};

/// A longer path than this leaves no room for `.s.PGSQL.12345` in a Unix socket's address (107 bytes).
const LONGEST_FOLDER: usize = 80;

/// The account that the servers run as: our own, or an unprivileged one when we are root.
#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    Ourselves,
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn choose() -> Result<Account, DevClusterError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::Ourselves);
        }
        let passwd = fs::read_to_string("/etc/passwd").doing(|| "reading /etc/passwd".to_owned())?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| ids_of(name, &passwd))
            .map(|(uid, gid)| Account::Other { uid, gid })
            .ok_or(DevClusterError::NoUnprivilegedUser)
    }

    /// Starts `command` as this account. std drops the supplementary groups too.
    pub(super) fn apply(self, command: &mut Command) {
        if let Account::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    pub(super) fn give(self, path: &Path) -> Result<(), DevClusterError> {
        match self {
            Account::Ourselves => Ok(()),
            Account::Other { uid, gid } => chown(path, Some(uid), Some(gid))
                .doing(|| format!("giving {} to the server's user", path.display())),
        }
    }

    /// May this account pass through every folder on the way to `path`?
    pub(super) fn can_reach(self, path: &Path) -> bool {
        let Account::Other { uid, gid } = self else { return true };
        path.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|meta| {
                let needed = match () {
                    () if meta.uid() == uid => 0o100,
                    () if meta.gid() == gid => 0o010,
                    () => 0o001,
                };
                meta.permissions().mode() & needed != 0
            })
        })
    }

    /// A new, empty folder of this account, reachable by it and short enough for a socket.
    pub(super) fn temporary_folder(self) -> Result<PathBuf, DevClusterError> {
        let tried = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        for parent in &tried {
            let Ok(parent) = parent.canonicalize() else { continue };
            if parent.as_os_str().len() > LONGEST_FOLDER - 20 || !self.can_reach(&parent) {
                continue;
            }
            let Ok(folder) = tempfile::Builder::new().prefix("pgweir-dev-").tempdir_in(&parent) else {
                continue;
            };
            let folder = folder.keep();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))
                .doing(|| format!("opening {}", folder.display()))?;
            self.give(&folder)?;
            return Ok(folder);
        }
        let tried: Vec<_> = tried.iter().map(|p| p.display().to_string()).collect();
        Err(DevClusterError::NoTemporaryFolder { tried: tried.join(", ") })
    }
}

fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((uid, gid))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\nbroken\n";

    #[test]
    fn ids_are_read_from_the_line_of_that_very_name() {
        assert_eq!(ids_of("postgres", PASSWD), Some((101, 104)));
        assert_eq!(ids_of("post", PASSWD), None);
        assert_eq!(ids_of("broken", PASSWD), None);
    }
}
