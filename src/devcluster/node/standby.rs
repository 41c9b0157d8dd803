//! The switches that make, delay, stop, promote and rebuild a standby.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{DevNode, PATIENCE, Stop};
use crate::devcluster::fault::{DevClusterError, Doing};
use crate::devcluster::files::{self, Source};
use crate::devcluster::settings::{self, APP_DATABASE, SUPERUSER};
use crate::lsn::Lsn;

impl DevNode {
    /// Replays every commit this much later than it happened (a standby only).
    pub fn set_apply_delay(&self, delay: Duration) -> Result<(), DevClusterError> {
        self.set("recovery_min_apply_delay", &settings::milliseconds(delay))
    }

    /// Stops replay and waits until it stands still (a standby only).
    pub fn pause_replay(&self) -> Result<(), DevClusterError> {
        self.sql("SELECT pg_wal_replay_pause()")?;
        self.wait_for("replay is paused", PATIENCE, || {
            Ok(self.sql_value("SELECT pg_get_wal_replay_pause_state()")?.as_deref() == Some("paused"))
        })
    }

    /// Ends what [`DevNode::pause_replay`] began.
    pub fn resume_replay(&self) -> Result<(), DevClusterError> {
        self.sql("SELECT pg_wal_replay_resume()").map(|_| ())
    }

    /// Makes a standby the primary of a new timeline, and waits until it is.
    pub fn promote(&self) -> Result<(), DevClusterError> {
        self.sql("SELECT pg_promote(true, 60)")?;
        self.wait_for("the promotion is complete", PATIENCE, || Ok(!self.is_in_recovery()?))
    }

    /// Follows another primary from now on, without a restart: for a standby that is not ahead of it.
    pub fn follow(&self, primary: &DevNode) -> Result<(), DevClusterError> {
        primary.ensure_slot(&self.name)?;
        self.set("primary_slot_name", &self.name)?;
        self.set("primary_conninfo", &settings::primary_conninfo(primary.port, &self.name))
    }

    /// Becomes a fresh standby of `primary`, whatever it was and however far it had gone astray: stops,
    /// throws its data away, takes an online backup, starts, and waits until it answers.
    pub fn reattach(&self, primary: &DevNode) -> Result<(), DevClusterError> {
        self.stop(Stop::Immediate)?;
        let data = self.data_folder();
        fs::remove_dir_all(&data).doing(|| format!("removing {}", data.display()))?;
        primary.ensure_slot(&self.name)?;
        let label = primary.online_backup(&data)?;
        files::write_file(&data.join("backup_label"), &label, self.account)?;
        self.become_standby_of(primary)?;
        self.start()
    }

    /// Waits until everything that `primary` has committed by now is visible here. Asynchronous
    /// commits are flushed for it (by one small WAL message).
    pub fn wait_caught_up(&self, primary: &DevNode, deadline: Duration) -> Result<(), DevClusterError> {
        let sql = "SELECT pg_logical_emit_message(true, 'pgweir-dev', ''); SELECT pg_current_wal_flush_lsn()";
        let target = primary.sql(sql)?.pop().and_then(|mut row| row.pop()).flatten().unwrap_or_default();
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
        self.wait_for(&format!("replay reaches {target}"), deadline, || {
            Ok(self.sql_value(&sql)?.as_deref() == Some("t"))
        })
    }

    /// Waits until the standby receives WAL from the primary.
    pub fn wait_streaming(&self, deadline: Duration) -> Result<(), DevClusterError> {
        self.wait_for("it streams from its primary", deadline, || {
            let status = self.sql_value("SELECT status FROM pg_stat_wal_receiver")?;
            Ok(status.as_deref() == Some("streaming"))
        })
    }

    /// Waits until its primary, which is dead, has nothing more for it. How far it has WAL then.
    pub(in crate::devcluster) fn wait_received_all(
        &self,
        deadline: Duration,
    ) -> Result<Lsn, DevClusterError> {
        self.wait_for("its dead primary's last WAL has arrived", deadline, || {
            let receiving = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
            Ok(self.sql_value(receiving)?.as_deref() == Some("0"))
        })?;
        let received = self.sql_value("SELECT pg_last_wal_receive_lsn()")?;
        Ok(received.and_then(|lsn| lsn.parse().ok()).unwrap_or_default())
    }

    pub(in crate::devcluster) fn become_standby_of(&self, primary: &DevNode) -> Result<(), DevClusterError> {
        let data = self.data_folder();
        files::write_file(&data.join("standby.signal"), "", self.account)?;
        let following = settings::following(primary.port, &self.name);
        files::write_file(&data.join("postgresql.auto.conf"), &following, self.account)
    }

    /// The low-level backup of the manual ("Making a Non-Exclusive Low-Level Backup"): the server's
    /// smallest packages have no pg_basebackup. Returns what belongs into `backup_label`.
    fn online_backup(&self, to: &Path) -> Result<String, DevClusterError> {
        let (start, stop) = match self.binaries.major() {
            14 => ("pg_start_backup('pgweir', true, false)", "pg_stop_backup(false, false)"),
            _ => ("pg_backup_start('pgweir', true)", "pg_backup_stop(false)"),
        };
        let (start, stop) = (format!("SELECT {start}"), format!("SELECT labelfile FROM {stop}"));
        // One connection from start to stop: the backup ends with it.
        let mut connection = self
            .connect(SUPERUSER.name, APP_DATABASE)
            .map_err(|e| self.sql_error(e, "connecting for a backup"))?;
        connection.query(&start).map_err(|e| self.sql_error(e, &start))?;
        files::copy_data(&self.data_folder(), to, Source::Running, self.account)?;
        let rows = connection.query(&stop).map_err(|e| self.sql_error(e, &stop))?;
        Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
    }
}
