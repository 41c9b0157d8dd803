"""asyncpg: the extended protocol with named statements and binary formats; simple where there are no arguments."""

import asyncio
import io
import json
from datetime import datetime, timezone

import asyncpg
from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, URL, fails_async, run_async, same, until_async

Error = asyncpg.PostgresError
db = None


async def connect():
    global db
    db = await asyncpg.connect(URL, server_settings={"application_name": "drivers", "app.tenant": "t7"})
    same(await db.fetchval("SHOW app.tenant"), "t7")
    same(db.get_settings().application_name, "drivers")


async def simple():
    same(await db.execute("DELETE FROM item; INSERT INTO item VALUES (1, 'one')"), "INSERT 0 1")


async def parameters():
    same(await db.fetchval("SELECT $1::int + $2::int", 2, 3), 5)
    same(await db.fetchval("SELECT $1 || 'b'", "a"), "ab")
    await db.executemany("INSERT INTO item VALUES ($1, $2)", [(i, str(i)) for i in range(10, 110)])
    same(await db.fetchval("SELECT count(*) FROM item"), 101)


async def types():
    at = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=timezone.utc)
    name, text, data, doc, numbers, words = TYPES
    await db.execute("DELETE FROM kind")
    await db.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    row = (1, text, data, doc, at, numbers, words, None)
    await db.execute("INSERT INTO kind VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", *row)
    same(tuple(await db.fetchrow("SELECT * FROM kind WHERE a = $1", numbers)), row)
    # An enum makes the driver look into the system's catalogs first.
    await db.execute("DROP TYPE IF EXISTS mood")
    await db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    same(await db.fetchval("SELECT $1::mood[]", ["ok", "sad"]), ["ok", "sad"])


async def transactions():
    await db.execute("DELETE FROM item")
    async with db.transaction():
        await db.execute("INSERT INTO item VALUES ($1, 'kept')", 1)
        inner = db.transaction()
        await inner.start()
        await db.execute("INSERT INTO item VALUES ($1, 'lost')", 2)
        await inner.rollback()
    outer = db.transaction(isolation="serializable")
    await outer.start()
    await db.execute("INSERT INTO item VALUES ($1, 'lost')", 3)
    await outer.rollback()
    same([row[0] for row in await db.fetch("SELECT id FROM item")], [1])


async def prepared():
    statement = await db.prepare("SELECT $1::int * 2")
    same(statement.get_attributes()[0].type.name, "int4")
    for i in range(30):
        same(await statement.fetchval(i), 2 * i)
        same(await db.fetchval("SELECT $1::int * 3", i), 3 * i)


async def copy():
    await db.execute("DELETE FROM item")
    rows = [(i, "x" * 100) for i in range(1000)]
    same(await db.copy_records_to_table("item", records=rows), "COPY 1000")
    out = io.BytesIO()
    same(await db.copy_from_query("SELECT id FROM item WHERE id < $1", 500, output=out), "COPY 500")
    same(len(out.getvalue().splitlines()), 500)
    same(await db.copy_from_table("item", output=io.BytesIO(), format="binary"), "COPY 1000")
    await fails_async("23505", Error, db.copy_to_table("item", source=io.BytesIO(b"5000\tx\n1\ty\n")))
    same(await db.fetchval("SELECT count(*) FROM item"), 1000)


async def notify():
    listener = await asyncpg.connect(URL)
    heard = asyncio.Queue()

    def hear(_connection, _pid, _channel, payload):
        heard.put_nowait(payload)

    await listener.add_listener("asyncpg", hear)
    await db.execute("NOTIFY asyncpg, 'one'")
    same(await heard.get(), "one")
    await db.execute("SELECT pg_notify($1, $2)", "asyncpg", "two")
    same(await heard.get(), "two")
    await listener.remove_listener("asyncpg", hear)
    await listener.close()


