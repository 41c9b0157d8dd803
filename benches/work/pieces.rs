//! What a statement or an answer costs in the pure parts, as named pieces of work: counted in instructions by
//! `benches/instructions.rs`, in nanoseconds by `examples/decision_cost.rs`.

use pgweir::cluster::view::{ClusterView, NodeLive, NodeState, NodeView, Standby};
use pgweir::freshness::gate::{Durability, Floor};
use pgweir::moment::Moment;
use pgweir::node::{NodeId, Role};
use pgweir::routing::decide::decide;
use pgweir::routing::reason::Reason;
use pgweir::routing::request::{Consistency, Demand, Held, Request, RoutingPolicy};
use pgweir::session::exchange::{Exchange, GroupRecord};
use pgweir::session::group::{Classes, Scan};
use pgweir::session::machine::{Lender, Outgoing, Session};
use pgweir::session::prepared::{Scope as StatementScope, ServerStatements, Statement};
use pgweir::session::settings::Settings;
use pgweir::session::state::SessionState;
use pgweir::sql::cache::{Classifier, LocalCache, Scope};
use pgweir::sql::catalog::{Catalog, Overrides};
use pgweir::sql::class::{Access, Class, Route, Why};
use pgweir::sql::classify::classify;
use pgweir::sql::lexer::{Dialect, Keys, shape_of};
use pgweir::wire::backend::TransactionStatus;
use pgweir::wire::frame::header;
use pgweir::wire::writers;
use std::hint::black_box;
use std::sync::Arc;

pub const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";

/// As an object-relational mapper writes it: 15 lines.
pub const ORM: &str = r#"SELECT "orders"."id", "orders"."total", "orders"."state",
       "users"."name", "users"."email",
       "items"."sku", "items"."price",
       count("items"."id") AS "n"
FROM "orders"
INNER JOIN "users" ON "users"."id" = "orders"."user_id"
LEFT OUTER JOIN "items" ON "items"."order_id" = "orders"."id"
WHERE "orders"."state" IN ('open', 'paid', 'sent')
  AND "users"."tenant_id" = 42
  AND ("orders"."created_at" >= '2024-01-01'
       OR "orders"."flag" IS NOT NULL)
GROUP BY "orders"."id", "users"."name", "users"."email",
         "items"."sku", "items"."price"
ORDER BY "orders"."created_at" DESC, "orders"."id" ASC
LIMIT 50 OFFSET 100"#;

const NOW: Moment = Moment(1_000_000_000_000);

/// The classifier with what it needs to be asked.
pub struct Classifying {
    pub classifier: Classifier,
    pub local: LocalCache,
    catalog: Catalog,
    overrides: Overrides,
}

impl Classifying {
    pub fn new() -> Classifying {
        Classifying {
            classifier: Classifier::new(Keys::fixed(), 4096, 1024),
            local: LocalCache::new(1024),
            catalog: Catalog::empty(),
            overrides: Overrides::default(),
        }
    }

    pub fn class_of(&mut self, text: &[u8]) -> Class {
        let (catalog, overrides) = (&self.catalog, &self.overrides);
        let scope = Scope { database: 1, catalog, overrides, dialect: Dialect::STANDARD };
        self.classifier.class_of(&mut self.local, &scope, text)
    }
}

impl Classes for Classifying {
    fn of_text(&mut self, text: &[u8]) -> Class {
        self.class_of(text)
    }

    fn of_name(&mut self, _: &[u8]) -> Option<Class> {
        None
    }
}

/// A decision about a read or a write, with so many replicas that are all up and fresh.
pub struct Deciding {
    view: ClusterView,
    policy: RoutingPolicy,
    draw: u64,
}

impl Deciding {
    pub fn new(replicas: u16) -> Deciding {
        let nodes = (0..=replicas).map(node).collect();
        let view = ClusterView { nodes, primary: Some(NodeId(0)), ..ClusterView::default() };
        Deciding { view, policy: RoutingPolicy::default(), draw: 1 }
    }

