"""psycopg 3, blocking. VARIANT=simple: its ClientCursor, which speaks the simple protocol."""

import threading
from datetime import datetime, timezone

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, URL, VARIANT, fails, run, same, until

CURSOR = psycopg.ClientCursor if VARIANT == "simple" else psycopg.Cursor


def open_one(**more):
    return psycopg.connect(URL, autocommit=True, cursor_factory=CURSOR, **more)


db = open_one()


def value(sql, *args, **options):
    return db.execute(sql, args or None, **options).fetchone()[0]


def connect():
    with open_one(options="-c app.tenant=t7", application_name="drivers") as other:
        same(other.execute("SHOW app.tenant").fetchone()[0], "t7")
        same(other.info.parameter_status("application_name"), "drivers")
        assert other.info.server_version >= 140000


def simple():
    with psycopg.ClientCursor(db) as cursor:
        cursor.execute("SELECT 1; SELECT 2")
        same(cursor.fetchone()[0], 1)
        assert cursor.nextset()
        same(cursor.fetchone()[0], 2)


def parameters():
    same(value("SELECT %s::int + %s::int", 2, 3), 5)
    same(value("SELECT %s::text || %s", "it's", " \\ me"), "it's \\ me")
    same(db.execute("SELECT name FROM item WHERE id = %(id)s", {"id": -1}).fetchall(), [])
    if CURSOR is psycopg.Cursor:
        same(value("SELECT %b::int + %t::int", 7, 8, binary=True), 15)


def types():
    at = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=timezone.utc)
    name, text, data, doc, numbers, words = TYPES
    db.execute("DELETE FROM kind")
    db.execute(
        "INSERT INTO kind VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (1, text, data, Jsonb(doc), at, numbers, words, None),
    )
    for binary in (False, True):
        if binary and CURSOR is psycopg.ClientCursor:
            continue
        row = db.execute("SELECT * FROM kind", binary=binary).fetchone()
        same(row, (1, text, data, doc, at, numbers, words, None))


def transactions():
    db.execute("DELETE FROM item")
    with db.transaction():
        db.execute("INSERT INTO item VALUES (1, 'kept')")
        try:
            with db.transaction():
                db.execute("INSERT INTO item VALUES (2, 'lost')")
                raise psycopg.Rollback()
        except psycopg.Rollback:
            pass
        db.execute("INSERT INTO item VALUES (3, 'kept')")
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO item VALUES (4, 'lost')")
    same([row[0] for row in db.execute("SELECT id FROM item ORDER BY id")], [1, 3])


def prepared():
    # From the fifth on it is a named statement.
    for i in range(30):
        same(value("SELECT %s::int * 2", i), 2 * i)
        db.execute("INSERT INTO item VALUES (%s, %s)", (100 + i, "p"), prepare=True)
    same(value("SELECT count(*) FROM item WHERE id BETWEEN %s AND %s", 100, 129), 30)


def copy():
    db.execute("DELETE FROM item")
    with db.cursor().copy("COPY item FROM STDIN") as into:
        for i in range(1000):
            into.write_row((i, "x" * 100))
    with db.cursor().copy("COPY item TO STDOUT") as out:
        same(sum(1 for _ in out.rows()), 1000)
    with db.cursor().copy("COPY (SELECT id FROM item ORDER BY id) TO STDOUT (FORMAT binary)") as out:
        out.set_types(["int4"])
        same([row[0] for row in out.rows()], list(range(1000)))

    def twice():
        with db.cursor().copy("COPY item FROM STDIN") as into:
            into.write_row((1, "again"))

    fails("23505", psycopg.Error, lambda e: e.sqlstate, twice)
    try:
        with db.cursor().copy("COPY item FROM STDIN") as into:
            into.write_row((5000, "given up"))
            raise KeyError("given up")
    except KeyError:
        pass
    same(value("SELECT count(*) FROM item"), 1000)


def notify():
    with open_one() as listener:
        listener.execute("LISTEN psycopg")
        db.execute("NOTIFY psycopg, 'one'")
        db.execute("SELECT pg_notify('psycopg', 'two')")
        got = [note.payload for note in listener.notifies(timeout=60, stop_after=2)]
        same(got, ["one", "two"])
        listener.execute("UNLISTEN *")


def errors():
    db.execute("DELETE FROM item")
    db.execute("INSERT INTO item VALUES (1, 'one')")
    for sqlstate, sql in [
        ("23505", "INSERT INTO item VALUES (1, 'again')"),
        ("42601", "SELEC 1"),
        ("42P01", "SELECT * FROM nowhere"),
        ("22012", "SELECT 1 / (id - 1) FROM item"),
    ]:
        fails(sqlstate, psycopg.Error, lambda e: e.sqlstate, lambda: db.execute(sql))
        same(value("SELECT %s::text", "usable"), "usable")
    same(db.info.transaction_status.name, "IDLE")