async def errors():
    await db.execute("DELETE FROM item")
    await db.execute("INSERT INTO item VALUES (1, 'one')")
    for sqlstate, sql, *args in [
        ("23505", "INSERT INTO item VALUES ($1, 'again')", 1),
        ("42601", "SELEC 1"),
        ("22012", "SELECT 1 / $1::int", 0),
        ("42P01", "SELECT * FROM nowhere WHERE id = $1", 1),
    ]:
        await fails_async(sqlstate, Error, db.fetch(sql, *args))
        same(await db.fetchval("SELECT $1::text", "usable"), "usable")


async def cancel():
    other = await asyncpg.connect(URL)

    async def runs():
        return await other.fetchval(FIND_SLEEPER) == 1

    async def soon(task):
        await until_async("the statement runs", runs)
        task.cancel()

    # The driver sends a cancel request when its task is cancelled, or out of time.
    sleeper = asyncio.create_task(db.execute(SLEEP))
    await soon(sleeper)
    try:
        await sleeper
        raise AssertionError("not cancelled")
    except asyncio.CancelledError:
        pass
    same(await db.fetchval("SELECT 1"), 1)

    async def gone():
        return await other.fetchval(FIND_SLEEPER) == 0

    await until_async("the server has stopped it", gone)
    await other.close()


async def own_writes():
    await db.execute("DELETE FROM item")
    await db.execute("INSERT INTO item VALUES (1, '0')")
    for i in range(100):
        await db.execute("UPDATE item SET name = $1 WHERE id = 1", str(i))
        same(await db.fetchval("SELECT name FROM item WHERE id = $1", 1), str(i))


async def settings():
    await db.execute("SET TimeZone = 'Asia/Tokyo'")
    await db.fetchval("SELECT set_config($1, $2, false)", "app.tenant", "t1")
    for _ in range(20):
        same(await db.fetchval("SELECT current_setting('TimeZone')"), "Asia/Tokyo")
        same(await db.fetchval("SELECT current_setting($1)", "app.tenant"), "t1")
    same(db.get_settings().TimeZone, "Asia/Tokyo")
    await db.execute("RESET ALL")
    same(await db.fetchval("SHOW app.tenant"), "t7")


async def cursor():
    async with db.transaction():
        numbers = [row[0] async for row in db.cursor("SELECT * FROM generate_series(1, $1)", 1000, prefetch=100)]
        same(sum(numbers), 500500)
        some = await db.cursor("SELECT * FROM generate_series(1, 100)")
        await some.forward(10)
        same((await some.fetchrow())[0], 11)


async def read_only():
    async def write(**how):
        async with db.transaction(**how):
            await db.execute("DELETE FROM item")

    async with db.transaction(readonly=True, isolation="repeatable_read"):
        await db.fetch("SELECT * FROM item WHERE id = $1", 1)
    await fails_async("25006", Error, write(readonly=True))
    await write()


async def pool():
    await db.execute("DELETE FROM item")
    async with asyncpg.create_pool(URL, min_size=4, max_size=4) as connections:

        async def work(i):
            async with connections.acquire() as one:
                await one.execute("SET app.tenant = 'mine'")
                await one.execute("INSERT INTO item VALUES ($1, $2)", i, str(i))
                same(await one.fetchval("SELECT name FROM item WHERE id = $1", i), str(i))

        await asyncio.gather(*map(work, range(200)))

        async def all_seen():
            return await connections.fetchval("SELECT count(*) FROM item") == 200

        # What other sessions have written is seen soon, not at once.
        await until_async("all rows", all_seen)
        # What a pool takes back, it resets.
        same(await connections.fetchval("SELECT current_setting('app.tenant', true)") or "", "")


async def replicas():
    db = await asyncpg.connect(URL)

    async def prepared_one():
        return await db.fetchval("SELECT served_by() WHERE $1 = 1", 1) != PRIMARY

    async def simple_one():
        return await db.fetchval(SERVED_BY) != PRIMARY

    await until_async("a replica serves", simple_one)
    await until_async("a replica serves", prepared_one)


run_async([connect, simple, parameters, types, transactions, prepared, copy, notify, errors, cancel, own_writes,
           settings, cursor, read_only, pool, replicas], missing=["large-objects", "pipeline", "two-phase"])
