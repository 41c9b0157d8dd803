"""SQLAlchemy over psycopg 3. VARIANT=psycopg2: over psycopg2."""

import threading
from datetime import datetime, timezone

from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, URL, VARIANT, fails, run, same, until
from sqlalchemy import ARRAY, DateTime, Integer, LargeBinary, Text, create_engine, event, func, insert, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

URL = URL.replace("postgres://", f"postgresql+{VARIANT or 'psycopg'}://")
engine = create_engine(URL, pool_size=4, max_overflow=0, pool_timeout=60, pool_pre_ping=True)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Kind(Base):
    __tablename__ = "kind"
    id: Mapped[int] = mapped_column(primary_key=True)
    t = mapped_column(Text)
    b = mapped_column(LargeBinary)
    j = mapped_column(JSONB)
    at = mapped_column(DateTime(timezone=True))
    a = mapped_column(ARRAY(Integer))
    words = mapped_column(ARRAY(Text))
    n = mapped_column(Text)


def sqlstate(error):
    return getattr(error.orig, "sqlstate", None) or error.orig.pgcode


def value(sql, **arguments):
    with engine.connect() as db:
        return db.execute(text(sql), arguments).scalar()


def change(sql, **arguments):
    with engine.begin() as db:
        return db.execute(text(sql), arguments).rowcount


def autocommit():
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def connect():
    with engine.connect() as db:
        assert db.dialect.server_version_info >= (14,)
        same(db.dialect.default_schema_name, "public")


def simple():
    with autocommit().connect() as db:
        same(db.exec_driver_sql("SELECT 'plain'").scalar(), "plain")


def parameters():
    change("DELETE FROM item")
    with engine.begin() as db:
        db.execute(insert(Item), [{"id": i, "name": str(i)} for i in range(500)])
        added = db.execute(upsert(Item).values(id=1, name="new").on_conflict_do_update(
            index_elements=["id"], set_={"name": "new"}).returning(Item.name))
        same(added.scalar(), "new")
    same(value("SELECT count(*) FROM item WHERE id < :limit", limit=100), 100)


def types():
    at = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=timezone.utc)
    name, words_, data, doc, numbers, words = TYPES
    change("DELETE FROM kind")
    with Session(engine) as session:
        session.add(Kind(id=1, t=words_, b=data, j=doc, at=at, a=numbers, words=words, n=None))
        session.commit()
    with Session(engine) as session:
        kind = session.get(Kind, 1)
        same((kind.t, bytes(kind.b), kind.j, kind.at, kind.a, kind.words, kind.n),
             (words_, data, doc, at, numbers, words, None))
        same(session.scalar(select(Kind.id).where(Kind.j["a"][0].as_integer() == 1)), 1)


def transactions():
    change("DELETE FROM item")
    with Session(engine) as session:
        session.add(Item(id=1, name="kept"))
        session.flush()
        inner = session.begin_nested()
        session.add(Item(id=2, name="lost"))
        session.flush()
        inner.rollback()
        session.commit()
        session.add(Item(id=3, name="lost"))
        session.flush()
        session.rollback()
        same(session.scalars(select(Item.id)).all(), [1])
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as db:
        same(db.execute(text("SHOW transaction_isolation")).scalar(), "serializable")


def prepared():
    # psycopg 3 makes a named statement of what comes for the sixth time.
    with engine.connect() as db:
        for i in range(30):
            same(db.execute(select(func.abs(-i))).scalar(), i)
            same(db.execute(select(Item.name).where(Item.id == 1)).scalar(), "kept")
            db.rollback()


def copy():
    if VARIANT:
        return copy_expert()
    with engine.begin() as db:
        db.execute(text("DELETE FROM item"))
        with db.connection.cursor().copy("COPY item FROM STDIN") as into:
            for i in range(1000):
                into.write_row((i, "x"))
    with engine.connect() as db, db.connection.cursor().copy("COPY item TO STDOUT") as out:
        same(sum(1 for _ in out.rows()), 1000)


