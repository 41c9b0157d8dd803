//! One server of a development cluster: its process, its settings, and the signals it gets.

mod standby;

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::account::Account;
use super::binaries::Binaries;
use super::fault::{DevClusterError, Doing};
use super::settings::{APP, APP_DATABASE, DevUser, SUPERUSER};
use super::sql::{Connection, Rows, SqlError};
use super::{poll, processes};

/// Longer than any step of an unburdened machine takes; its end means that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// One PostgreSQL server: it may run, be stopped, or be frozen. Every switch may be used from any thread.
#[derive(Debug)]
pub struct DevNode {
    name: String,
    port: u16,
    folder: PathBuf,
    binaries: Binaries,
    account: Account,
    postmaster: Mutex<Option<Child>>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Clients are disconnected, everything is written out.
    Fast,
    /// As after a crash: WAL is replayed at the next start.
    Immediate,
}

impl DevNode {
    pub(super) fn new(
        name: String,
        port: u16,
        folder: &Path,
        binaries: &Binaries,
        account: Account,
    ) -> DevNode {
        DevNode {
            name,
            port,
            folder: folder.to_owned(),
            binaries: binaries.clone(),
            account,
            postmaster: Mutex::new(None),
        }
    }

    /// `pg1`, `pg2`, …: also its `application_name`, its slot's name and its `cluster_name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// The folder of its Unix socket, where everybody is trusted.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// A libpq URI for `user` and `database` over TCP.
    pub fn connection_string(&self, user: DevUser, database: &str) -> String {
        let secret = if user.password.is_empty() { String::new() } else { format!(":{}", user.password) };
        format!("postgres://{}{secret}@127.0.0.1:{}/{database}", user.name, self.port)
    }

    /// A libpq URI for the application's user and database.
    pub fn app_connection_string(&self) -> String {
        self.connection_string(APP, APP_DATABASE)
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The postmaster's process id, while it runs.
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.running(&mut self.lock())
    }

    /// Runs SQL as the superuser in the application's database.
    pub fn sql(&self, sql: &str) -> Result<Rows, DevClusterError> {
        self.sql_as(SUPERUSER.name, APP_DATABASE, sql)
    }

    /// Runs SQL as any user in any database, over the trusted socket. What a standby cancels because it stands in
    /// the way of replay is asked again: it has done nothing (manual, "Handling Query Conflicts").
    pub fn sql_as(&self, user: &str, database: &str, sql: &str) -> Result<Rows, DevClusterError> {
        let rows = poll(PATIENCE, || match self.connect(user, database).and_then(|mut c| c.query(sql)) {
            Ok(rows) => Ok(Some(rows)),
            Err(SqlError::Refused(refusal)) if refusal.is_recovery_conflict() => Ok(None),
            Err(error) => Err(self.sql_error(error, sql)),
        })?;
        rows.ok_or_else(|| self.timed_out(&format!("replay lets this be asked: {sql}"), PATIENCE))
    }

    /// The first column of the first row, as text.
    pub fn sql_value(&self, sql: &str) -> Result<Option<String>, DevClusterError> {
        Ok(self.sql(sql)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// Is it a standby now?
    pub fn is_in_recovery(&self) -> Result<bool, DevClusterError> {
        Ok(self.sql_value("SELECT pg_is_in_recovery()")?.as_deref() == Some("t"))
    }

    /// Starts the server and waits until it answers.
    pub fn start(&self) -> Result<(), DevClusterError> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Stops the server and waits until it is gone. A stopped one stays stopped.
    pub fn stop(&self, how: Stop) -> Result<(), DevClusterError> {
        let mut guard = self.lock();
        let Some(pid) = self.running(&mut guard) else { return Ok(()) };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        processes::send(pid, signal);
        self.thaw(pid);
        self.reap(&mut guard, PATIENCE).map(|_| ())
    }

    /// Stops the server properly and starts it again.
    pub fn restart(&self) -> Result<(), DevClusterError> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// SIGKILL to the postmaster and all its children, as the out-of-memory killer or a power cut would.
    pub fn sigkill(&self) -> Result<(), DevClusterError> {
        let mut guard = self.lock();
        let pid = self.running(&mut guard).ok_or_else(|| self.wrong_state("stopped"))?;
        processes::send(pid, Signal::STOP);
        let children = processes::children(pid);
        processes::send(pid, Signal::KILL);
        children.iter().for_each(|child| processes::send(*child, Signal::KILL));
        self.reap(&mut guard, PATIENCE)?;
        poll(PATIENCE, || Ok((!processes::any_alive(&children)).then_some(())))?
            .ok_or_else(|| self.timed_out("its processes end after SIGKILL", PATIENCE))
    }

    /// SIGKILL to one server process (of `pg_backend_pid()`): the postmaster then restarts all of them.
    pub fn sigkill_backend(&self, pid: u32) -> Result<(), DevClusterError> {
        let postmaster = self.postmaster_pid().ok_or_else(|| self.wrong_state("stopped"))?;
        if !processes::children(postmaster).contains(&pid) {
            return Err(self.wrong_state("running, but has no such process"));
        }
        processes::send(pid, Signal::KILL);
        Ok(())
    }

    /// Freezes the postmaster and all its children: sockets stay open, nobody answers.
    pub fn sigstop(&self) -> Result<(), DevClusterError> {
        let pid = self.postmaster_pid().ok_or_else(|| self.wrong_state("stopped"))?;
        // The postmaster first, so that it starts no further child.
        processes::send(pid, Signal::STOP);
        processes::children(pid).into_iter().for_each(|child| processes::send(child, Signal::STOP));
        Ok(())
    }

    /// Ends what [`DevNode::sigstop`] began.
    pub fn sigcont(&self) -> Result<(), DevClusterError> {
        let pid = self.postmaster_pid().ok_or_else(|| self.wrong_state("stopped"))?;
        self.thaw(pid);
        Ok(())
    }

    /// Changes a setting that a reload can change, and waits until new connections have it.
    pub fn set(&self, name: &str, value: &str) -> Result<(), DevClusterError> {
        let quoted = value.replace('\'', "''");
        self.sql(&format!("ALTER SYSTEM SET {name} = '{quoted}'"))?;
        self.reload()
    }

    /// Whose word commits wait for (`synchronous_standby_names`), from the next one on. The checkpointer tells
    /// everybody that there are any (`SyncRepUpdateSyncStandbysDefined`): it has when it has done a checkpoint.
    pub fn set_synchronous_standbys(&self, names: &str) -> Result<(), DevClusterError> {
        self.set("synchronous_standby_names", names)?;
        self.sql("CHECKPOINT").map(|_| ())
    }

    /// Reads the configuration again, and waits until new connections have it.
    pub fn reload(&self) -> Result<(), DevClusterError> {
        let loaded = "SELECT pg_conf_load_time()";
        let before = self.sql_value(loaded)?;
        self.sql("SELECT pg_reload_conf()")?;
        self.wait_for("the configuration is reloaded", PATIENCE, || Ok(self.sql_value(loaded)? != before))
    }

    /// Makes sure that a physical slot of this name exists and holds WAL back from now on.
    pub fn ensure_slot(&self, slot: &str) -> Result<(), DevClusterError> {
        self.sql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))
        .map(|_| ())
    }

