"""Runs a driver's features and says one line for each: `ok`, `FAIL` or `n/a`."""

import asyncio
import inspect
import os
import time
import traceback

URL = os.environ["DATABASE_URL"]
PRIMARY = os.environ["PRIMARY"]
VARIANT = os.environ.get("VARIANT", "")
# No condition takes as long; its end means that something is wrong.
LONG = 60

TYPES = ("text", "ünï", b"\x00\xff", {"a": [1, None]}, [1, 2, None], ["x", "y,z"])
# It could write, as far as anybody can see: it runs on the primary, where FIND_SLEEPER looks.
SLEEP = "SELECT pg_sleep(61), txid_current()"
FIND_SLEEPER = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
    " AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()"
)
SERVED_BY = "SELECT served_by()"


def until(what, condition):
    """Waits for another process."""
    end = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


async def until_async(what, condition):
    end = time.monotonic() + LONG
    while not await condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        await asyncio.sleep(0.02)


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def fails(sqlstate, kind, code, action):
    """`action` fails with `kind`, whose SQLSTATE `code` knows."""
    try:
        action()
    except kind as error:
        same(code(error), sqlstate)
    else:
        raise AssertionError(f"no error {sqlstate}")


async def fails_async(sqlstate, kind, action):
    try:
        await action
    except kind as error:
        same(error.sqlstate, sqlstate)
    else:
        raise AssertionError(f"no error {sqlstate}")


def say(feature, error=None):
    name = feature.strip("_").replace("_", "-")
    if error is None:
        print(f"ok {name}", flush=True)
    else:
        traceback.print_exception(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"FAIL {name}: {text}", flush=True)


def run(features, missing=()):
    """`features`: functions without arguments, named as what they show."""
    for feature in features:
        try:
            feature()
            say(feature.__name__)
        except Exception as error:
            say(feature.__name__, error)
    for name in missing:
        print(f"n/a {name}", flush=True)


def run_async(features, missing=()):
    async def all_of_them():
        for feature in features:
            try:
                await asyncio.wait_for(feature(), LONG)
                say(feature.__name__)
            except Exception as error:
                say(feature.__name__, error)

    assert all(map(inspect.iscoroutinefunction, features))
    asyncio.run(all_of_them())
    for name in missing:
        print(f"n/a {name}", flush=True)
