//! Recorded conversations of drivers and tools (`tests/conversations`, made with `examples/record.rs`) are
//! played against PostgreSQL and through pgweir, however their bytes are cut. `support/alike.rs` says
//! what may differ.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/alike.rs"]
mod alike;
#[path = "support/conversation.rs"]
mod conversation;
#[path = "support/random_talk.rs"]
mod random_talk;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use alike::{assert_alike, comparable};
use conversation::{Conversation, Step, line_of, parse};
use pgweir::devcluster::Options;
use random_talk::{Dice, TABLES};
use std::path::Path;
use std::thread;
use wire_client::{Frame, Wire, terminate};
use wire_world::*;

/// The tables that the conversations were recorded with, in that order: some ask for them by OID.
const BENCH_TABLES: &str = "CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)); \
    CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)); \
    CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)); \
    CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22)); \
    INSERT INTO pgbench_branches VALUES (1, 0); \
    INSERT INTO pgbench_tellers SELECT n, 1, 0 FROM generate_series(1, 10) n; \
    INSERT INTO pgbench_accounts SELECT n, 1, 0 FROM generate_series(1, 100) n";

/// What they have changed is undone.
const FRESH: &str = "TRUNCATE talk, pgbench_history; UPDATE pgbench_branches SET bbalance = 0; \
    UPDATE pgbench_tellers SET tbalance = 0; UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0";

/// How the bytes of a turn (what a client says before it waits) are written.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Nowhere,
    /// In two: short turns are cut at each point in one of the runs, long ones at random.
    Once(usize),
    Everywhere,
}

/// The runs with turns that are cut in two; `PGWEIR_CUTS=n` for more of them.
const CUTS: usize = 10;

struct Player {
    world: World,
    through: Running,
    /// The same with transactions that begin late.
    split: Running,
    /// The same with commits that can be proven afterwards.
    proving: Running,
}

impl Player {
    fn new() -> Player {
        let world = World::start(Options::with_replicas(1));
        world.cluster.primary().sql_as("app", "app", TABLES).unwrap();
        world.cluster.primary().sql_as("app", "app", BENCH_TABLES).unwrap();
        world.cluster.wait_caught_up(LONG).unwrap();
        let through = world.proxy(&[("pool", "{ size: 2 }")]);
        let routing = ("routing", "{ transactions: [ split, retry_idempotent_begin ], on_lag: wait }");
        let split = world.proxy(&[("pool", "{ size: 2 }"), routing]);
        let routing = ("routing", "{ prove_commits: true }");
        let proving = world.proxy(&[("pool", "{ size: 2 }"), routing]);
        Player { world, through, split, proving }
    }

    fn play(&self, conversation: &Conversation, port: u16, cut: Cut) -> Vec<String> {
        self.world.cluster.primary().sql_as("app", "app", FRESH).unwrap();
        self.world.cluster.wait_caught_up(LONG).unwrap();
        let mut login = app();
        login.parameters.clone_from(&conversation.login);
        let mut wire = Wire::connect(port, &login).unwrap_or_else(|error| panic!("login: {error:?}"));
        let mut answers: Vec<String> =
            wire.parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let (mut frames, mut turn, mut dice) = (Vec::new(), Vec::new(), Dice::new(7));
        for step in &conversation.steps {
            match step {
                Step::Say(message) => turn.extend_from_slice(message),
                Step::Wait(tags) => {
                    say(&mut wire, &std::mem::take(&mut turn), cut, &mut dice);
                    wait(&mut wire, tags, &mut frames);
                }
            }
        }
        if turn.first() != Some(&b'X') {
            turn.extend(terminate());
        }
        say(&mut wire, &turn, cut, &mut dice);
        frames.extend(wire.until_closed());
        answers.extend(comparable(&frames));
        answers
    }
}

fn say(wire: &mut Wire, turn: &[u8], cut: Cut, dice: &mut Dice) {
    match cut {
        Cut::Nowhere => wire.send(turn),
        Cut::Everywhere => turn.iter().for_each(|byte| wire.send(&[*byte])),
        Cut::Once(_) if turn.len() < 2 => wire.send(turn),
        Cut::Once(run) => {
            let points = turn.len() - 1;
            let at = 1 + if points <= CUTS { run % points } else { (dice.roll(points) + run * 31) % points };
            wire.send(&turn[..at]);
            // Not a wait for anything: it makes it likely that the two parts are read apart.
            thread::yield_now();
            wire.send(&turn[at..]);
        }
    }
}

/// Reads until these types of messages have come, in this order. Rows there may be or not.
fn wait(wire: &mut Wire, tags: &[u8], frames: &mut Vec<Frame>) {
    for tag in tags.iter().filter(|tag| !matches!(tag, b'D' | b'd')) {
        loop {
            let frame = wire.next();
            let found = frame.tag == *tag;
            frames.push(frame);
            if found {
                break;
            }
        }
    }
}

fn recorded() -> Vec<Conversation> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut all: Vec<Conversation> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            parse(&path.file_stem().unwrap().to_string_lossy(), &std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

#[test]
fn recorded_conversations_have_the_answers_of_postgresql_wherever_their_bytes_are_cut() {
    let only = std::env::var("PGWEIR_CONVERSATION").ok();
    let cuts = std::env::var("PGWEIR_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS);
    let player = Player::new();
    let mut wrong = Vec::new();
    let all = recorded();
    assert!(all.len() >= 25, "{} conversations", all.len());
    for conversation in all.iter().filter(|one| only.as_ref().is_none_or(|only| one.name == *only)) {
        let expected = player.play(conversation, player.world.direct(), Cut::Nowhere);
        let ways = [Cut::Nowhere, Cut::Everywhere].into_iter().chain((0..cuts).map(Cut::Once));
        let through = ways.map(|cut| (cut, &player.through, "as ever"));
        let split = [Cut::Nowhere, Cut::Everywhere].map(|cut| (cut, &player.split, "split"));
        let proving = [Cut::Nowhere, Cut::Everywhere].map(|cut| (cut, &player.proving, "proving"));
        for (cut, proxy, how) in through.chain(split).chain(proving) {
            let name = format!("{} ({how}, cut {cut:?})", conversation.name);
            let alike = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let found = player.play(conversation, proxy.port, cut);
                assert_alike(&name, &expected, &found);
            }));
            if alike.is_err() {
                wrong.push(name);
                break;
            }
        }
    }
    let split = player.split.metric("pgweir_statements_total", "reason=\"split_transaction\"");
    assert!(only.is_some() || split > 0.0, "no read of a transaction went to the replica");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_conversation_is_written_as_it_is_read() {
    for conversation in recorded() {
        for step in &conversation.steps {
            let Step::Say(message) = step else { continue };
            let line = line_of(message[0], &message[5..]);
            assert_eq!(parse("a line", &line).steps, std::slice::from_ref(step), "{line}");
        }
    }
}
