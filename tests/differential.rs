//! PostgreSQL and pgweir are sent the same bytes; they answer alike (`support/alike.rs` says what that is).
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/alike.rs"]
mod alike;
#[path = "support/random_talk.rs"]
mod random_talk;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use alike::{assert_alike, comparable};
use pgweir::devcluster::Options;
use random_talk::{Dice, TABLES, Talk};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    world.cluster.primary().sql_as("app", "app", TABLES).unwrap();
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// Few server connections, so that sessions meet what others have left behind.
static PROXY: LazyLock<Running> = LazyLock::new(|| WORLD.proxy(&[("pool", "{ size: 2 }")]));

/// The same with transactions that begin late.
static SPLIT: LazyLock<Running> = LazyLock::new(|| {
    WORLD.proxy(&[
        ("pool", "{ size: 2 }"),
        ("routing", "{ transactions: [ split, retry_idempotent_begin ], on_lag: wait }"),
    ])
});

/// The same with transactions that tell what proves afterwards whether they were committed.
static PROVING: LazyLock<Running> = LazyLock::new(|| {
    WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 60s }"), ("routing", "{ prove_commits: true }")])
});

/// How a script's bytes are written.
#[derive(Clone, Copy, Debug)]
enum Writing {
    AtOnce,
    OneByOne,
    Pieces(u64),
    /// Each group when the one before it has been answered.
    InTurn,
}

fn answers(port: u16, script: &[Vec<u8>], writing: Writing) -> Vec<String> {
    let mut wire = Wire::connect(port, &app().with("application_name", "test")).unwrap_or_else(|error| {
        let log = WORLD.cluster.primary().log();
        panic!("{error:?}; the primary's log: …{}", &log[log.len().saturating_sub(1000)..])
    });
    let greeting: Vec<String> =
        wire.parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let mut frames = Vec::new();
    if let Writing::InTurn = writing {
        for message in script {
            wire.send(message);
            if matches!(message[0], b'Q' | b'S') {
                frames.extend(wire.until_ready());
            }
        }
    }
    // Who has said enough to be disconnected is not listened to any more.
    let mut say = |bytes: &[u8]| drop(wire.try_send(bytes));
    match writing {
        Writing::InTurn => {}
        Writing::AtOnce => say(&script.concat()),
        Writing::OneByOne => script.iter().for_each(|message| say(message)),
        Writing::Pieces(seed) => {
            let (mut dice, bytes) = (Dice::new(seed), script.concat());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((1 + dice.roll(60)).min(rest.len()));
                say(piece);
                rest = behind;
            }
        }
    }
    frames.extend(wire.until_closed());
    // Nobody reads the answer of a group that Terminate cuts off, and what of it is sent is chance.
    frames.truncate(frames.iter().rposition(|frame| frame.tag == b'Z').map_or(0, |at| at + 1));
    [greeting, comparable(&frames)].concat()
}

const SEEDS: std::ops::Range<u64> = 1..21;
/// Seeds that have found something once.
const KNOWN: [u64; 2] = [2433, 1112];
const ROUNDS: usize = 12;

/// `PGWEIR_SEEDS=n` tries n seeds, from `PGWEIR_FIRST_SEED` on, instead of the usual ones.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PGWEIR_FIRST_SEED").unwrap_or(SEEDS.start);
    match number("PGWEIR_SEEDS") {
        Some(count) => (first..first + count).collect(),
        None => KNOWN.into_iter().chain(SEEDS).collect(),
    }
}

fn try_seed(seed: u64, proxy: &Running, talk: fn(&mut Dice) -> Vec<Vec<u8>>, patient: bool) -> bool {
    let mut dice = Dice::new(seed);
    (0..ROUNDS).all(|round| {
        let script = talk(&mut dice);
        let writing = match dice.roll(3) {
            1 | 2 if patient => Writing::InTurn,
            0 => Writing::AtOnce,
            1 => Writing::OneByOne,
            _ => Writing::Pieces(seed),
        };
        let expected = answers(WORLD.direct(), &script, Writing::AtOnce);
        let alike = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_alike("random messages", &expected, &answers(proxy.port, &script, writing));
        }));
        if alike.is_err() {
            let shown: Vec<String> = script.iter().map(|m| m.escape_ascii().to_string()).collect();
            println!("round {round} of PGWEIR_FIRST_SEED={seed}, {writing:?}: {shown:#?}");
        }
        alike.is_ok()
    })
}

