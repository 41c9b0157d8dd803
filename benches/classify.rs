//! What classification costs: by exact text, by shape, and from nothing.

#![allow(missing_docs)]

use divan::{Bencher, black_box};
use pgweir::sql::cache::{Classifier, LocalCache, Scope};
use pgweir::sql::catalog::{Catalog, Overrides};
use pgweir::sql::classify::classify;
use pgweir::sql::lexer::{Dialect, Keys, shape_of};

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
const INSERT: &str =
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)";
const ORM: &str = r#"SELECT "orders"."id", "orders"."total", "users"."name", "items"."sku", count("items"."id") AS "n" FROM "orders" INNER JOIN "users" ON "users"."id" = "orders"."user_id" LEFT OUTER JOIN "items" ON "items"."order_id" = "orders"."id" WHERE "orders"."state" IN ('open', 'paid', 'sent') AND "users"."tenant_id" = 42 AND ("orders"."created_at" >= '2024-01-01' OR "orders"."flag" IS NOT NULL) GROUP BY "orders"."id", "users"."name", "items"."sku" ORDER BY "orders"."created_at" DESC, "orders"."id" ASC LIMIT 50 OFFSET 100"#;

fn main() {
    divan::main();
}

#[divan::bench(args = [PGBENCH, INSERT, ORM])]
fn fingerprint(text: &str) -> pgweir::sql::lexer::Shape {
    shape_of(black_box(text).as_bytes(), &Keys::fixed())
}

#[divan::bench(args = [PGBENCH, INSERT, ORM])]
fn from_nothing(bencher: Bencher, text: &str) {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    bencher.bench_local(|| {
        classify(black_box(text).as_bytes(), &catalog, &overrides, Dialect::STANDARD, &Keys::fixed())
    });
}

#[divan::bench(args = [PGBENCH, INSERT, ORM])]
fn by_exact_text(bencher: Bencher, text: &str) {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let classifier = Classifier::new(Keys::fixed(), 4096, 1024);
    let mut local = LocalCache::new(1024);
    let scope = Scope { database: 1, catalog: &catalog, overrides: &overrides, dialect: Dialect::STANDARD };
    bencher.bench_local(|| classifier.class_of(&mut local, &scope, black_box(text).as_bytes()));
}

/// As pgbench does in simple protocol: another literal every time, so the exact text misses.
#[divan::bench]
fn by_shape_with_another_literal_each_time(bencher: Bencher) {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let classifier = Classifier::new(Keys::fixed(), 4096, 1024);
    let mut local = LocalCache::new(1024);
    let scope = Scope { database: 1, catalog: &catalog, overrides: &overrides, dialect: Dialect::STANDARD };
    let texts: Vec<String> = (0..100_000u32)
        .map(|aid| {
            format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", aid.wrapping_mul(2_654_435_761))
        })
        .collect();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % texts.len();
        classifier.class_of(&mut local, &scope, black_box(texts[next].as_bytes()))
    });
}
