//! The bare streaming cluster: what happens to it is done by hand, `pg_promote` included.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgweir::cli::check_consistency::Report;
use pgweir::devcluster::{APP, DevNode, Options, Stop};

use crate::events::{Event, Outcome, astray, newest, written};
use crate::fault_proxy::{FaultProxy, Network};
use crate::harness::{LONG, NO_WRITER, Stage, Tuning, Weir, wait_until, wait_until_or};
use crate::load::{Crowd, Load, ON_REPLICA, WRITTEN};
use crate::sockets::has_unread;
use crate::watchers::Examination;
use crate::wires::Lost;
use tokio::task::JoinHandle;

/// A cluster, a pgweir, clients, and networks between all of them.
pub struct Theatre<'a> {
    stage: &'a Stage,
    weir: Weir<'a>,
    tuning: Tuning,
    load: Load,
    examination: Examination,
    /// Between pgweir and each node.
    roads: Vec<FaultProxy>,
    /// Between each node, as a primary, and its standbys.
    replication: Vec<FaultProxy>,
    primary: usize,
    round: usize,
    /// A pgweir that was replaced, until its last client has left.
    leaving: Option<JoinHandle<()>>,
    /// An old primary that may have taken writes which it must not, and what the new one had by then.
    over: Option<(usize, BTreeMap<i32, i32>)>,
}

/// Three nodes; a commit waits for one of the two standbys.
pub fn stage() -> Stage {
    let options = Options::default().set("wal_receiver_timeout", "5s").set("wal_sender_timeout", "5s");
    let stage = Stage::with(options, &[NO_WRITER, ON_REPLICA, WRITTEN]);
    for node in stage.cluster.nodes() {
        node.set("synchronous_standby_names", SYNCHRONOUS).unwrap();
    }
    stage
}

const SYNCHRONOUS: &str = "ANY 1 (*)";

