//! Copies data folders: cold ones as they are, live ones between the start and stop of a backup.

use std::fs;
use std::io;
use std::path::Path;

use super::account::Account;
use super::fault::{DevClusterError, Doing};

/// Whether the server of the folder runs while it is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stopped,
    /// Files may vanish or change; WAL replay from the backup's start repairs what was torn.
    Running,
}

/// Folders whose contents belong to one run of one server (the manual's list, "Backing Up the Data Directory").
const EMPTIED: [&str; 7] =
    ["pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];
const LEFT_OUT: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "standby.signal", "backup_label", "backup_label.old"];

/// Copies the data folder `from` to the new folder `to`, owned by `account`.
pub(super) fn copy_data(
    from: &Path,
    to: &Path,
    source: Source,
    account: Account,
) -> Result<(), DevClusterError> {
    make_folder(to, account)?;
    let mut entries: Vec<_> =
        fs::read_dir(from).doing(|| format!("listing {}", from.display()))?.flatten().collect();
    // The control file last, as pg_basebackup does: it must not be older than what it describes.
    entries.sort_by_key(|entry| entry.file_name() == "global");
    for entry in entries {
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let target = to.join(&name);
        let emptied = EMPTIED.iter().any(|e| name == *e) || (source == Source::Running && name == "pg_wal");
        if emptied {
            make_folder(&target, account)?;
        } else {
            copy_tree(&entry.path(), &target, source, account)?;
        }
    }
    Ok(())
}

/// A folder that only `account` can enter, as PostgreSQL demands.
pub(super) fn make_folder(path: &Path, account: Account) -> Result<(), DevClusterError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path).doing(|| format!("making {}", path.display()))?;
    account.give(path)
}

/// Writes a file that belongs to `account` and that nobody else can read.
pub(super) fn write_file(path: &Path, text: &str, account: Account) -> Result<(), DevClusterError> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).doing(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .doing(|| format!("protecting {}", path.display()))?;
    account.give(path)
}

fn copy_tree(from: &Path, to: &Path, source: Source, account: Account) -> Result<(), DevClusterError> {
    let what = || format!("copying {}", from.display());
    let vanished = |e: &io::Error| source == Source::Running && e.kind() == io::ErrorKind::NotFound;
    let meta = match fs::symlink_metadata(from) {
        Ok(meta) => meta,
        Err(e) if vanished(&e) => return Ok(()),
        Err(e) => return Err(e).doing(what),
    };
    if meta.is_dir() {
        make_folder(to, account)?;
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            Err(e) if vanished(&e) => return Ok(()),
            Err(e) => return Err(e).doing(what),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(e).doing(what),
            };
            copy_tree(&entry.path(), &to.join(entry.file_name()), source, account)?;
        }
        return Ok(());
    }
    match fs::copy(from, to) {
        Ok(_) => account.give(to),
        Err(e) if vanished(&e) => Ok(()),
        Err(e) => Err(e).doing(what),
    }
}
