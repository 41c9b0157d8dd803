//! What a server is sent, and what its answers mean, as transcripts.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::moment::Moment;
use crate::routing::reason::Reason;
use crate::session::exchange::Errand;
use crate::session::group::{Classes, Group, Scan};
use crate::session::prepared::SERVER_NAME_PREFIX;
use crate::session::settings::Settings;
use crate::sql::class::Route;
use crate::sql::class::{Access, Fingerprint, Why};

struct Reads<'a>(&'a Session);

fn class() -> Class {
    Class {
        access: Access::Read,
        why: Why::PlainRead,
        marks: Marks(0),
        route: Route::Auto,
        fingerprint: Fingerprint(1),
        rules: 0,
    }
}

impl Classes for Reads<'_> {
    fn of_text(&mut self, _: &[u8]) -> Class {
        class()
    }

    fn of_name(&mut self, name: &[u8]) -> Option<Class> {
        self.0.class_of(name)
    }
}

fn session() -> Session {
    Session::new(SessionState::new(Arc::new(Settings::default())))
}

struct Server {
    statements: ServerStatements,
    lent: Lent,
    limit: usize,
}

#[derive(Default)]
struct Lent(u64);

impl Lender for Lent {
    fn statement(&mut self, text: &[u8], types: &[u8], scope: &Scope) -> Arc<Statement> {
        Arc::new(Statement {
            id: text.len() as u64,
            server_name: [b"srv", text].concat().into(),
            text: text.into(),
            types: types.into(),
            scope: scope.clone(),
        })
    }

    fn next_id(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl Server {
    fn new() -> Server {
        Server { statements: ServerStatements::default(), lent: Lent::default(), limit: 100 }
    }

    /// Forwards the groups in `bytes`; returns the types of the messages the server gets.
    fn gets(&mut self, session: &mut Session, exchange: &mut Exchange, bytes: &[u8]) -> (String, Vec<u8>) {
        let (mut out, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let scan = exchange.builder.scan(rest, 1 << 20, &mut Reads(session)).unwrap();
            let Scan::Group(group) = scan else { panic!("{scan:?}") };
            exchange.begin(&group, GroupRecord::new(&group, Reason::Balanced, Moment(1)));
            let mut to = Outgoing {
                out: &mut out,
                server: &mut self.statements,
                lent: &mut self.lent,
                prepared_limit: self.limit,
                names_limit: 50,
                dialect: Dialect::STANDARD,
                replayed: false,
            };
            session.forward(&rest[..group.len], exchange, &mut to).unwrap();
            exchange.builder.reset();
            rest = &rest[group.len..];
        }
        (types(&out), out)
    }

    fn answers(&mut self, session: &mut Session, exchange: &mut Exchange, tags: &[u8]) -> Vec<Outcome> {
        let frame = |tag: u8| match tag {
            b'Z' => b"Z\0\0\0\x05I".to_vec(),
            tag => vec![tag, 0, 0, 0, 4],
        };
        let answer =
            |&tag: &u8| session.on_backend(tag, &frame(tag), exchange, &mut self.statements).unwrap();
        tags.iter().map(answer).collect()
    }
}

fn types(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Some(head) = header(bytes, usize::MAX).unwrap() {
        tags.push(head.tag as char);
        bytes = &bytes[head.frame_len..];
    }
    tags
}

fn prepare(name: &[u8], text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    writers::parse(&mut bytes, name, text, &[0, 0]);
    bytes.extend(writers::SYNC);
    bytes
}

fn run(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    writers::bind_head(&mut bytes, b"", name, 6);
    bytes.extend([0; 6]);
    writers::message(&mut bytes, b'E', |out| out.extend([0; 5]));
    bytes.extend(writers::SYNC);
    bytes
}

#[test]
fn a_named_statement_is_prepared_on_each_connection_only_when_it_is_needed() {
    let (mut session, mut exchange) = (session(), Exchange::default());
    let (mut first, mut second) = (Server::new(), Server::new());
    let (sent, bytes) = first.gets(&mut session, &mut exchange, &prepare(b"mine", b"SELECT 1"));
    assert_eq!(sent, "PS");
    assert!(!bytes.windows(4).any(|window| window == b"mine"), "the client's name stays here");
    first.answers(&mut session, &mut exchange, b"1Z");
    assert_eq!(first.gets(&mut session, &mut exchange, &run(b"mine")).0, "BES");
    first.answers(&mut session, &mut exchange, b"2CZ");
    assert_eq!(second.gets(&mut session, &mut exchange, &run(b"mine")).0, "PBES");
    let outcomes = second.answers(&mut session, &mut exchange, b"12CZ");
    assert_eq!(outcomes[0].pass, Pass::Swallow);
    assert!(exchange.is_idle());
}

#[test]
fn a_statement_the_server_already_has_is_answered_in_turn() {
    let (mut ann, mut bob, mut exchange) = (session(), session(), Exchange::default());
    let mut server = Server::new();
    server.gets(&mut ann, &mut exchange, &prepare(b"a", b"SELECT 1"));
    server.answers(&mut ann, &mut exchange, b"1Z");
    assert_eq!(server.gets(&mut bob, &mut exchange, &prepare(b"b", b"SELECT 1")).0, "S");
    assert_eq!(exchange.queue.pop_fabricated(), Some(&writers::PARSE_COMPLETE[..]));
    server.answers(&mut bob, &mut exchange, b"Z");
}

#[test]
fn a_failed_parse_leaves_no_name_and_no_statement_behind() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    server.gets(&mut session, &mut exchange, &prepare(b"bad", b"SELEC"));
    let outcomes = server.answers(&mut session, &mut exchange, b"EZ");
    assert!(outcomes[1].done.as_ref().unwrap().0.failed);
    assert!(session.class_of(b"bad").is_none() && server.statements.is_empty());
}

#[test]
fn a_name_taken_twice_is_the_clients_error_and_fails_the_implicit_transaction() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    server.gets(&mut session, &mut exchange, &prepare(b"s", b"SELECT 1"));
    server.answers(&mut session, &mut exchange, b"1Z");
    server.gets(&mut session, &mut exchange, &prepare(b"s", b"SELECT 2"));
    let outcomes = server.answers(&mut session, &mut exchange, b"EZ");
    let Pass::Replace(error) = &outcomes[0].pass else { panic!("{outcomes:?}") };
    assert_eq!(backend::error(error).message, b"prepared statement \"s\" already exists");
    assert_eq!(session.text_of(b"s"), Some(&b"SELECT 1"[..]));
}