    pub fn decide(&mut self, access: Access, why: Why) -> Reason {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let request = request(access, why);
        decide(black_box(&request), black_box(&self.view), &self.policy, NOW, self.draw).reason
    }
}

fn node(id: u16) -> NodeView {
    let live = NodeLive::default();
    let sent = Moment(NOW.0 - 1_000_000);
    live.publish(sent, sent, sent);
    NodeView {
        id: NodeId(id),
        name: Arc::from("node"),
        host: Arc::from("127.0.0.1"),
        port: 5432,
        address: None,
        place: 0,
        weight: 1,
        zone: None,
        tags: Arc::from([]),
        state: NodeState::Up,
        role: Some(if id == 0 { Role::Primary } else { Role::Replica }),
        timeline: None,
        position: None,
        lag_bytes: Some(0),
        standby: Standby::default(),
        replay_paused: false,
        serves_reads: true,
        last_error: None,
        live: Arc::new(live),
    }
}

fn request(access: Access, why: Why) -> Request {
    Request {
        access,
        why,
        begins_read_only: false,
        complete: true,
        learnt: false,
        replayed: false,
        split: false,
        route: Route::Auto,
        held: Held::Free,
        consistency: Consistency::Session,
        arrived: Moment::NEVER,
        shows: true,
        max_staleness: None,
        demand: Demand::default(),
        floor: Floor { write: Some((Moment(NOW.0 - 5_000_000), Durability::Flushed)), ..Floor::default() },
        last_write: None,
        pipelined_on: None,
        waiting_until: None,
        excluded: 0,
        rule: pgweir::routing::rules::Asked::default(),
    }
}

/// Whole transactions through the session's machine: the request is cut, classified and written for the server,
/// each message of the answer is judged. No sockets, and no decision.
pub struct Relaying {
    session: Session,
    exchange: Exchange,
    server: ServerStatements,
    lent: Lent,
    out: Vec<u8>,
    classes: Classifying,
}

#[derive(Default)]
struct Lent(u64);