def cancel():
    def soon():
        with open_one() as other:
            until("the statement runs", lambda: other.execute(FIND_SLEEPER).fetchone()[0] == 1)
        db.cancel_safe(timeout=60)

    thread = threading.Thread(target=soon)
    thread.start()
    fails("57014", psycopg.Error, lambda e: e.sqlstate, lambda: db.execute(SLEEP))
    thread.join()
    same(value("SELECT 1"), 1)


def pipeline():
    db.execute("DELETE FROM item")
    with db.pipeline() as pipe, psycopg.Cursor(db) as cursor:
        for i in range(200):
            cursor.execute("INSERT INTO item VALUES (%s, 'x')", (i,))
            cursor.execute("SELECT count(*) FROM item")
        pipe.sync()
    same(value("SELECT count(*) FROM item"), 200)
    # An error skips the rest up to the Sync, and nothing more.
    with db.pipeline() as pipe:
        first = psycopg.Cursor(db).execute("INSERT INTO item VALUES (%s, 'x')", (1000,))
        pipe.sync()
        same(first.rowcount, 1)
        bad = psycopg.Cursor(db)
        fails("23505", psycopg.Error, lambda e: e.sqlstate, lambda: (
            bad.execute("INSERT INTO item VALUES (%s, 'x')", (1000,)),
            bad.execute("INSERT INTO item VALUES (%s, 'x')", (1001,)),
            pipe.sync(),
        ))
        same(psycopg.Cursor(db).execute("SELECT count(*) FROM item").fetchone()[0], 201)
    same(value("SELECT count(*) FROM item"), 201)


def own_writes():
    db.execute("DELETE FROM item")
    db.execute("INSERT INTO item VALUES (1, '0')")
    for i in range(100):
        db.execute("UPDATE item SET name = %s WHERE id = 1", (str(i),))
        same(value("SELECT name FROM item WHERE id = %s", 1), str(i))


def settings():
    with open_one() as other:
        other.execute("SET TimeZone = 'Asia/Tokyo'")
        other.execute("SELECT set_config('app.tenant', %s, false)", ("t1",))
        for _ in range(20):
            row = other.execute("SELECT current_setting('TimeZone'), current_setting('app.tenant')").fetchone()
            same(row, ("Asia/Tokyo", "t1"))
        same(other.info.parameter_status("TimeZone"), "Asia/Tokyo")
        with other.transaction(force_rollback=True):
            other.execute("SET app.tenant = 't2'")
        same(other.execute("SHOW app.tenant").fetchone()[0], "t1")
        other.execute("RESET TimeZone")
        other.execute("SET client_encoding = 'latin1'")
        same(other.execute("SELECT 'é'::text").fetchone()[0], "é")


def cursor():
    with db.transaction(), db.cursor(name="some rows") as rows:
        rows.itersize = 100
        rows.execute("SELECT * FROM generate_series(1, 1000)")
        same(sum(row[0] for row in rows), 500500)
        rows.scroll(0, mode="absolute")
        same(rows.fetchone()[0], 1)


def read_only():
    with open_one() as other:
        other.read_only = True
        other.autocommit = False
        other.execute("SELECT count(*) FROM item")
        fails("25006", psycopg.Error, lambda e: e.sqlstate, lambda: other.execute("DELETE FROM item"))
        other.rollback()
        other.read_only = None
        other.execute("DELETE FROM item")
        other.commit()


def two_phase():
    with open_one() as other:
        other.execute("DELETE FROM item")
        other.autocommit = False
        for i, end in enumerate([other.tpc_commit, other.tpc_rollback]):
            other.tpc_begin(other.xid(1, f"psycopg-{i}", VARIANT))
            other.execute("INSERT INTO item VALUES (%s, 'x')", (i,))
            other.tpc_prepare()
            end()
        same(other.execute("SELECT id FROM item").fetchall(), [(0,)])


def pool():
    db.execute("DELETE FROM item")

    def work(start):
        for i in range(start, start + 25):
            with connections.connection() as one:
                one.execute("INSERT INTO item VALUES (%s, %s)", (i, str(i)))
                seen.append(one.execute("SELECT name FROM item WHERE id = %s", (i,)).fetchone() == (str(i),))

    seen = []
    with ConnectionPool(URL, min_size=4, max_size=4, timeout=60, check=ConnectionPool.check_connection) as connections:
        threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 200, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    same(seen, [True] * 200)


def replicas():
    until("a replica serves", lambda: value(SERVED_BY) != PRIMARY)
    until("a replica serves", lambda: value("SELECT served_by() WHERE %s = 1", 1) != PRIMARY)


run([connect, simple, parameters, types, transactions, prepared, copy, notify, errors, cancel, pipeline,
     own_writes, settings, cursor, read_only, two_phase, pool, replicas], missing=["large-objects"])