#[test]
fn a_client_gives_so_many_names_and_no_more_until_it_closes_one() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    for number in 0..50 {
        let name = number.to_string();
        let text = format!("SELECT {}", "1".repeat(number + 1));
        server.gets(&mut session, &mut exchange, &prepare(name.as_bytes(), text.as_bytes()));
        server.answers(&mut session, &mut exchange, b"1Z");
    }
    server.gets(&mut session, &mut exchange, &prepare(b"more", b"SELECT 2"));
    let outcomes = server.answers(&mut session, &mut exchange, b"EZ");
    let Pass::Replace(error) = &outcomes[0].pass else { panic!("{outcomes:?}") };
    assert_eq!(backend::error(error).sqlstate, Some(crate::fault::SqlState(*b"53400")));
    assert!(session.forget(b"7"));
    server.gets(&mut session, &mut exchange, &prepare(b"more", b"SELECT 2"));
    server.answers(&mut session, &mut exchange, b"1Z");
    assert_eq!(session.names(), 50);
}

#[test]
fn the_unnamed_statement_follows_its_session_to_another_connection() {
    let (mut session, mut exchange) = (session(), Exchange::default());
    let (mut first, mut second) = (Server::new(), Server::new());
    first.gets(&mut session, &mut exchange, &prepare(b"", b"SELECT 1"));
    first.answers(&mut session, &mut exchange, b"1Z");
    assert_eq!(second.gets(&mut session, &mut exchange, &run(b"")).0, "PBES");
    second.answers(&mut session, &mut exchange, b"12CZ");
    let mut query = Vec::new();
    writers::query(&mut query, b"SELECT 2");
    second.gets(&mut session, &mut exchange, &query);
    second.answers(&mut session, &mut exchange, b"TDCZ");
    assert_eq!(session.class_of(b""), None, "a simple query destroys it");
}

