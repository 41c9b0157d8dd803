//! Finds the server's programs, in the order in which a person would expect them to be taken.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fault::DevClusterError;

/// The folder of a PostgreSQL server's programs, and its version.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// `PG_BIN`, then PATH, `pg_config --bindir`, and the distributions' usual folders (newest first).
    pub fn find() -> Result<Binaries, DevClusterError> {
        if let Some(named) = env::var_os("PG_BIN").filter(|v| !v.is_empty()) {
            return Binaries::in_folder(Path::new(&named));
        }
        let candidates = candidates();
        let mut unusable = None;
        for folder in candidates.iter().filter(|f| has_server(f)) {
            match Binaries::in_folder(folder) {
                Ok(found) => return Ok(found),
                Err(e) => unusable = unusable.or(Some(e)),
            }
        }
        Err(unusable.unwrap_or_else(|| DevClusterError::NoServer {
            searched: "$PG_BIN, $PATH, pg_config --bindir, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, \
                       /usr/local/pgsql/bin, /opt/homebrew/opt/postgresql@*/bin"
                .to_owned(),
        }))
    }

    /// The server in one folder; an error says what is wrong with it.
    pub fn in_folder(folder: &Path) -> Result<Binaries, DevClusterError> {
        let unusable = |why: String| DevClusterError::UnusableServer { folder: folder.to_owned(), why };
        if !has_server(folder) {
            return Err(unusable("initdb and postgres must both be there".to_owned()));
        }
        // A link in /usr/local/bin leads to the folder that has the other programs too.
        let postgres = folder.join("postgres").canonicalize().map_err(|e| unusable(e.to_string()))?;
        let real = postgres.parent().filter(|p| has_server(p)).unwrap_or(folder).to_owned();
        let output =
            Command::new(&postgres).arg("--version").output().map_err(|e| unusable(e.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let major = leading_number(&version);
        match major {
            Some(major) if major >= 14 => Ok(Binaries { folder: real, version, major }),
            Some(_) => Err(unusable(format!("it is PostgreSQL {version}; 14 or newer is needed"))),
            None => Err(unusable(format!(
                "`postgres --version` answered `{text}` {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }

    /// Where the programs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The whole version, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one program, whether it is there or not.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of a program that not every installation has (`psql`, `pgbench`): here, or in PATH.
    pub fn optional_program(&self, name: &str) -> Option<PathBuf> {
        let here = self.program(name);
        if here.is_file() {
            return Some(here);
        }
        path_folders().into_iter().map(|f| f.join(name)).find(|p| p.is_file())
    }
}

fn has_server(folder: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|name| folder.join(name).is_file())
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = path_folders();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders.extend(versioned("/usr/lib/postgresql", "", "bin"));
    folders.extend(versioned("/usr", "pgsql-", "bin"));
    folders.extend(versioned("/usr/libexec", "postgresql", ""));
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    for brew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        folders.extend(versioned(brew, "postgresql@", "bin"));
    }
    folders
}

/// `parent/<prefix><number>/<child>`, the highest number first.
fn versioned(parent: &str, prefix: &str, child: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = leading_number(name.strip_prefix(prefix)?)?;
            Some((number, entry.path().join(child)))
        })
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, path)| path).collect()
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_are_read_with_whatever_follows_them() {
        assert_eq!(leading_number("15.18"), Some(15));
        assert_eq!(leading_number("18beta1"), Some(18));
        assert_eq!(leading_number("devel"), None);
        assert_eq!(leading_number(""), None);
    }

    #[test]
    fn the_newest_of_several_versions_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17"] {
            fs::create_dir(folder.path().join(version)).unwrap();
        }
        let found = versioned(folder.path().to_str().unwrap(), "", "bin");
        assert_eq!(found[0], folder.path().join("17/bin"));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_folder_without_a_server_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::in_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
        assert!(error.contains("initdb"), "{error}");
    }
}
