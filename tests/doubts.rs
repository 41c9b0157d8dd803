//! A server is lost before it says whether a write was committed. With `prove_commits` that is found out: what was
//! committed is answered as if nothing had happened, and what was not runs again, or fails so that it is retried.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/endings.rs"]
mod endings;
#[path = "support/harness.rs"]
mod harness;

use std::sync::Arc;

use endings::{code, done};
use harness::{NO_WRITER, Stage, Tuning, Weir, describe, first_value, wait_for, wait_until};
use pgweir::devcluster::{DevNode, Options, Stop};
use tokio_postgres::{Client, Error};

const SCHEMA: [&str; 2] = [NO_WRITER, "CREATE TABLE done (what text)"];

/// How writes are committed. The last two are transactions.
const FORMS: [&str; 6] = ["simple", "returning", "extended", "rows", "commit", "end"];

struct Play {
    stage: Stage,
    prove: bool,
    hold_time: &'static str,
    /// Nothing of what was acknowledged is lost, nor seems to be.
    keeps_all: bool,
}

impl Play {
    fn new() -> Play {
        let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
        Play { stage, prove: true, hold_time: "50s", keeps_all: true }
    }

    fn weir(&self) -> Weir<'_> {
        let on_loss = if self.keeps_all { "error" } else { "warning" };
        let tuning = Tuning {
            limits: vec![format!("hold_time: {}", self.hold_time)],
            ..Tuning::routing(&[
                &format!("prove_commits: {}", self.prove),
                &format!("lost_writes: {on_loss}"),
            ])
        };
        self.stage.weir_with(&tuning)
    }

    fn old(&self) -> &DevNode {
        self.stage.cluster.primary()
    }

    fn new_one(&self) -> &DevNode {
        self.stage.cluster.replica(0)
    }

    /// Commits wait on the primary for a standby that there is not.
    fn nobody_confirms(&self) {
        self.old().set_synchronous_standbys("nobody").unwrap();
    }

    /// They wait no more, from the next start or reload on.
    fn anybody_will_confirm(&self) {
        self.old().sql("ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
    }

    /// Writes of all forms, one per client, whose commits wait; what is done meanwhile; what they are told.
    fn lose(&self, weir: &Weir<'_>, meanwhile: impl FnOnce()) -> Vec<(&'static str, Result<String, Error>)> {
        self.stage.run(async {
            let mut clients = Vec::new();
            for form in FORMS {
                let client = Arc::new(weir.connect().await);
                // Each has a server connection, and later writes meet them as they are.
                client.batch_execute("BEGIN; INSERT INTO done VALUES ('before')").await.unwrap();
                clients.push((form, client));
            }
            for (form, client) in &clients {
                client.batch_execute("COMMIT").await.unwrap();
                if matches!(*form, "commit" | "end") {
                    client.batch_execute("BEGIN").await.unwrap();
                    client.batch_execute(&format!("INSERT INTO done VALUES ('{form}')")).await.unwrap();
                }
            }
            // Whatever is sampled later than these connections were made is of the same run of their server.
            tokio::task::block_in_place(|| {
                weir.wait_sampled(self.old());
                self.nobody_confirms();
            });
            // On their own: this task looks on.
            let writes = clients.iter().map(|(form, client)| {
                let (form, client) = (*form, client.clone());
                tokio::spawn(async move { write(&client, form).await })
            });
            let writes: Vec<_> = writes.collect();
            tokio::task::block_in_place(|| {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
                wait_until("all commits wait", || {
                    self.old().sql_value(waiting).unwrap() == Some(FORMS.len().to_string())
                });
                meanwhile();
            });
            let mut told = Vec::new();
            for (form, write) in FORMS.into_iter().zip(writes) {
                told.push((form, write.await.unwrap()));
            }
            for (form, client) in &clients {
                let next = client.batch_execute("INSERT INTO done VALUES ('next')").await;
                if self.keeps_all {
                    next.unwrap_or_else(|error| panic!("{form}: {}", describe(&error)));
                }
                wait_for("the session goes on", async || {
                    client.batch_execute("INSERT INTO done VALUES ('after')").await.is_ok()
                })
                .await;
                assert!(!client.is_closed(), "{form}");
            }
            told
        })
    }

    /// The standby has it all when its primary dies.
    fn promote_with_all(&self) {
        self.wait_replayed();
        self.old().sigkill().unwrap();
        self.new_one().promote().unwrap();
    }

    fn wait_replayed(&self) {
        let flushed = self.old().sql_value("SELECT pg_current_wal_flush_lsn()").unwrap().unwrap();
        let has_it = format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'");
        wait_until("the standby has it", || {
            self.new_one().sql_value(&has_it).unwrap().as_deref() == Some("t")
        });
    }

    /// Nothing that is on its way to the standby gets there.
    fn promote_without_the_rest(&self, weir: &Weir<'_>) {
        self.old().sigkill().unwrap();
        self.new_one().start().unwrap();
        weir.wait_node(self.new_one().name(), "is seen", |row| {
            row.state == "up" && row.role.as_deref() == Some("replica")
        });
        self.new_one().promote().unwrap();
    }
}

async fn write(client: &Client, form: &str) -> Result<String, Error> {
    let insert = format!("INSERT INTO done VALUES ('{form}')");
    let affected = |count: u64| Ok(count.to_string());
    match form {
        "simple" => client.simple_query(&format!("{insert};")).await.map(|answer| format!("{answer:?}")),
        "returning" => {
            let answer = client.simple_query(&format!("{insert} RETURNING what")).await?;
            Ok(first_value(&answer).unwrap_or_default())
        }
        "extended" => affected(client.execute("INSERT INTO done VALUES ($1)", &[&form]).await?),
        "rows" => {
            let rows = client.query("INSERT INTO done VALUES ($1), ($1) RETURNING what", &[&form]).await?;
            Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect())
        }
        "commit" => {
            // Dropped, it is closed in the same breath.
            drop(client.prepare("SELECT 1").await?);
            client.batch_execute("COMMIT").await.map(|()| String::new())
        }
        "end" => affected(client.execute("END", &[]).await?),
        _ => unreachable!(),
    }
}