    pub(super) fn spawn(&self) -> Result<(), DevClusterError> {
        let mut guard = self.lock();
        if self.running(&mut guard).is_some() {
            return Err(self.wrong_state("running already"));
        }
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.doing(|| format!("opening the log of {}", self.name))?;
        let copy = log.try_clone().doing(|| format!("opening the log of {}", self.name))?;
        let mut command = Command::new(self.binaries.program("postgres"));
        command
            .arg("-D")
            .arg(self.data_folder())
            .args(["-c", &format!("port={}", self.port), "-c", &format!("cluster_name={}", self.name)])
            .current_dir(&self.folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(log)
            // Ctrl-C is for whoever owns the cluster; the servers are stopped by it, in order.
            .process_group(0);
        self.account.apply(&mut command);
        *guard = Some(command.spawn().doing(|| format!("starting {}", self.name))?);
        Ok(())
    }

    pub(super) fn wait_until_ready(&self) -> Result<(), DevClusterError> {
        poll(PATIENCE, || {
            if let Some(status) = self.exit_status() {
                return Err(self.not_started(format!("it ended with {status}")));
            }
            match self.connect(SUPERUSER.name, "postgres").and_then(|mut c| c.query("SELECT 1")) {
                Ok(_) => Ok(Some(())),
                Err(_) => Ok(None),
            }
        })?
        .ok_or_else(|| self.not_started(format!("it did not answer within {} s", PATIENCE.as_secs())))
    }

    /// Did the last start fail because somebody else has the port?
    pub(super) fn lost_its_port(&self) -> bool {
        self.log().lines().rev().take(8).any(|l| l.contains("could not create any TCP/IP sockets"))
    }

    fn connect(&self, user: &str, database: &str) -> Result<Connection, SqlError> {
        Connection::open(&self.folder.join(format!(".s.PGSQL.{}", self.port)), user, database, PATIENCE)
    }

    fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> Result<bool, DevClusterError>,
    ) -> Result<(), DevClusterError> {
        poll(deadline, || Ok(condition()?.then_some(())))?.ok_or_else(|| self.timed_out(what, deadline))
    }

    fn thaw(&self, postmaster: u32) {
        processes::children(postmaster).into_iter().for_each(|child| processes::send(child, Signal::CONT));
        processes::send(postmaster, Signal::CONT);
    }

    fn reap(
        &self,
        guard: &mut MutexGuard<'_, Option<Child>>,
        deadline: Duration,
    ) -> Result<(), DevClusterError> {
        let ended = poll(deadline, || Ok(self.running(guard).is_none().then_some(())))?;
        ended.ok_or_else(|| self.timed_out("it ends", deadline))
    }

    /// The process id, if it still runs: an unreaped child's id cannot belong to anybody else.
    fn running(&self, guard: &mut MutexGuard<'_, Option<Child>>) -> Option<u32> {
        let child = guard.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id()),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.lock().as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn not_started(&self, why: String) -> DevClusterError {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        DevClusterError::NotStarted { node: self.name.clone(), why, log: end }
    }

    fn timed_out(&self, what: &str, waited: Duration) -> DevClusterError {
        DevClusterError::TimedOut { what: format!("{}: {what}", self.name), waited }
    }

    fn wrong_state(&self, state: &'static str) -> DevClusterError {
        DevClusterError::WrongState { node: self.name.clone(), state }
    }

    fn sql_error(&self, error: SqlError, sql: &str) -> DevClusterError {
        let node = self.name.clone();
        match error {
            SqlError::Refused(refusal) => DevClusterError::Sql {
                node,
                message: refusal.message,
                sqlstate: refusal.sqlstate,
                sql: sql.to_owned(),
            },
            SqlError::Lost(source) => {
                DevClusterError::Io { what: format!("{node}: {sql}"), source: io::Error::other(source) }
            }
        }
    }
}
