"""psycopg2: the simple protocol only; named statements by SQL PREPARE."""

import io
import select
import threading
from datetime import datetime, timezone

import psycopg2
from psycopg2.extras import Json, execute_values
from psycopg2.pool import ThreadedConnectionPool
from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, URL, fails, run, same, until


def open_one(**more):
    connection = psycopg2.connect(URL, **more)
    connection.autocommit = True
    return connection


def execute(sql, args=None, connection=None):
    cursor = (connection or db).cursor()
    cursor.execute(sql, args)
    return cursor


def value(sql, args=None, connection=None):
    return execute(sql, args, connection).fetchone()[0]


def refused(sqlstate, action):
    fails(sqlstate, psycopg2.Error, lambda error: error.pgcode, action)


def connect():
    other = open_one(options="-c app.tenant=t7", application_name="drivers")
    same(value("SHOW app.tenant", connection=other), "t7")
    same(other.get_parameter_status("application_name"), "drivers")
    other.close()


def simple():
    execute("DELETE FROM item; INSERT INTO item VALUES (1, 'one'); SELECT 1")
    same(value("SELECT name FROM item"), "one")


def parameters():
    same(value("SELECT %s + %s", (2, 3)), 5)
    same(value("SELECT %(text)s", {"text": "it's \\ me"}), "it's \\ me")
    execute_values(db.cursor(), "INSERT INTO item VALUES %s", [(i, str(i)) for i in range(10, 110)])
    same(value("SELECT count(*) FROM item"), 101)


def types():
    at = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=timezone.utc)
    name, text, data, doc, numbers, words = TYPES
    execute("DELETE FROM kind")
    execute("INSERT INTO kind VALUES %s", ((1, text, data, Json(doc), at, numbers, words, None),))
    row = execute("SELECT * FROM kind").fetchone()
    same((*row[:2], bytes(row[2]), *row[3:]), (1, text, data, doc, at, numbers, words, None))


def transactions():
    execute("DELETE FROM item")
    db.autocommit = False
    with db:
        execute("INSERT INTO item VALUES (1, 'kept')")
        execute("SAVEPOINT here")
        execute("INSERT INTO item VALUES (2, 'lost')")
        execute("ROLLBACK TO SAVEPOINT here")
    execute("INSERT INTO item VALUES (3, 'lost')")
    db.rollback()
    db.autocommit = True
    same(execute("SELECT id FROM item").fetchall(), [(1,)])


def prepared():
    with open_one() as other:
        execute("PREPARE twice(int) AS SELECT $1 * 2", connection=other)
        for i in range(30):
            same(value("EXECUTE twice(%s)", (i,), other), 2 * i)
        execute("DEALLOCATE twice", connection=other)
        refused("26000", lambda: execute("EXECUTE twice(1)", connection=other))
    other.close()


def copy():
    execute("DELETE FROM item")
    lines = "".join(f"{i}\t{'x' * 100}\n" for i in range(1000))
    db.cursor().copy_expert("COPY item FROM STDIN", io.StringIO(lines))
    out = io.StringIO()
    db.cursor().copy_expert("COPY (SELECT * FROM item ORDER BY id) TO STDOUT", out)
    same(out.getvalue(), lines)
    refused("23505", lambda: db.cursor().copy_from(io.StringIO("5000\tx\n1\tagain\n"), "item"))
    same(value("SELECT count(*) FROM item"), 1000)


def notify():
    listener = open_one()
    execute("LISTEN psycopg2", connection=listener)
    execute("NOTIFY psycopg2, 'one'")
    execute("SELECT pg_notify('psycopg2', %s)", ("two",))

    def heard():
        select.select([listener], [], [], 1)
        listener.poll()
        return len(listener.notifies) == 2

    until("two notifications", heard)
    same([note.payload for note in listener.notifies], ["one", "two"])
    listener.close()


def errors():
    execute("DELETE FROM item")
    execute("INSERT INTO item VALUES (1, 'one')")
    for sqlstate, sql in [
        ("23505", "INSERT INTO item VALUES (1, 'again')"),
        ("42601", "SELEC 1"),
        ("22012", "SELECT 1 / (id - 1) FROM item"),
    ]:
        refused(sqlstate, lambda: execute(sql))
        same(value("SELECT %s", ("usable",)), "usable")


