//! Streams of messages and the groups they are cut into.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::wire::writers;
use proptest::prelude::*;

/// "w…" writes, everything else reads; the only known name is `s`.
struct Words;

fn class(access: Access) -> Class {
    let why = if access == Access::Read { Why::PlainRead } else { Why::WritesRows };
    Class { access, why, marks: Marks(0), route: Route::Auto, fingerprint: Fingerprint(1), rules: 0 }
}

impl Classes for Words {
    fn of_text(&mut self, text: &[u8]) -> Class {
        class(if text.starts_with(b"w") { Access::Write } else { Access::Read })
    }

    fn of_name(&mut self, name: &[u8]) -> Option<Class> {
        (name == b"s").then(|| class(Access::Write))
    }
}

fn bind(out: &mut Vec<u8>, statement: &[u8]) {
    writers::bind_head(out, b"", statement, 6);
    out.extend([0; 6]);
}

fn execute(out: &mut Vec<u8>) {
    writers::message(out, b'E', |out| out.extend([0; 5]));
}

fn group(bytes: &[u8]) -> Group {
    match GroupBuilder::default().scan(bytes, 1 << 20, &mut Words).unwrap() {
        Scan::Group(group) => group,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_is_a_group_and_what_follows_is_left_alone() {
    let mut bytes = Vec::new();
    writers::query(&mut bytes, b"r");
    let len = bytes.len();
    writers::query(&mut bytes, b"w");
    let first = group(&bytes);
    assert_eq!((first.len, first.access, first.complete), (len, Access::Read, true));
}

#[test]
fn the_strictest_part_decides_for_the_group() {
    let mut bytes = Vec::new();
    writers::parse(&mut bytes, b"", b"r", &[0, 0]);
    bind(&mut bytes, b"");
    execute(&mut bytes);
    bind(&mut bytes, b"s");
    execute(&mut bytes);
    bytes.extend(writers::SYNC);
    let whole = group(&bytes);
    assert_eq!((whole.len, whole.access, whole.complete), (bytes.len(), Access::Write, true));
}

#[test]
fn flush_and_size_cut_a_group_open() {
    let mut bytes = Vec::new();
    writers::parse(&mut bytes, b"", b"r", &[0, 0]);
    writers::message(&mut bytes, b'H', |_| {});
    assert!(!group(&bytes).complete);
    bytes.clear();
    while bytes.len() <= GROUP_LIMIT {
        writers::parse(&mut bytes, b"", b"r", &[0, 0]);
    }
    assert!(!group(&bytes).complete);
}

#[test]
fn a_group_that_only_parses_and_describes_reads() {
    let mut bytes = Vec::new();
    writers::parse(&mut bytes, b"a", b"w", &[0, 0]);
    writers::statement(&mut bytes, b'D', b"a");
    bytes.extend(writers::SYNC);
    assert_eq!((group(&bytes).access, group(&bytes).executes), (Access::Read, false));
}

#[test]
fn sync_alone_needs_no_server() {
    assert!(!group(&writers::SYNC).needs_server);
}

#[test]
fn unknown_types_and_lengths_are_errors() {
    let scan = |bytes: &[u8]| GroupBuilder::default().scan(bytes, 100, &mut Words);
    assert_eq!(scan(b"?\0\0\0\x04"), Err(FrameError::Tag { tag: b'?' }));
    assert_eq!(scan(b"Q\xff\xff\xff\xff"), Err(FrameError::Length { tag: b'Q', length: u32::MAX }));
    assert_eq!(scan(b"Q\0\0\0"), Ok(Scan::NeedMore));
}

proptest! {
    #[test]
    fn where_the_stream_is_split_makes_no_difference(cut in 0..80_usize) {
        let mut bytes = Vec::new();
        writers::parse(&mut bytes, b"a", b"r 1", &[0, 0]);
        bind(&mut bytes, b"a");
        execute(&mut bytes);
        bytes.extend(writers::SYNC);
        let cut = cut.min(bytes.len() - 1);
        let mut builder = GroupBuilder::default();
        prop_assert_eq!(builder.scan(&bytes[..cut], 1 << 20, &mut Words).unwrap(), Scan::NeedMore);
        prop_assert_eq!(builder.scan(&bytes, 1 << 20, &mut Words).unwrap(), Scan::Group(group(&bytes)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = GroupBuilder::default().scan(&bytes, 1 << 20, &mut Words);
    }
}
