//! What fingerprint, cache and decision cost together, in nanoseconds, as one line of JSON for `scripts/bench`:
//! hits for a `pgbench -S` text with ever new literals and for a statement of 15 lines; whether a miss parses once;
//! what a storm of 100,000 shapes does to the cache and to the hits; how hostile texts grow.

#[allow(dead_code)]
#[path = "../benches/work/pieces.rs"]
mod work;

use pgweir::sql::class::{Access, Why};
use serde_json::json;
use std::hint::black_box;
use std::time::Instant;
use work::{Classifying, Deciding, ORM};

const STORM: usize = 100_000;
const BATCH: usize = 50;

fn main() {
    let mut classes = Classifying::new();
    let mut deciding = Deciding::new(2);
    let pgbench: Vec<String> = (0..20_000_u32)
        .map(|n| {
            format!(
                "SELECT abalance FROM pgbench_accounts WHERE aid = {};",
                n.wrapping_mul(2_654_435_761) >> 8
            )
        })
        .collect();
    let orm: Vec<String> = (0..2_000).map(|n| ORM.replace("= 42", &format!("= {n}"))).collect();
    let hit = |classes: &mut Classifying, deciding: &mut Deciding, texts: &[String]| {
        nanoseconds(texts, |text| {
            let class = classes.class_of(black_box(text.as_bytes()));
            black_box(deciding.decide(class.access, class.why));
        })
    };
    let short = hit(&mut classes, &mut deciding, &pgbench);
    let long = hit(&mut classes, &mut deciding, &orm);
    let same = hit(&mut classes, &mut deciding, &vec![ORM.to_owned(); 2_000]);
    let misses_before = classes.classifier.counts().misses;

    let storm: Vec<String> = (0..STORM).map(|n| format!("SELECT a{n} FROM t{n} WHERE x = 1")).collect();
    let began = Instant::now();
    for text in &storm {
        black_box(classes.class_of(text.as_bytes()));
    }
    let miss = began.elapsed().as_nanos() as f64 / STORM as f64;
    let misses = classes.classifier.counts().misses - misses_before;
    let shapes = classes.classifier.shapes();
    // Hits in the middle of a storm, and just before it.
    let mut quiet = Vec::new();
    let mut stormy = Vec::new();
    for round in 0..20 {
        quiet.push(hit(&mut classes, &mut deciding, &pgbench[round * 1000..][..1000]));
        for text in storm.iter().skip(round * 5000).take(5000) {
            black_box(classes.class_of(text.as_bytes()));
        }
        stormy.push(hit(&mut classes, &mut deciding, &pgbench[round * 1000..][..1000]));
    }
    let hostile = [
        ("10 MB of a string without an end", hostile(|n| format!("SELECT '{}", "x".repeat(n)), 10_000_000)),
        ("10 MB of short tokens", hostile(|n| "a,".repeat(n / 2), 10_000_000)),
        ("100,000 parentheses", hostile(|n| format!("SELECT {}", "(".repeat(n)), 100_000)),
        ("100,000 quotes", hostile(|n| "\"".repeat(n | 1), 100_000)),
        ("100,000 signs in a row", hostile(|n| "+".repeat(n), 100_000)),
        ("100,000 comments within comments", hostile(|n| "/*".repeat(n), 100_000)),
    ];
    let hostile: Vec<_> = hostile
        .into_iter()
        .map(|(what, (tenth, whole))| json!({ "what": what, "ms": whole / 1e6, "growth": whole / tenth }))
        .collect();
    println!(
        "{}",
        json!({
            "pgbench_ns": short, "orm_ns": long, "orm_same_text_ns": same, "miss_ns": miss,
            "storm": { "shapes": STORM, "misses": misses, "kept": shapes,
                "hit_before_ns": median(&mut quiet), "hit_after_ns": median(&mut stormy) },
            "hostile": hostile,
            "decide_2_ns": nanoseconds(&[(); 20_000], |()| {
                black_box(deciding.decide(Access::Read, Why::PlainRead));
            }),
        })
    );
}

/// The median over small batches, each too short for others on the same core to be in many of them.
fn nanoseconds<T>(pieces: &[T], mut once: impl FnMut(&T)) -> f64 {
    let mut all = Vec::new();
    for _ in 0..9 {
        for batch in pieces.chunks(BATCH) {
            let began = Instant::now();
            batch.iter().for_each(&mut once);
            all.push(began.elapsed().as_nanos() as f64 / batch.len() as f64);
        }
    }
    median(&mut all)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long a text of a tenth of the size takes, and one of the whole, in nanoseconds: linear is a factor of ten.
fn hostile(make: impl Fn(usize) -> String, size: usize) -> (f64, f64) {
    let took = |size| {
        let text = make(size);
        let mut least = f64::MAX;
        for _ in 0..5 {
            let mut classes = Classifying::new();
            let began = Instant::now();
            black_box(classes.class_of(text.as_bytes()));
            least = least.min(began.elapsed().as_nanos() as f64);
        }
        least
    };
    (took(size / 10), took(size))
}