def cancel():
    other = open_one()

    def soon():
        until("the statement runs", lambda: value(FIND_SLEEPER, connection=other) == 1)
        db.cancel()

    thread = threading.Thread(target=soon)
    thread.start()
    refused("57014", lambda: execute(SLEEP))
    thread.join()
    same(value("SELECT 1"), 1)
    other.close()


def own_writes():
    execute("DELETE FROM item")
    execute("INSERT INTO item VALUES (1, '0')")
    for i in range(100):
        execute("UPDATE item SET name = %s WHERE id = 1", (str(i),))
        same(value("SELECT name FROM item WHERE id = 1"), str(i))


def settings():
    other = open_one()
    execute("SET TimeZone = 'Asia/Tokyo'", connection=other)
    execute("SELECT set_config('app.tenant', %s, false)", ("t1",), other)
    for _ in range(20):
        row = execute("SELECT current_setting('TimeZone'), current_setting('app.tenant')", None, other).fetchone()
        same(row, ("Asia/Tokyo", "t1"))
    other.set_client_encoding("LATIN1")
    same(value("SELECT 'é'", connection=other), "é")
    same(value("SHOW client_encoding", connection=other), "LATIN1")
    other.close()


def cursor():
    db.autocommit = False
    with db, db.cursor("some rows") as rows:
        rows.itersize = 100
        rows.execute("SELECT * FROM generate_series(1, 1000)")
        same(sum(row[0] for row in rows), 500500)
    db.autocommit = True
    # WITH HOLD: the session keeps its server connection until it is closed.
    with db.cursor("held", withhold=True) as rows:
        rows.execute("SELECT * FROM generate_series(1, 10)")
        same(len(rows.fetchmany(3) + rows.fetchall()), 10)


def read_only():
    other = open_one()
    other.set_session(readonly=True, autocommit=False)
    execute("SELECT count(*) FROM item", connection=other)
    refused("25006", lambda: execute("DELETE FROM item", connection=other))
    other.rollback()
    other.set_session(readonly=True, autocommit=True)
    same(value("SELECT count(*) >= 0 FROM item", connection=other), True)
    refused("25006", lambda: execute("DELETE FROM item", connection=other))
    other.set_session(readonly=False)
    execute("DELETE FROM item", connection=other)
    other.close()


def large_objects():
    db.autocommit = False
    with db:
        large = db.lobject(0, "wb")
        large.write(b"\x00\xff" * 50_000)
        large.close()
    with db:
        same(db.lobject(large.oid, "rb").read(), b"\x00\xff" * 50_000)
    with db:
        db.lobject(large.oid).unlink()
    db.autocommit = True


def two_phase():
    execute("DELETE FROM item")
    db.autocommit = False
    for i, end in enumerate([db.tpc_commit, db.tpc_rollback]):
        transaction = db.xid(1, f"psycopg2-{i}", "drivers")
        db.tpc_begin(transaction)
        execute("INSERT INTO item VALUES (%s, 'x')", (i,))
        db.tpc_prepare()
        end()
    db.autocommit = True
    same(execute("SELECT id FROM item").fetchall(), [(0,)])


def pool():
    execute("DELETE FROM item")
    connections = ThreadedConnectionPool(1, 8, URL)
    seen = []

    def work(start):
        for i in range(start, start + 25):
            one = connections.getconn()
            with one:
                execute("INSERT INTO item VALUES (%s, %s)", (i, str(i)), one)
            with one:
                seen.append(value("SELECT name FROM item WHERE id = %s", (i,), one) == str(i))
            connections.putconn(one)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 200, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connections.closeall()
    same(seen, [True] * 200)


def replicas():
    other = open_one()
    until("a replica serves", lambda: value(SERVED_BY, connection=other) != PRIMARY)


db = open_one()
run([connect, simple, parameters, types, transactions, prepared, copy, notify, errors, cancel, own_writes,
     settings, cursor, read_only, large_objects, two_phase, pool, replicas], missing=["pipeline"])