def copy_expert():
    import io

    with engine.begin() as db:
        db.execute(text("DELETE FROM item"))
        lines = io.StringIO("".join(f"{i}\tx\n" for i in range(1000)))
        db.connection.cursor().copy_expert("COPY item FROM STDIN", lines)
    with engine.connect() as db:
        db.connection.cursor().copy_expert("COPY item TO STDOUT", out := io.StringIO())
        same(len(out.getvalue().splitlines()), 1000)


def errors():
    change("DELETE FROM item")
    change("INSERT INTO item VALUES (1, 'one')")
    for state, sql in [("23505", "INSERT INTO item VALUES (:id, 'again')"), ("42601", "SELEC :id")]:
        with engine.connect() as db:
            fails(state, DBAPIError, sqlstate, lambda: db.execute(text(sql), {"id": 1}))
            db.rollback()
            same(db.execute(text("SELECT 'usable'")).scalar(), "usable")


def cancel():
    with engine.connect() as db, autocommit().connect() as other:

        def soon():
            until("the statement runs", lambda: other.execute(text(FIND_SLEEPER)).scalar() == 1)
            db.connection.driver_connection.cancel()

        thread = threading.Thread(target=soon)
        thread.start()
        fails("57014", DBAPIError, sqlstate, lambda: db.exec_driver_sql(SLEEP))
        thread.join()
        db.rollback()
        same(db.execute(text("SELECT 1")).scalar(), 1)


def own_writes():
    change("DELETE FROM item")
    change("INSERT INTO item VALUES (1, '0')")
    # In transactions of their own, and on the same connection.
    with autocommit().connect() as db:
        for i in range(100):
            db.execute(text("UPDATE item SET name = :name WHERE id = 1"), {"name": str(i)})
            same(db.execute(select(Item.name).where(Item.id == 1)).scalar(), str(i))


def settings():
    mine = create_engine(URL, pool_size=2)

    @event.listens_for(mine, "connect")
    def prepare(connection, _record):
        connection.autocommit = True
        connection.cursor().execute("SET app.tenant = 't1'")
        connection.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
        connection.autocommit = False

    for _ in range(20):
        with mine.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
            row = db.execute(text("SELECT current_setting('app.tenant'), current_setting('TimeZone')")).one()
            same(tuple(row), ("t1", "Asia/Tokyo"))
    mine.dispose()


def cursor():
    with engine.connect() as db:
        rows = db.execution_options(yield_per=100).execute(text("SELECT * FROM generate_series(1, 1000)"))
        same(sum(row[0] for row in rows), 500500)


def read_only():
    with engine.connect().execution_options(postgresql_readonly=True) as db:
        assert db.execute(select(func.count()).select_from(Item)).scalar() >= 0
        fails("25006", DBAPIError, sqlstate, lambda: db.execute(text("DELETE FROM item")))
    change("DELETE FROM item")


def two_phase():
    change("DELETE FROM item")
    with engine.connect() as db:
        for i in range(2):
            transaction = db.begin_twophase(f"sqlalchemy-{VARIANT}-{i}")
            db.execute(insert(Item).values(id=i, name="x"))
            transaction.prepare()
            transaction.commit() if i == 0 else transaction.rollback()
    same(value("SELECT array_agg(id) FROM item"), [0])


def pool():
    change("DELETE FROM item")
    seen = []

    def work(start):
        for i in range(start, start + 25):
            with Session(engine) as session:
                session.add(Item(id=i, name=str(i)))
                session.commit()
                seen.append(session.get(Item, i).name == str(i))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 200, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(seen, [True] * 200)


def replicas():
    with autocommit().connect() as db:
        until("a replica serves", lambda: db.exec_driver_sql(SERVED_BY).scalar() != PRIMARY)
        until("a replica serves", lambda: db.execute(select(func.served_by())).scalar() != PRIMARY)


run([connect, simple, parameters, types, transactions, prepared, copy, errors, cancel, own_writes, settings,
     cursor, read_only, two_phase, pool, replicas], missing=["large-objects", "notify", "pipeline"])