/// As if nothing had happened.
fn assert_answered(told: Vec<(&str, Result<String, Error>)>, forms: &[&str]) {
    for (form, answer) in told.into_iter().filter(|(form, _)| forms.contains(form)) {
        let answer = answer.unwrap_or_else(|error| panic!("{form}: {}", describe(&error)));
        let expected = match form {
            "simple" => "[CommandComplete(1)]",
            "returning" => "returning",
            "extended" => "1",
            "rows" => "rowsrows",
            "commit" => "",
            _ => "0",
        };
        assert_eq!(answer, expected, "{form}");
    }
}

fn assert_done_once(node: &DevNode, forms: &[&str]) {
    for form in FORMS {
        let times = match (forms.contains(&form), form) {
            (true, "rows") => 2,
            (true, _) => 1,
            (false, _) => 0,
        };
        assert_eq!(done(node, form), times, "{form}");
    }
}

fn settled(weir: &Weir<'_>, verdict: &str) -> f64 {
    weir.metric("pgweir_settled_transactions_total", &format!("verdict=\"{verdict}\""))
}

#[test]
fn what_a_killed_primary_had_committed_and_its_standby_has_is_answered_as_if_nothing_had_happened() {
    let play = Play::new();
    let weir = play.weir();
    let told = play.lose(&weir, || play.promote_with_all());
    assert_answered(told, &FORMS);
    assert_done_once(play.new_one(), &FORMS);
    assert_eq!((settled(&weir, "committed"), settled(&weir, "unknown")), (6.0, 0.0));
}

#[test]
fn what_its_standby_has_not_got_runs_again_once_and_a_transaction_is_to_be_retried() {
    let play = Play { keeps_all: false, ..Play::new() };
    let weir = play.weir();
    play.new_one().stop(Stop::Fast).unwrap();
    let told = play.lose(&weir, || play.promote_without_the_rest(&weir));
    for (form, answer) in &told {
        if let ("commit" | "end", Err(error)) = (*form, answer) {
            assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{form}: {}", describe(error));
        }
    }
    let failed = told.iter().filter(|(_, answer)| answer.is_err()).count();
    assert_eq!(failed, 2, "{told:?}");
    assert_answered(told, &FORMS[..4]);
    assert_done_once(play.new_one(), &FORMS[..4]);
    assert_eq!((settled(&weir, "rolled_back"), settled(&weir, "unknown")), (6.0, 0.0));
}

#[test]
fn what_waits_for_a_standby_when_its_primary_is_shut_down_is_no_error_after_a_restart_nor_a_switchover() {
    let play = Play::new();
    let weir = play.weir();
    for (stop, settled_by_then) in [(Stop::Fast, 6.0), (Stop::Immediate, 12.0)] {
        let told = play.lose(&weir, || {
            play.anybody_will_confirm();
            play.old().stop(stop).unwrap();
            play.old().start().unwrap();
        });
        assert_answered(told, &FORMS);
        assert_done_once(play.old(), &FORMS);
        assert_eq!((settled(&weir, "committed"), settled(&weir, "unknown")), (settled_by_then, 0.0));
        weir.wait_whole(2);
        play.old().sql_as("app", "app", "TRUNCATE done").unwrap();
    }
    let told = play.lose(&weir, || {
        play.old().stop(Stop::Fast).unwrap();
        play.new_one().promote().unwrap();
    });
    assert_answered(told, &FORMS);
    assert_done_once(play.new_one(), &FORMS);
    assert_eq!((settled(&weir, "committed"), settled(&weir, "unknown")), (18.0, 0.0));
}

#[test]
fn a_commit_that_is_let_go_is_not_acknowledged_before_the_standbys_have_it() {
    let play = Play::new();
    let weir = play.weir();
    let told = play.lose(&weir, || {
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE usename = 'app' AND wait_event = 'SyncRep'";
        play.old().sql(ends).unwrap();
        // pgweir knows that they are committed, and waits with its own commit.
        let waits = "SELECT count(*) FROM pg_stat_activity \
            WHERE application_name = 'pgweir monitor' AND wait_event = 'SyncRep'";
        wait_until("it waits", || play.old().sql_value(waits).unwrap().as_deref() == Some("1"));
        assert_eq!(settled(&weir, "committed"), 0.0);
        play.anybody_will_confirm();
        play.old().reload().unwrap();
    });
    assert_answered(told, &FORMS);
    assert_done_once(play.old(), &FORMS);
}

#[test]
fn what_cannot_be_proven_within_hold_time_is_in_doubt() {
    let play = Play { hold_time: "1s", keeps_all: false, ..Play::new() };
    let weir = play.weir();
    let told = play.lose(&weir, || {
        play.old().sigkill().unwrap();
        wait_until("they are told", || settled(&weir, "unknown") == 6.0);
        play.new_one().promote().unwrap();
    });
    for (form, answer) in told {
        assert_eq!(code(answer), "08007", "{form}");
    }
}

#[test]
fn without_it_nothing_is_asked_and_they_are_in_doubt() {
    let play = Play { prove: false, keeps_all: false, ..Play::new() };
    let weir = play.weir();
    let told = play.lose(&weir, || play.promote_with_all());
    for (form, answer) in told {
        assert_eq!(code(answer), "08007", "{form}");
    }
    assert_eq!(settled(&weir, ""), 0.0);
}