#[test]
fn a_full_server_connection_closes_the_oldest_statement() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    server.limit = 1;
    server.gets(&mut session, &mut exchange, &prepare(b"a", b"SELECT 1"));
    server.answers(&mut session, &mut exchange, b"1Z");
    assert_eq!(server.gets(&mut session, &mut exchange, &prepare(b"b", b"SELECT 22")).0, "CPS");
    server.answers(&mut session, &mut exchange, b"31Z");
    assert_eq!(server.gets(&mut session, &mut exchange, &run(b"a")).0, "CPBES");
}

#[test]
fn a_sync_that_copy_swallowed_does_not_end_the_group() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let mut copy = Vec::new();
    writers::parse(&mut copy, b"", b"COPY t FROM STDIN", &[0, 0]);
    copy.extend(run(b""));
    server.gets(&mut session, &mut exchange, &copy);
    server.answers(&mut session, &mut exchange, b"12G");
    exchange.queue.forward(Kind::CopyEnd);
    server.gets(&mut session, &mut exchange, &writers::SYNC);
    let outcomes = server.answers(&mut session, &mut exchange, b"CZ");
    assert!(outcomes[1].done.is_some() && exchange.is_idle());
}

#[test]
fn a_sync_in_the_middle_of_a_copy_is_not_owed() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let mut copy = Vec::new();
    writers::parse(&mut copy, b"", b"COPY t FROM STDIN", &[0, 0]);
    copy.extend(run(b""));
    server.gets(&mut session, &mut exchange, &copy);
    server.answers(&mut session, &mut exchange, b"12G");
    assert_eq!(server.gets(&mut session, &mut exchange, &writers::SYNC).0, "");
    exchange.queue.forward(Kind::CopyEnd);
    assert_eq!(server.gets(&mut session, &mut exchange, &writers::SYNC).0, "S");
    let outcomes = server.answers(&mut session, &mut exchange, b"CZ");
    assert!(outcomes[1].done.is_some() && exchange.is_idle());
}

#[test]
fn a_sync_in_the_middle_of_a_simple_copy_is_a_part_of_it() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let mut copy = Vec::new();
    writers::query(&mut copy, b"COPY t FROM STDIN");
    server.gets(&mut session, &mut exchange, &copy);
    server.answers(&mut session, &mut exchange, b"G");
    assert_eq!(server.gets(&mut session, &mut exchange, &writers::SYNC).0, "");
    assert_eq!((exchange.groups.len(), exchange.joined), (1, 1));
    exchange.queue.forward(Kind::CopyEnd);
    let outcomes = server.answers(&mut session, &mut exchange, b"CZ");
    assert!(outcomes[1].done.is_some() && exchange.is_idle());
}

#[test]
fn an_unnamed_statement_outlives_the_failure_of_an_earlier_group() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let both = [prepare(b"", b"SELEC"), prepare(b"", b"SELECT 1")].concat();
    server.gets(&mut session, &mut exchange, &both);
    server.answers(&mut session, &mut exchange, b"EZ1Z");
    assert_eq!(session.text_of(b""), Some(&b"SELECT 1"[..]));
    assert_eq!(server.gets(&mut session, &mut exchange, &run(b"")).0, "BES");
}

#[test]
fn a_skipped_or_withdrawn_close_leaves_the_name() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    server.gets(&mut session, &mut exchange, &prepare(b"s", b"SELECT 1"));
    server.answers(&mut session, &mut exchange, b"1Z");
    let mut group = run(b"s");
    group.truncate(group.len() - writers::SYNC.len());
    writers::statement(&mut group, b'C', b"s");
    group.extend(writers::SYNC);
    server.gets(&mut session, &mut exchange, &group);
    server.answers(&mut session, &mut exchange, b"2EZ");
    assert_eq!(session.text_of(b"s"), Some(&b"SELECT 1"[..]), "skipped");
    server.gets(&mut session, &mut exchange, &group);
    assert_eq!(session.text_of(b"s"), None);
    session.take_back(&mut exchange);
    assert_eq!(session.text_of(b"s"), Some(&b"SELECT 1"[..]), "withdrawn");
}

