#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::freshness::gate::{Durability, LastRead};
use crate::moment::Moment;
use crate::node::NodeId;
use crate::session::settings::{Settings, Value};
use crate::sql::class::{Access, Class, Fingerprint, Marks, Route, Why};
use crate::sql::effects::PinReason;
use std::sync::Arc;

const CLASS: Class = Class {
    access: Access::Read,
    why: Why::PlainRead,
    marks: Marks(0),
    route: Route::Auto,
    fingerprint: Fingerprint(1),
    rules: 0,
};

fn session() -> Session {
    let startup = Settings::default().with("timezone", Value::Text("UTC".into()));
    let mut session = Session::new(SessionState::new(Arc::new(startup)));
    session.told = Told::new(Arc::new(vec![("TimeZone".to_owned(), "UTC".to_owned())]));
    session
}

fn slept(session: Session) -> Session {
    let asleep = session.asleep();
    assert!(matches!(asleep, Asleep::Plain(_)));
    asleep.awake()
}

#[test]
fn a_plain_session_wakes_up_with_what_it_has_seen_written_and_heard() {
    let mut session = session();
    let read = LastRead { at: Moment(7), node: NodeId(1), incarnation: 3 };
    session.state.floor.saw(read);
    session.state.floor.write = Some((Moment(5), Durability::Inserted));
    session.state.last_write = Some(Moment(5));
    assert!(session.told.tell(b"TimeZone", b"Asia/Tokyo"));
    let floor = session.state.floor;
    let session = slept(session);
    assert_eq!((session.state.floor, session.state.last_write), (floor, Some(Moment(5))));
    assert_eq!(session.told.last(b"TimeZone"), Some(&b"Asia/Tokyo"[..]));
    assert_eq!(session.state.startup().get("timezone"), Some(&Value::Text("UTC".into())));
    assert!(Arc::ptr_eq(session.state.settings(), &session.state.carried));
}

#[test]
fn the_unnamed_statement_and_named_ones_are_still_there() {
    let mut session = session();
    let statement = crate::session::prepared::Statement::plain(4);
    session.remember(b"mine", statement.clone(), CLASS, 0);
    session.unnamed =
        Unnamed { tag: 9, text: b"SELECT 1".to_vec(), class: Some(CLASS), ..Unnamed::default() };
    let session = slept(session);
    assert_eq!((session.names(), session.unnamed.tag), (1, 9));
    assert_eq!(session.text_of(b""), Some(&b"SELECT 1"[..]));
    assert_eq!(session.names[&b"mine"[..]].statement, statement);
}

#[test]
fn what_is_unusual_is_kept_as_it_is() {
    let mut pinned = session();
    pinned.state.pins.add(PinReason::TemporaryTable);
    let mut routed = session();
    routed.state.route = Route::Primary;
    let mut reset = session();
    reset.state.carried = Arc::new(Settings::default());
    for (which, session) in [pinned, routed, reset].into_iter().enumerate() {
        let before = format!("{:?}", session.state);
        let asleep = session.asleep();
        assert!(matches!(asleep, Asleep::Whole(_)), "{which}");
        assert_eq!(format!("{:?}", asleep.awake().state), before);
    }
}