impl<'a> Theatre<'a> {
    /// The rounds before the first decide which network fails in which way when.
    pub fn open(stage: &'a Stage, crowd: Crowd, rounds: usize) -> Theatre<'a> {
        let (roads, replication) = stage.run(async {
            let (mut roads, mut replication) = (Vec::new(), Vec::new());
            for node in stage.cluster.nodes() {
                roads.push(FaultProxy::beyond_wires(node.address()).await);
                replication.push(FaultProxy::before(node.address()).await);
            }
            (roads, replication)
        });
        let names = stage.cluster.nodes().iter().map(|node| node.name().to_owned());
        let tuning = Tuning {
            limits: vec![
                // The servers decide how long a switchover takes, and none of it is an error.
                "hold_time: 120s".to_owned(),
                "drain: clients".to_owned(),
                "drain_timeout: 120s".to_owned(),
            ],
            routing: vec!["prove_commits: true".to_owned()],
            interval: "100ms",
            detours: names.zip(roads.iter().map(|road| road.address)).collect(),
            ..Tuning::default()
        };
        let mut tuning = Tuning { more: "reuse_port: true\n".to_owned(), ..tuning };
        let weir = stage.weir_with(&tuning);
        tuning.port = weir.address.port();
        let load = Load::start(stage, weir.address, crowd);
        let examination = Examination::start(stage, &weir);
        Theatre {
            stage,
            weir,
            tuning,
            load,
            examination,
            roads,
            replication,
            primary: 0,
            round: rounds,
            leaving: None,
            over: None,
        }
    }

    /// What the consistency checker has found in all of it.
    pub fn close(self) -> Report {
        let report = self.examination.finish();
        self.load.stop(self.stage);
        report
    }

    /// Plays one round: the cluster is whole before and afterwards.
    pub fn play(&mut self, event: Event) -> Outcome {
        self.load.goes_on(50, 50, "the clients work before anything happens");
        self.load.forget();
        self.round += 1;
        let old = self.primary;
        let violations = self.examination.violations();
        let begun = Instant::now();
        let mut outcome = Outcome::default();
        match event {
            Event::PrimaryKilled => self.primary_killed(&mut outcome, begun),
            Event::PrimaryFrozen => self.primary_frozen(&mut outcome, begun),
            Event::Switchover => self.switchover(&mut outcome, begun),
            Event::SwitchoverAsync => {
                self.synchronous("");
                self.switchover(&mut outcome, Instant::now());
                self.synchronous(SYNCHRONOUS);
            }
            Event::SwitchoverPaused => self.switchover_paused(&mut outcome),
            Event::ReplicaKilled => self.replica_killed(),
            Event::NoReplicaLeft => self.no_replica_left(),
            Event::CutFromPrimary => self.cut_from_primary(),
            Event::CutFromPrimaryAndPromotion => self.cut_and_promotion(&mut outcome, begun),
            Event::ReplicationCut => self.replication_cut(),
            Event::SplitBrain => self.split_brain(&mut outcome, begun),
            Event::RollingRestart => self.rolling_restart(),
            Event::PgweirReplaced => self.pgweir_replaced(),
            other => panic!("{other:?} needs Patroni"),
        }
        self.load.goes_on(100, 100, &format!("the clients go on after: {}", event.name()));
        self.examination.goes_on("the checker goes on");
        outcome.violations = self.examination.violations() - violations;
        self.conclude(event, outcome, old)
    }

    fn conclude(&mut self, event: Event, mut outcome: Outcome, old: usize) -> Outcome {
        outcome.idle_lost = self.load.idle_lost(self.stage);
        if let Some(leaving) = self.leaving.take() {
            self.load.renew_idle(self.stage);
            wait_until("a pgweir that was replaced ends with its last client", || {
                // Who came again before it had closed its socket leaves once more.
                self.load.renew();
                self.examination.renew();
                leaving.is_finished()
            });
            self.stage.run(leaving).unwrap();
        }
        let told = self.load.told();
        let primary = self.node(self.primary);
        if let Some((over, taken)) = self.over.take() {
            // First what the old one has: what has come later to the new one is no stray.
            let on_old = written(self.node(over), told.fates.oldest());
            outcome.astray = astray(&on_old, &written(primary, told.fates.oldest()), &taken, &told);
        }
        outcome.judge(event, told, primary);
        if old != self.primary {
            self.node(old).reattach(primary).unwrap();
            self.node(old).set("synchronous_standby_names", SYNCHRONOUS).unwrap();
        }
        self.whole();
        outcome
    }

    /// Everybody is there, and follows the primary.
    fn whole(&self) {
        for standby in self.standbys() {
            standby.wait_streaming(LONG).unwrap();
        }
        let primary = self.node(self.primary);
        self.weir.wait_whole_under(primary);
        // Slots of those who left would hold WAL back for ever.
        let unused = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
        primary.sql(unused).unwrap();
    }

    fn node(&self, index: usize) -> &'a DevNode {
        &self.stage.cluster.nodes()[index]
    }

    fn standby_indices(&self) -> Vec<usize> {
        (0..self.stage.cluster.nodes().len()).filter(|&index| index != self.primary).collect()
    }

