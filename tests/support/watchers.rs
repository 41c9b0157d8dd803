//! Who watches beside the clients: the consistency checker through pgweir, and writers past it.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgweir::cli::check_consistency::{Plan, Report, examine};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::{LONG, Stage, Weir, connect_to, first_value, wait_until};
use crate::load::Gap;

/// `pgweir check-consistency` at work, for as long as the events last.
pub struct Examination {
    stop: Arc<AtomicBool>,
    renewals: Arc<AtomicU32>,
    violations: Arc<AtomicU64>,
    operations: Arc<AtomicU64>,
    report: Arc<Mutex<Option<Report>>>,
}

impl Examination {
    /// It begins, and has seen something when this returns.
    pub fn start(stage: &Stage, weir: &Weir<'_>) -> Examination {
        let (stop, renewals) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let plan = Plan {
            sessions: 6,
            lists: 2,
            slow_sessions: 2,
            // What commits asynchronously may be lost: nobody promises otherwise.
            async_sessions: 0,
            duration: Duration::MAX,
            rest: Duration::from_millis(40),
            // Nothing is to be cleared up in a cluster that ends with the test.
            keep: true,
            stop: stop.clone(),
            renewals: renewals.clone(),
            ..Plan::of(weir.uri().parse().unwrap())
        };
        let this = Examination {
            stop,
            renewals,
            violations: Arc::default(),
            operations: Arc::default(),
            report: Arc::default(),
        };
        let (violations, operations) = (this.violations.clone(), this.operations.clone());
        let report = this.report.clone();
        stage.spawn(async move {
            let examined = examine(&plan, Duration::from_millis(20), |progress| {
                violations.store(progress.violations, Ordering::Relaxed);
                operations.store(progress.operations, Ordering::Relaxed);
            });
            let examined = Box::pin(examined).await.unwrap();
            *report.lock().unwrap() = Some(examined);
        });
        this.goes_on("the consistency checker begins");
        this
    }

    /// Its sessions leave, and come again.
    pub fn renew(&self) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until it has seen more.
    pub fn goes_on(&self, what: &str) {
        let before = self.operations.load(Ordering::Relaxed);
        wait_until(what, || self.operations.load(Ordering::Relaxed) > before + 50);
    }

    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// It ends.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        wait_until("the consistency checker ends", || self.report.lock().unwrap().is_some());
        let report = self.report.lock().unwrap().take();
        report.unwrap()
    }
}

/// A row for each node, that only the writer past pgweir to that node changes.
pub const BESIDE: &str = "CREATE TABLE beside (node int PRIMARY KEY, n int NOT NULL); \
    INSERT INTO beside SELECT node, 0 FROM generate_series(0, 9) node";

/// Writes to every node past pgweir, as soon as it is a primary: how long the servers themselves take
/// nothing is what nobody in front of them can be better than.
pub struct Beside {
    gap: Arc<Mutex<Gap>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Beside {
    pub fn start(stage: &Stage) -> Beside {
        let gap = Arc::new(Mutex::new(Gap::new()));
        let task = |(index, node): (usize, &DevNode)| stage.spawn(write(node.address(), index, gap.clone()));
        let tasks = stage.cluster.nodes().iter().enumerate().map(task).collect();
        Beside { gap, tasks }
    }

    pub fn forget(&self) {
        *self.gap.lock().unwrap() = Gap::new();
    }

    /// The longest time in which no node took a write.
    pub fn longest(&self) -> Duration {
        let mut gap = self.gap.lock().unwrap();
        gap.happened();
        gap.longest
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(node: SocketAddr, index: usize, gap: Arc<Mutex<Gap>>) {
    let rest = Duration::from_millis(20);
    let sql = format!("UPDATE beside SET n = n + 1 WHERE node = {index}");
    loop {
        tokio::time::sleep(rest).await;
        let Ok(client) = connect_to(node, APP, APP_DATABASE, "").await else { continue };
        while let Ok(Ok(messages)) = timeout(LONG, client.simple_query("SHOW in_hot_standby")).await {
            // Asked first: refused writes would fill the server's log.
            let is_primary = first_value(&messages).as_deref() == Some("off");
            if is_primary && let Ok(Ok(())) = timeout(LONG, client.batch_execute(&sql)).await {
                gap.lock().unwrap().happened();
            }
            tokio::time::sleep(rest).await;
        }
    }
}