#[test]
fn random_conversations_have_the_answers_of_postgresql() {
    assert_all(&PROXY, |dice| Talk::random(dice), false);
}

#[test]
fn random_conversations_with_split_transactions_have_the_answers_of_postgresql() {
    assert_all(&SPLIT, |dice| Talk::random(dice), false);
}

#[test]
fn random_conversations_have_the_answers_of_postgresql_where_commits_can_be_proven() {
    assert_all(&PROVING, |dice| Talk::random(dice), false);
    assert_all(&PROVING, |dice| Talk::in_transactions(dice), true);
}

#[test]
fn what_is_said_of_single_writes_is_said_alike_where_commits_can_be_proven() {
    let _turn = turn();
    static SCHEMA: [&str; 4] = [
        "CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS \
            $$ BEGIN RAISE NOTICE 'it is %', NEW.n; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER says AFTER INSERT ON later INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION says()",
        "CREATE FUNCTION fails() RETURNS int VOLATILE LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
    ];
    SCHEMA.iter().for_each(|sql| drop(WORLD.cluster.primary().sql_as("app", "app", sql).unwrap()));
    let long = "x".repeat(70);
    let texts = [
        "INSERT INTO later VALUES (1);",
        "INSERT INTO later VALUES (1)",
        "INSERT INTO later VALUES (1) RETURNING n",
        "/* one */ INSERT INTO later VALUES (2) RETURNING n, n + 1 AS more -- done",
        "UPDATE later SET n = 1",
        "UPDATE later SET n = n WHERE n > 10",
        "DELETE FROM later WHERE n = 2 RETURNING *",
        "SELECT n FROM later FOR UPDATE",
        "SELECT fails()",
        "SELECT setseed(0.5), random()",
        "INSERT INTO later VALUES ($1)",
        "INSERT INTO later VALUES ('$1')",
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO later SELECT 1/0",
        &format!("INSERT INTO later AS {long} VALUES (7)"),
        "DEALLOCATE ALL",
        "INSERT INTO later VALUES (8)",
        "DISCARD ALL",
        "INSERT INTO later VALUES (9)",
        "BEGIN",
        "INSERT INTO later VALUES (9)",
        "COMMIT",
        "BEGIN",
        "INSERT INTO later VALUES (10)",
        "COMMIT /* and so */ WORK;",
        "BEGIN",
        "SELECT 1/0",
        "COMMIT",
        "TRUNCATE later",
    ];
    let simple: Vec<Vec<u8>> = texts.iter().map(|text| query(text)).chain([terminate()]).collect();
    let extended: Vec<Vec<u8>> = texts
        .iter()
        .flat_map(|text| {
            [parse("", text, &[]), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()]
        })
        .chain([terminate()])
        .collect();
    for (script, how) in [(simple, "simple"), (extended, "extended")] {
        let expected = answers(WORLD.direct(), &script, Writing::InTurn);
        // Twice: the second time the connection knows what is asked.
        for writing in [Writing::InTurn, Writing::InTurn, Writing::AtOnce, Writing::OneByOne] {
            assert_alike(how, &expected, &answers(PROVING.port, &script, writing));
        }
    }
}

#[test]
fn random_transactions_have_the_answers_of_postgresql_where_they_are_split() {
    assert_all(&SPLIT, |dice| Talk::in_transactions(dice), true);
    let split = SPLIT.metric("pgweir_statements_total", "reason=\"split_transaction\"");
    assert!(split > 20.0 || seeds().len() < 20, "{split} reads of split transactions went to the replica");
}

/// One test at a time: they write into the same tables, and share connections.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn assert_all(proxy: &Running, talk: fn(&mut Dice) -> Vec<Vec<u8>>, patient: bool) {
    let _turn = turn();
    let wrong: Vec<u64> = seeds().into_iter().filter(|seed| !try_seed(*seed, proxy, talk, patient)).collect();
    assert!(wrong.is_empty(), "these seeds (PGWEIR_FIRST_SEED=n PGWEIR_SEEDS=1): {wrong:?}");
}