    fn standbys(&self) -> Vec<&'a DevNode> {
        self.standby_indices().into_iter().map(|index| self.node(index)).collect()
    }

    /// On the primary, and whoever it will be.
    fn synchronous(&self, names: &str) {
        for node in self.stage.cluster.nodes().iter().filter(|node| node.postmaster_pid().is_some()) {
            node.set("synchronous_standby_names", names).unwrap();
        }
    }

    /// One standby becomes the primary while the old one still sends to it; the other one, which must not
    /// get ahead of it, has been cut off before.
    fn promote_beside(&mut self, outcome: &mut Outcome, begun: Instant) {
        let standbys = self.standby_indices();
        let (new, other) = (self.node(standbys[0]), self.node(standbys[1]));
        other.set("primary_conninfo", "").unwrap();
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        wait_until("it receives nothing", || other.sql_value(receivers).unwrap().as_deref() == Some("0"));
        let lsn = other.sql_value("SELECT pg_last_wal_receive_lsn()").unwrap().unwrap();
        let has_it = format!("SELECT pg_last_wal_receive_lsn() >= '{lsn}'::pg_lsn");
        wait_until("the other one has as much", || new.sql_value(&has_it).unwrap().as_deref() == Some("t"));
        new.promote().unwrap();
        outcome.servers_gap = Some(begun.elapsed());
        self.primary = standbys[0];
        other.follow(new).unwrap();
    }

    /// The standby that has received most becomes the primary; the other one follows it.
    fn promote(&mut self, outcome: &mut Outcome, begun: Instant) {
        let received = |index: &usize| -> pgweir::lsn::Lsn {
            let lsn = self.node(*index).sql_value("SELECT pg_last_wal_receive_lsn()").unwrap();
            lsn.and_then(|lsn| lsn.parse().ok()).unwrap_or_default()
        };
        let mut standbys = self.standby_indices();
        standbys.sort_by_key(|index| std::cmp::Reverse(received(index)));
        let (new, other) = (standbys[0], standbys[1]);
        self.node(new).promote().unwrap();
        outcome.servers_gap = Some(begun.elapsed());
        self.primary = new;
        self.node(other).follow(self.node(new)).unwrap();
    }

    /// Nothing more comes from a primary that is dead.
    fn wait_nothing_streams(&self) {
        for standby in self.standbys() {
            let streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
            wait_until("the dead primary's last WAL has arrived", || {
                standby.sql_value(streams).unwrap().as_deref() == Some("0")
            });
        }
    }

    /// What a frozen primary had sent is there: whoever reads it later, past the fork, could follow nobody.
    fn wait_all_received(&self) {
        for standby in self.standbys() {
            let receiver = "SELECT pid, pg_last_wal_receive_lsn() FROM pg_stat_wal_receiver";
            let mut before = None;
            wait_until("what was sent is received", || {
                let now = standby.sql(receiver).unwrap().pop();
                let pid = now.as_ref().and_then(|row| row[0].as_deref()?.parse().ok());
                let is_all = pid.is_none_or(|pid| !has_unread(pid)) && now == before;
                before = now;
                is_all
            });
        }
    }

    fn primary_killed(&mut self, outcome: &mut Outcome, begun: Instant) {
        self.node(self.primary).sigkill().unwrap();
        self.wait_nothing_streams();
        self.promote(outcome, begun);
    }

    fn primary_frozen(&mut self, outcome: &mut Outcome, begun: Instant) {
        let frozen = self.primary;
        let old = self.node(frozen);
        old.sigstop().unwrap();
        self.wait_all_received();
        self.promote(outcome, begun);
        self.load.goes_on(50, 50, "writes go to the new primary while the old one is frozen");
        self.over = Some((frozen, newest(self.node(self.primary))));
        old.sigcont().unwrap();
        self.load.goes_on(50, 50, "and when it has come back");
    }

    fn switchover(&mut self, outcome: &mut Outcome, begun: Instant) {
        self.node(self.primary).stop(Stop::Fast).unwrap();
        self.wait_nothing_streams();
        self.promote(outcome, begun);
    }

    fn switchover_paused(&mut self, outcome: &mut Outcome) {
        let stage = self.stage;
        let console = stage.run(self.weir.connect_as(APP, "pgweir", "")).unwrap();
        stage.run(console.batch_execute("PAUSE")).unwrap();
        self.switchover(outcome, Instant::now());
        stage.run(console.batch_execute("RESUME")).unwrap();
    }

    fn replica_killed(&mut self) {
        let standbys = self.standbys();
        let one = standbys[self.round % standbys.len()];
        one.sigkill().unwrap();
        self.load.goes_on(100, 100, "without one replica");
        one.start().unwrap();
    }

    fn no_replica_left(&mut self) {
        // As Patroni does when no synchronous standby is left.
        self.synchronous("");
        for standby in self.standbys() {
            standby.sigkill().unwrap();
        }
        self.load.goes_on(100, 100, "without any replica");
        for standby in self.standbys() {
            standby.start().unwrap();
        }
        for standby in self.standbys() {
            standby.wait_streaming(LONG).unwrap();
        }
        self.synchronous(SYNCHRONOUS);
    }

    fn network(&self) -> Network {
        let vanishing = |to_server, to_client| Network::Vanishing(Lost { to_server, to_client });
        let kinds = [
            vanishing(true, true),
            vanishing(true, false),
            Network::Resetting,
            Network::Dropping,
            Network::DeafToServer,
            Network::DeafToClient,
            vanishing(false, true),
            Network::Slow(Duration::from_millis(50)),
        ];
        match kinds[self.round % kinds.len()] {
            Network::Vanishing(_) if !self.roads[self.primary].has_wires() => Network::Dropping,
            network => network,
        }
    }

    fn cut_from_primary(&mut self) {
        let network = self.network();
        self.roads[self.primary].becomes(network);
        match network {
            Network::Slow(_) => self.load.goes_on(30, 30, "over a slow network"),
            _ => {
                self.weir.wait_node(self.node(self.primary).name(), "is missed", |row| row.state != "up");
                std::thread::sleep(Duration::from_secs(2));
            }
        }
        self.roads[self.primary].becomes(Network::Whole);
    }

    fn cut_and_promotion(&mut self, outcome: &mut Outcome, begun: Instant) {
        let old = self.primary;
        // Whoever is promoted confirms nothing more: the old primary cannot acknowledge on its own.
        self.node(old).set("synchronous_standby_names", "ANY 2 (*)").unwrap();
        let network = match self.network() {
            Network::Slow(_) => Network::Dropping,
            network => network,
        };
        self.roads[old].becomes(network);
        self.promote_beside(outcome, begun);
        self.load.goes_on(50, 50, "writes go to the new primary");
        self.over = Some((old, newest(self.node(self.primary))));
        self.roads[old].becomes(Network::Whole);
        // What was sent into the cut arrives now, if it ever does. Who waits for a standby has written already, and
        // does not notice that nobody listens any more; nor does who waits for his lock.
        let app = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' \
             AND wait_event IS DISTINCT FROM 'SyncRep' AND wait_event_type IS DISTINCT FROM 'Lock'",
            APP.name
        );
        let is_left = || self.node(old).sql_value(&app).unwrap().as_deref() != Some("0");
        wait_until_or(
            "nobody is left on the old primary",
            || !is_left(),
            || {
                let rows = format!("SELECT a::text FROM pg_stat_activity a WHERE usename = '{}'", APP.name);
                format!("{network:?}: {:#?}", self.node(old).sql(&rows))
            },
        );
        self.load.goes_on(50, 50, "and when the old one is seen again");
    }

    /// The standbys stream through a network that stops passing anything for some seconds.
    fn replication_cut(&mut self) {
        let own = self.node(self.primary).port();
        let road = self.replication[self.primary].address.port();
        let through = |from: u16, to: u16| {
            for standby in self.standbys() {
                let conninfo = standby.sql_value("SHOW primary_conninfo").unwrap().unwrap();
                standby
                    .set(
                        "primary_conninfo",
                        &conninfo.replace(&format!("port={from}"), &format!("port={to}")),
                    )
                    .unwrap();
                standby.wait_streaming(LONG).unwrap();
            }
        };
        through(own, road);
        let network = if self.round.is_multiple_of(2) { Network::Dropping } else { Network::Resetting };
        self.replication[self.primary].becomes(network);
        // Commits wait for a standby meanwhile; reads go on.
        self.load.goes_on(0, 100, "reads while nothing is replicated");
        self.load.stands_still(Duration::from_secs(1), "nothing is acknowledged that no standby has");
        self.replication[self.primary].becomes(Network::Whole);
        self.load.goes_on(20, 20, "replication is back");
        through(road, own);
    }

    fn split_brain(&mut self, outcome: &mut Outcome, begun: Instant) {
        let over = self.primary;
        let old = self.node(over);
        // Whoever is promoted confirms nothing more: the old primary cannot acknowledge on its own.
        old.set("synchronous_standby_names", "ANY 2 (*)").unwrap();
        self.promote_beside(outcome, begun);
        self.weir.wait_node(self.node(self.primary).name(), "is the primary", |row| {
            row.role.as_deref() == Some("primary")
        });
        // From now on it would take any write.
        old.set("synchronous_standby_names", "").unwrap();
        self.load.goes_on(20, 20, "with two primaries");
        self.load.all_write("each with two primaries");
        self.over = Some((over, newest(self.node(self.primary))));
        self.load.goes_on(150, 150, "with two primaries for longer");
    }

    fn rolling_restart(&mut self) {
        for standby in self.standbys() {
            standby.restart().unwrap();
            standby.wait_streaming(LONG).unwrap();
        }
        self.node(self.primary).restart().unwrap();
    }

    /// As pools do, those at work renew their connections at some time. Idle ones stay where they are.
    fn pgweir_replaced(&mut self) {
        let successor = self.stage.weir_with(&self.tuning);
        let old = std::mem::replace(&mut self.weir, successor);
        self.leaving = Some(old.leave(4 * LONG));
        self.load.goes_on(50, 50, "whoever is there stays there");
        self.load.renew();
        self.examination.renew();
        self.load.goes_on(50, 50, "with connections to the successor");
    }
}
