#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

const ONE: TimelineId = TimelineId(1);

fn sample(sent: u64, insert: u64, flush: u64) -> PrimarySample {
    PrimarySample { sent: Moment(sent), insert: Lsn(insert), flush: Lsn(flush), timeline: ONE }
}

fn mark(ring: &PrimaryRing, replay: u64) -> (u64, u64) {
    let mark = ring.watermark(WalPosition { timeline: ONE, lsn: Lsn(replay) });
    (mark.insert.0, mark.flush.0)
}

#[test]
fn the_watermark_is_the_newest_sample_that_was_replayed() {
    let mut ring = PrimaryRing::default();
    for (sent, insert, flush) in [(10, 1000, 900), (20, 2000, 1900), (30, 3000, 2000)] {
        assert_eq!(ring.push(sample(sent, insert, flush)), Pushed::Kept);
    }
    let table = [(800, 0, 0), (900, 0, 10), (1000, 10, 10), (1999, 10, 20), (2000, 20, 30), (9999, 30, 30)];
    for (replay, insert, flush) in table {
        assert_eq!(mark(&ring, replay), (insert, flush), "replay {replay}");
    }
}

#[test]
fn an_idle_primary_makes_an_old_position_prove_new_moments() {
    let mut ring = PrimaryRing::default();
    for sent in 1..100_000 {
        ring.push(sample(sent, 1000, 1000));
    }
    assert_eq!(mark(&ring, 1000), (99_999, 99_999));
    assert_eq!(mark(&ring, 999), (0, 0));
}

#[test]
fn a_position_just_behind_a_page_header_is_the_page_boundary() {
    let geometry = WalGeometry::default();
    let segment = 16 << 20;
    let table = [
        (8192 + 24, 8192),
        (8192 + 25, 8192 + 25),
        (8192 + 40, 8192 + 40),
        (8192, 8192),
        (segment + 40, segment),
        (segment + 24, segment + 24),
        (segment + 8192 + 24, segment + 8192),
        (0, 0),
    ];
    for (position, end) in table {
        assert_eq!(geometry.last_record_end(Lsn(position)), Lsn(end), "{position}");
    }
    let zero = WalGeometry { block_size: 0, segment_size: 0 };
    assert_eq!(zero.last_record_end(Lsn(24)), Lsn(24));
}

#[test]
fn another_timeline_starts_a_new_ring() {
    let mut ring = PrimaryRing::default();
    ring.push(sample(10, 1000, 1000));
    let two = PrimarySample { timeline: TimelineId(2), ..sample(20, 900, 900) };
    assert_eq!(ring.push(two), Pushed::NewTimeline);
    assert_eq!(mark(&ring, 5000), (0, 0));
    let on_two = WalPosition { timeline: TimelineId(2), lsn: Lsn(900) };
    assert_eq!(ring.watermark(on_two).insert, Moment(20));
}

#[test]
fn a_position_that_goes_backwards_forgets_the_older_samples() {
    let mut ring = PrimaryRing::default();
    ring.push(sample(10, 1000, 800));
    assert_eq!(ring.push(sample(20, 900, 900)), Pushed::Backwards);
    assert_eq!(mark(&ring, 850), (0, 0));
    assert_eq!(mark(&ring, 900), (20, 20));
    assert_eq!(ring.push(sample(15, 950, 950)), Pushed::OutOfOrder);
    assert_eq!(mark(&ring, 950), (20, 20));
}

#[test]
fn thinning_is_bounded_keeps_the_newest_exact_and_old_ones_within_a_few_percent() {
    let mut ring = PrimaryRing::default();
    let milli = 1_000_000;
    let last = 60_000;
    for tick in 1..=last {
        ring.push(sample(tick * milli, tick * 100, tick * 100));
    }
    assert!(ring.insert.entries.len() <= CAPACITY);
    for behind in [0, 1, 10, 100, 1000, 10_000, 50_000] {
        let exact = (last - behind) * milli;
        let (found, _) = mark(&ring, (last - behind) * 100);
        let allowed = behind * milli / 16 + 3 * CAPACITY as u64 * milli / 64;
        assert!(found <= exact, "{behind}: {found} is newer than {exact}");
        assert!(exact - found <= allowed, "{behind}: {found} against {exact}");
    }
    assert_eq!(mark(&ring, last * 100).0, last * milli);
}

proptest! {
    /// A model: commits grow the WAL, samples read it, a replica replays a prefix of what was
    /// flushed. Whatever is committed by the watermark has been replayed.
    #[test]
    fn everything_committed_by_the_watermark_is_replayed(
        steps in proptest::collection::vec((0u8..5, 1u64..20_000), 1..300)
    ) {
        let mut ring = PrimaryRing::default();
        let (mut now, mut insert, mut flush, mut replay) = (1u64, 8192u64 * 3, 8192u64 * 3, 0u64);
        // (finished at, end of its record, synchronous)
        let mut commits: Vec<(u64, u64, bool)> = Vec::new();
        for (step, size) in steps {
            now += 1;
            match step {
                0 => { insert += size; flush = insert; commits.push((now, insert, true)); }
                1 => { insert += size; commits.push((now, insert, false)); }
                2 => { flush = insert; }
                3 => { ring.push(sample(now, header(insert), flush)); }
                _ => { replay = (replay + size).min(flush); }
            }
            let (by_insert, by_flush) = mark(&ring, replay);
            for &(at, end, synchronous) in &commits {
                prop_assert!(at >= by_insert || end <= replay, "insert watermark {by_insert}: {at} {end} {replay}");
                prop_assert!(!synchronous || at >= by_flush || end <= replay, "flush watermark {by_flush}");
            }
        }
    }
}

/// As PostgreSQL reports an insert position that stands at a page boundary.
fn header(lsn: u64) -> u64 {
    match (lsn % (16 << 20), lsn % 8192) {
        (0, _) => lsn + 40,
        (_, 0) => lsn + 24,
        _ => lsn,
    }
}