impl Lender for Lent {
    fn statement(&mut self, text: &[u8], types: &[u8], scope: &StatementScope) -> Arc<Statement> {
        Arc::new(Statement {
            id: 1,
            server_name: b"s1".as_slice().into(),
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

impl Relaying {
    pub fn new() -> Relaying {
        Relaying {
            session: Session::new(SessionState::new(Arc::new(Settings::default()))),
            exchange: Exchange::default(),
            server: ServerStatements::default(),
            lent: Lent::default(),
            out: Vec::new(),
            classes: Classifying::new(),
        }
    }

    /// One group and its answer. Gives the number of bytes that the server would have got.
    pub fn transaction(&mut self, request: &[u8], answer: &[u8]) -> usize {
        self.out.clear();
        let Ok(Scan::Group(group)) = self.exchange.builder.scan(request, 1 << 20, &mut self.classes) else {
            return 0;
        };
        self.exchange.begin(&group, GroupRecord::new(&group, Reason::Balanced, Moment(1)));
        let mut to = Outgoing {
            out: &mut self.out,
            server: &mut self.server,
            lent: &mut self.lent,
            prepared_limit: 100,
            names_limit: 50,
            dialect: Dialect::STANDARD,
            replayed: false,
        };
        if self.session.forward(&request[..group.len], &mut self.exchange, &mut to).is_err() {
            return 0;
        }
        self.exchange.builder.reset();
        let mut rest = answer;
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let (frame, behind) = rest.split_at(head.frame_len);
            let outcome = self.session.on_backend(head.tag, frame, &mut self.exchange, &mut self.server);
            if black_box(outcome).is_err() {
                return 0;
            }
            rest = behind;
        }
        self.out.len()
    }
}

pub fn simple_request() -> Vec<u8> {
    let mut bytes = Vec::new();
    writers::query(&mut bytes, PGBENCH.as_bytes());
    bytes
}

pub fn extended_request() -> Vec<u8> {
    let mut bytes = Vec::new();
    writers::parse(&mut bytes, b"", b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;", &[0, 0]);
    // A text parameter, and no result formats.
    writers::bind_head(&mut bytes, b"", b"", 15);
    bytes.extend_from_slice(b"\0\0\0\x01\0\0\0\x0512345\0\0");
    bytes.extend_from_slice(b"D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
    bytes
}

/// What a server answers with so many rows.
pub fn answer(extended: bool, rows: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if extended {
        bytes.extend_from_slice(b"1\0\0\0\x042\0\0\0\x04");
    }
    writers::text_columns(&mut bytes, &["abalance"]);
    (0..rows).for_each(|_| writers::text_row(&mut bytes, [Some("12345")]));
    writers::command_complete(&mut bytes, "SELECT 1");
    bytes.extend_from_slice(&writers::ready(TransactionStatus::Idle));
    bytes
}

/// Frames in 64 KiB of short rows.
pub fn cut(bytes: &[u8]) -> usize {
    let (mut rest, mut frames) = (bytes, 0);
    while let Ok(Some(head)) = header(black_box(rest), usize::MAX) {
        rest = rest.get(head.frame_len..).unwrap_or_default();
        frames += 1;
    }
    frames
}

/// A name, and what does that piece of work once.
pub type Piece = (&'static str, Box<dyn FnMut()>);

fn piece<T>(name: &'static str, mut once: impl FnMut() -> T + 'static) -> Piece {
    (
        name,
        Box::new(move || {
            black_box(once());
        }),
    )
}

/// Every piece.
pub fn all() -> Vec<Piece> {
    let mut list = Vec::new();
    let rows = answer(false, 2000);
    list.push(piece("framing: 2,000 short rows", move || cut(&rows)));
    for (name, text) in [("fingerprint: pgbench -S", PGBENCH), ("fingerprint: ORM, 15 lines", ORM)] {
        list.push(piece(name, move || shape_of(black_box(text).as_bytes(), &Keys::fixed())));
    }
    for (name, text) in [("class by exact text: pgbench -S", PGBENCH), ("class by exact text: ORM", ORM)] {
        let mut classes = Classifying::new();
        list.push(piece(name, move || classes.class_of(black_box(text).as_bytes())));
    }
    let mut classes = Classifying::new();
    let mut number = 0_u32;
    list.push(piece("class by shape: pgbench -S", move || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut text = *b"SELECT abalance FROM pgbench_accounts WHERE aid = 00000000;";
        let (mut digits, last) = (number >> 5, text.len() - 2);
        for digit in text[last - 7..=last].iter_mut().rev() {
            *digit = b'0' + (digits % 10) as u8;
            digits /= 10;
        }
        classes.class_of(black_box(&text))
    }));
    for (name, text) in [("class from nothing: pgbench -S", PGBENCH), ("class from nothing: ORM", ORM)] {
        let (catalog, overrides) = (Catalog::empty(), Overrides::default());
        list.push(piece(name, move || {
            classify(black_box(text).as_bytes(), &catalog, &overrides, Dialect::STANDARD, &Keys::fixed())
        }));
    }
    for (name, replicas) in [("decide: a read, 2 replicas", 2), ("decide: a read, 16 replicas", 16)] {
        let mut deciding = Deciding::new(replicas);
        list.push(piece(name, move || deciding.decide(Access::Read, Why::PlainRead)));
    }
    let mut deciding = Deciding::new(2);
    list.push(piece("decide: a write", move || deciding.decide(Access::Write, Why::WritesRows)));
    for (name, request, answer) in [
        ("relay: a simple transaction", simple_request(), answer(false, 1)),
        ("relay: an extended transaction", extended_request(), answer(true, 1)),
        ("relay: an answer of 2,000 rows", simple_request(), answer(false, 2000)),
    ] {
        let mut relaying = Relaying::new();
        list.push(piece(name, move || {
            let sent = relaying.transaction(black_box(&request), black_box(&answer));
            assert!(sent > 0, "the request or its answer was not understood");
        }));
    }
    list
}
