//! The same clients before a cluster that Patroni rules: what happens to it is done through Patroni, or to it.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::time::Instant;

use pgweir::cli::check_consistency::Report;
use pgweir::devcluster::{APP, DevNode, Options};

use crate::events::{Event, Outcome, astray, newest, written};
use crate::harness::{NO_WRITER, Stage, Tuning, Weir, wait_until_or};
use crate::load::{Crowd, Load, ON_REPLICA, WRITTEN};
use crate::patroni::{Commits, Patroni};
use crate::watchers::{BESIDE, Beside, Examination};

/// How pgweir knows the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// They are listed; pgweir measures for itself who leads.
    Listed,
    /// From Patroni's REST API alone.
    ToPatroni,
}

/// Patroni's cluster, a pgweir, and clients.
pub struct PatroniTheatre<'a> {
    stage: &'a Stage,
    patroni: &'a Patroni<'a>,
    weir: Weir<'a>,
    load: Load,
    examination: Examination,
    beside: Beside,
}

/// Three nodes, before Patroni takes them over.
pub fn stage() -> Stage {
    Stage::with(Options::default(), &[NO_WRITER, ON_REPLICA, WRITTEN, BESIDE])
}

impl<'a> PatroniTheatre<'a> {
    pub fn open(
        stage: &'a Stage,
        patroni: &'a Patroni<'a>,
        crowd: Crowd,
        known: Known,
    ) -> PatroniTheatre<'a> {
        let tuning = Tuning {
            limits: vec!["hold_time: 60s".to_owned()],
            interval: "100ms",
            ..Tuning::routing(&["prove_commits: true"])
        };
        let nodes = 0..stage.cluster.nodes().len();
        let endpoints: Vec<String> = nodes.map(|index| patroni.endpoint(index)).collect();
        let from_patroni = format!("patroni: {{ endpoints: [ {} ] }}", endpoints.join(", "));
        let tuning = match known {
            Known::Listed => tuning,
            Known::ToPatroni => Tuning { unlisted: true, cluster: vec![from_patroni], ..tuning },
        };
        let weir = stage.weir_with(&tuning);
        let load = Load::start(stage, weir.address, crowd);
        let examination = Examination::start(stage, &weir);
        let beside = Beside::start(stage);
        PatroniTheatre { stage, patroni, weir, load, examination, beside }
    }

    /// What the consistency checker has found in all of it.
    pub fn close(self) -> Report {
        let report = self.examination.finish();
        self.load.stop(self.stage);
        report
    }

    /// Plays one round: the cluster is whole before and afterwards.
    pub fn play(&self, event: Event) -> Outcome {
        let commits = match event {
            Event::PatroniSwitchover => Commits::Asynchronous,
            _ => Commits::Synchronous,
        };
        self.patroni.set_commits(commits);
        self.patroni.wait_whole();
        self.load.goes_on(50, 50, "the clients work before anything happens");
        self.load.forget();
        self.beside.forget();
        let violations = self.examination.violations();
        let old = self.patroni.wait_any_leader();
        let mut outcome = Outcome::default();
        // When Patroni had a new leader, where it had to find one.
        let mut elected = None;
        let mut strays = None;
        match event {
            Event::PatroniSwitchover | Event::PatroniSwitchoverSync => {
                self.patroni.switch_over(old, self.patroni.candidate());
            }
            Event::PatroniSwitchoverPaused => {
                let (stage, to) = (self.stage, self.patroni.candidate());
                let console = stage.run(self.weir.connect_as(APP, "pgweir", "")).unwrap();
                stage.run(console.batch_execute("PAUSE")).unwrap();
                self.patroni.switch_over(old, to);
                stage.run(console.batch_execute("RESUME")).unwrap();
            }
            Event::PatroniPrimaryKilled => {
                self.patroni.sigkill(old);
                self.patroni.wait_leader(&self.others(old));
                elected = Some(Instant::now());
            }
            Event::PatroniKilled => {
                self.patroni.sigkill_agent(old);
                let new = self.patroni.wait_leader(&self.others(old));
                elected = Some(Instant::now());
                self.load.goes_on(20, 20, "with two primaries");
                self.load.all_write("each with two primaries");
                let taken = newest(self.node(new));
                self.load.goes_on(100, 100, "with two primaries for longer");
                strays = Some((new, taken));
            }
            Event::EtcdLost => self.etcd_lost(old),
            Event::PatroniRollingRestart => self.rolling_restart(old),
            other => panic!("{other:?} is played without Patroni"),
        }
        self.load.goes_on(100, 100, &format!("the clients go on after: {}", event.name()));
        self.examination.goes_on("the checker goes on");
        outcome.violations = self.examination.violations() - violations;
        outcome.servers_gap = Some(self.beside.longest());
        let told = self.load.told();
        if let Some((new, taken)) = strays {
            let from = told.fates.oldest();
            let on_old = written(self.node(old), from);
            outcome.astray = astray(&on_old, &written(self.node(new), from), &taken, &told);
        }
        outcome.after_leader = elected.map(|elected| told.writes_back().saturating_duration_since(elected));
        outcome.judge(event, told, self.node(self.patroni.wait_any_leader()));
        outcome.idle_lost = self.load.idle_lost(self.stage);
        if elected.is_some() {
            self.patroni.sigkill_server(old);
            if event == Event::PatroniKilled {
                // It went its own way: it is copied anew, which Patroni would find out only after a recovery.
                self.patroni.forget_data(old);
            }
            self.patroni.start(old);
        }
        self.whole();
        outcome
    }

    fn node(&self, index: usize) -> &'a DevNode {
        self.patroni.node(index)
    }

    fn others(&self, one: usize) -> Vec<usize> {
        (0..self.stage.cluster.nodes().len()).filter(|&index| index != one).collect()
    }

    /// Until Patroni has given the primary up, and some reads longer.
    fn etcd_lost(&self, old: usize) {
        self.patroni.freeze_etcd();
        wait_until_or(
            "Patroni gives the primary up without etcd",
            || self.node(old).is_in_recovery().unwrap_or(false),
            || self.patroni.log(old),
        );
        self.load.goes_on(0, 100, "reads while nobody leads");
        self.patroni.thaw_etcd();
        self.patroni.wait_any_leader();
    }

    fn rolling_restart(&self, primary: usize) {
        for standby in self.others(primary) {
            self.patroni.restart(standby);
            self.patroni.wait_whole();
        }
        self.patroni.restart(primary);
        self.patroni.wait_leader(&[primary]);
    }

    /// For Patroni, and for pgweir.
    fn whole(&self) {
        self.patroni.wait_whole();
        let primary = self.node(self.patroni.wait_any_leader());
        self.weir.wait_whole_under(primary);
    }
}