#[test]
fn an_insert_behind_a_begin_counts_as_a_write() {
    let control = Class { access: Access::Write, why: Why::TransactionControl, ..class() };
    let record = |classes: &[Class]| {
        let mut group = Group::of_class(&classes[0]);
        classes[1..].iter().for_each(|class| group.writes |= Group::of_class(class).writes);
        let mut record = GroupRecord::new(&group, Reason::Balanced, Moment(1));
        record.effects = vec![Effect::Commit { chain: false }];
        record
    };
    let insert = Class { access: Access::Write, why: Why::WritesRows, ..class() };
    assert!(!record(&[control]).wrote());
    assert!(record(&[control, insert]).wrote());
}

#[test]
fn a_client_cannot_reach_our_statement_by_our_name() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let name = format!("{SERVER_NAME_PREFIX}1");
    let (_, bytes) = server.gets(&mut session, &mut exchange, &run(name.as_bytes()));
    assert!(!bytes.windows(name.len()).any(|window| window == name.as_bytes()));
}

#[test]
fn a_statement_of_another_scope_spoils_no_shared_copy() {
    let (mut session, mut exchange) = (session(), Exchange::default());
    let (mut first, mut second) = (Server::new(), Server::new());
    first.gets(&mut session, &mut exchange, &prepare(b"s", b"SELECT 1"));
    first.answers(&mut session, &mut exchange, b"1Z");
    assert!(!session.is_estranged(b"s"));
    session.observe(1, &mut |settings| Arc::new(settings));
    assert!(session.is_estranged(b"s"), "the schema has changed");
    assert_eq!(first.gets(&mut session, &mut exchange, &run(b"s")).0, "BES", "the server looks itself");
    first.answers(&mut session, &mut exchange, b"2CZ");
    assert_eq!(second.gets(&mut session, &mut exchange, &run(b"s")).0, "CPBES");
    second.answers(&mut session, &mut exchange, b"312CZ");
    assert!(second.statements.is_empty(), "good for once");
}

#[test]
fn a_group_that_parses_a_name_anew_does_not_bind_what_it_stood_for_before() {
    let (mut session, mut server, mut exchange) = (session(), Server::new(), Exchange::default());
    let earlier = [prepare(b"", b"SELECT 1"), run(b"")].concat();
    server.gets(&mut session, &mut exchange, &earlier);
    assert_eq!(session.texts_in(&run(b"")), [b"SELECT 1"]);
    assert_eq!(session.texts_in(&[prepare(b"", b"SELECT 2"), run(b"")].concat()), [b"SELECT 2"]);
    assert!(session.texts_in(&run(b"unknown")).is_empty());
}

/// Forwards one group of a transaction that no server knows of yet.
fn promised(server: &mut Server, session: &mut Session, exchange: &mut Exchange, bytes: &[u8]) -> String {
    let scan = exchange.builder.scan(bytes, 1 << 20, &mut Texts(session)).unwrap();
    let Scan::Group(group) = scan else { panic!("{scan:?}") };
    let mut record = GroupRecord::new(&group, Reason::SplitTransaction, Moment(1));
    record.promised = true;
    exchange.begin(&group, record);
    let mut out = Vec::new();
    let mut to = Outgoing {
        out: &mut out,
        server: &mut server.statements,
        lent: &mut server.lent,
        prepared_limit: server.limit,
        names_limit: 50,
        dialect: Dialect::STANDARD,
        replayed: false,
    };
    session.forward(bytes, exchange, &mut to).unwrap();
    exchange.builder.reset();
    types(&out)
}

struct Texts<'a>(&'a Session);

impl Classes for Texts<'_> {
    fn of_text(&mut self, text: &[u8]) -> Class {
        let marks = if text == b"SELECT 1" { Marks(0) } else { Marks::TRANSACTION_CONTROL };
        Class { marks, ..class() }
    }

    fn of_name(&mut self, name: &[u8]) -> Option<Class> {
        self.0.class_of(name)
    }
}

