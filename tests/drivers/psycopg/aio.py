"""psycopg 3, asyncio."""

import asyncio

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, URL, fails_async, run_async, same, until_async


async def open_one(**more):
    return await psycopg.AsyncConnection.connect(URL, autocommit=True, **more)


async def row(db, sql, *args, **options):
    return await (await db.execute(sql, args or None, **options)).fetchone()


async def connect():
    async with await open_one(application_name="drivers") as db:
        same(db.info.parameter_status("application_name"), "drivers")


async def simple():
    async with await open_one() as db, psycopg.AsyncClientCursor(db) as cursor:
        await cursor.execute("SELECT 1; SELECT 2")
        same(await cursor.fetchone(), (1,))
        assert cursor.nextset()
        same(await cursor.fetchone(), (2,))


async def parameters():
    async with await open_one() as db:
        same(await row(db, "SELECT %s::int + %s::int", 2, 3), (5,))
        same(await row(db, "SELECT %b::int8", 2**40, binary=True), (2**40,))


async def types():
    name, text, data, doc, numbers, words = TYPES
    async with await open_one() as db:
        await db.execute("DELETE FROM kind")
        await db.execute(
            "INSERT INTO kind VALUES (%s, %s, %s, %s, '2024-02-29 12:30:00.123456Z', %s, %s, NULL)",
            (1, text, data, Jsonb(doc), numbers, words),
        )
        got = await row(db, "SELECT id, t, b, j, a, words, n FROM kind WHERE at = %s::timestamptz",
                        "2024-02-29 13:30:00.123456+01")
        same(got, (1, text, data, doc, numbers, words, None))


async def transactions():
    async with await open_one() as db:
        await db.execute("DELETE FROM item")
        async with db.transaction():
            await db.execute("INSERT INTO item VALUES (1, 'kept')")
            async with db.transaction(force_rollback=True):
                await db.execute("INSERT INTO item VALUES (2, 'lost')")
        async with db.transaction(force_rollback=True):
            await db.execute("INSERT INTO item VALUES (3, 'lost')")
        same(await (await db.execute("SELECT id FROM item")).fetchall(), [(1,)])


async def prepared():
    async with await open_one(prepare_threshold=2) as db:
        for i in range(30):
            same(await row(db, "SELECT %s::int * 2", i), (2 * i,))


async def copy():
    async with await open_one() as db:
        await db.execute("DELETE FROM item")
        async with db.cursor().copy("COPY item FROM STDIN (FORMAT binary)") as into:
            into.set_types(["int4", "text"])
            for i in range(1000):
                await into.write_row((i, "x"))
        async with db.cursor().copy("COPY item TO STDOUT") as out:
            same(len([line async for line in out.rows()]), 1000)


async def notify():
    async with await open_one() as listener, await open_one() as db:
        await listener.execute("LISTEN psycopg_async")

        async def listen():
            return [note.payload async for note in listener.notifies(timeout=60, stop_after=1)]

        heard = asyncio.create_task(listen())
        await db.execute("NOTIFY psycopg_async, 'one'")
        same(await heard, ["one"])


async def errors():
    async with await open_one() as db:
        await db.execute("DELETE FROM item")
        await db.execute("INSERT INTO item VALUES (1, 'one')")
        for sqlstate, sql in [("23505", "INSERT INTO item VALUES (1, 'again')"), ("42601", "SELEC 1")]:
            await fails_async(sqlstate, psycopg.Error, db.execute(sql))
            same(await row(db, "SELECT %s::text", "usable"), ("usable",))


async def cancel():
    async with await open_one() as db, await open_one() as other:

        async def soon():
            async def runs():
                return await row(other, FIND_SLEEPER) == (1,)

            await until_async("the statement runs", runs)
            await db.cancel_safe(timeout=60)

        task = asyncio.create_task(soon())
        await fails_async("57014", psycopg.Error, db.execute(SLEEP))
        await task
        same(await row(db, "SELECT 1"), (1,))


async def pipeline():
    async with await open_one() as db:
        await db.execute("DELETE FROM item")
        async with db.pipeline():
            cursors = []
            for i in range(100):
                await db.execute("INSERT INTO item VALUES (%s, 'x')", (i,))
                cursors.append(await db.execute("SELECT count(*) FROM item"))
            same([(await cursor.fetchone())[0] for cursor in cursors], list(range(1, 101)))


async def own_writes():
    async with await open_one() as db:
        await db.execute("DELETE FROM item")
        await db.execute("INSERT INTO item VALUES (1, '0')")
        for i in range(100):
            await db.execute("UPDATE item SET name = %s WHERE id = 1", (str(i),))
            same(await row(db, "SELECT name FROM item WHERE id = %s", 1), (str(i),))


async def settings():
    async with await open_one() as db:
        await db.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(20):
            same(await row(db, "SHOW TimeZone"), ("Asia/Tokyo",))
            same(await row(db, "SELECT current_setting('TimeZone')"), ("Asia/Tokyo",))


async def cursor():
    async with await open_one() as db, db.transaction(), db.cursor(name="some") as rows:
        rows.itersize = 100
        await rows.execute("SELECT * FROM generate_series(1, 1000)")
        same(sum([row[0] async for row in rows]), 500500)


async def read_only():
    async with await open_one() as db:
        await db.set_read_only(True)
        async with db.transaction():
            await db.execute("SELECT count(*) FROM item")
        await fails_async("25006", psycopg.Error, in_transaction(db, "DELETE FROM item"))
        await db.set_read_only(None)
        await in_transaction(db, "DELETE FROM item")


async def in_transaction(db, sql):
    async with db.transaction():
        await db.execute(sql)


async def two_phase():
    async with await psycopg.AsyncConnection.connect(URL) as db:
        await db.execute("DELETE FROM item")
        await db.commit()
        for i, end in enumerate([db.tpc_commit, db.tpc_rollback]):
            await db.tpc_begin(db.xid(1, f"psycopg-async-{i}", ""))
            await db.execute("INSERT INTO item VALUES (%s, 'x')", (i,))
            await db.tpc_prepare()
            await end()
        same(await (await db.execute("SELECT id FROM item")).fetchall(), [(0,)])


async def pool():
    async with AsyncConnectionPool(URL, min_size=4, max_size=4, timeout=60, open=False) as connections:

        async def work(i):
            async with connections.connection() as db:
                await db.execute("INSERT INTO item VALUES (%s, %s)", (i, str(i)))
            async with connections.connection() as db, db.transaction():
                same(await row(db, "SELECT name FROM item WHERE id = %s", i), (str(i),))

        async with connections.connection() as db:
            await db.execute("DELETE FROM item")
        await asyncio.gather(*map(work, range(100)))


async def replicas():
    async with await open_one() as db:

        async def served():
            return (await row(db, SERVED_BY))[0] != PRIMARY

        await until_async("a replica serves", served)


run_async([connect, simple, parameters, types, transactions, prepared, copy, notify, errors, cancel, pipeline,
           own_writes, settings, cursor, read_only, two_phase, pool, replicas], missing=["large-objects"])