#[test]
fn a_begin_in_front_of_reads_is_answered_in_its_turn_and_not_sent() {
    let (mut session, mut server, mut exchange) = (session(), Server::new(), Exchange::default());
    let mut bytes = Vec::new();
    for text in [&b"START TRANSACTION"[..], b"SELECT 1"] {
        writers::parse(&mut bytes, b"", text, &[0, 0]);
        writers::bind_head(&mut bytes, b"", b"", 6);
        bytes.extend([0; 6]);
        writers::message(&mut bytes, b'D', |out| out.extend(b"P\0"));
        writers::message(&mut bytes, b'E', |out| out.extend([0; 5]));
    }
    bytes.extend(writers::SYNC);
    assert_eq!(promised(&mut server, &mut session, &mut exchange, &bytes), "PPBDES");
    server.answers(&mut session, &mut exchange, b"1");
    let mut fabricated = Vec::new();
    while let Some(bytes) = exchange.queue.pop_fabricated() {
        fabricated.extend_from_slice(bytes);
    }
    assert_eq!(types(&fabricated), "2nC");
    assert!(fabricated.ends_with(b"\0\0\0\x16START TRANSACTION\0"));
    let outcomes = server.answers(&mut session, &mut exchange, b"12TDCZ");
    let last = outcomes.last().unwrap();
    assert_eq!(last.pass, Pass::Replace(writers::ready(TransactionStatus::InBlock).into()));
    let (record, status) = last.done.as_ref().unwrap();
    assert_eq!(*status, TransactionStatus::InBlock);
    assert!(matches!(record.effects.as_slice(), [Effect::Begin(_)]), "{:?}", record.effects);
}

#[test]
fn an_error_in_a_promised_transaction_fails_it_and_a_server_must_not_know_of_one() {
    let (mut session, mut server, mut exchange) = (session(), Server::new(), Exchange::default());
    let mut query = Vec::new();
    writers::query(&mut query, b"SELECT 1");
    promised(&mut server, &mut session, &mut exchange, &query);
    let outcomes = server.answers(&mut session, &mut exchange, b"EZ");
    assert_eq!(outcomes[1].pass, Pass::Replace(writers::ready(TransactionStatus::Failed).into()));
    promised(&mut server, &mut session, &mut exchange, &query);
    server.answers(&mut session, &mut exchange, b"TDC");
    let open = writers::ready(TransactionStatus::InBlock);
    assert!(session.on_backend(b'Z', &open, &mut exchange, &mut server.statements).is_err());
}

#[test]
fn what_pgweir_asks_for_itself_does_not_settle_an_open_transaction() {
    let (mut session, mut exchange, mut server) = (session(), Exchange::default(), Server::new());
    let mut is_settled_by = |errand: Option<Errand>, effects: &[Effect], status: u8| {
        let mut record = GroupRecord::internal(Errand::Settings, Moment(1));
        (record.errand, record.effects) = (errand, effects.to_vec());
        exchange.groups.push_back(record);
        exchange.queue.push(Kind::Query, Act::Forward, Undo::Nothing);
        let ready = [b'Z', 0, 0, 0, 5, status];
        let done = session.on_backend(b'Z', &ready, &mut exchange, &mut server.statements).unwrap().done;
        assert!(done.is_some());
        session.settled_scope(&exchange).is_some()
    };
    assert!(is_settled_by(None, &[], b'T'));
    assert!(!is_settled_by(None, &[Effect::SetLocalUnknown], b'T'));
    // Its server is lost: another connection gets the session's settings, and hears it again.
    assert!(!is_settled_by(Some(Errand::Settings), &[], b'I'));
    assert!(!is_settled_by(Some(Errand::Replay), &[], b'T'));
    assert!(!is_settled_by(None, &[], b'T'));
    assert!(is_settled_by(None, &[], b'I'));
    assert!(is_settled_by(Some(Errand::Settings), &[Effect::SetLocalUnknown], b'T'));
}
