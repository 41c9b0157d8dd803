"""What pgbench does not show: scaling, bulk, memory, login, decisions, and how costs grow."""

import json
import os
import statistics
import subprocess
import time

from .machine import Canned, Crowd, example, say, start_haproxy, start_pgbouncer, start_pgweir
from .throughput import run_pgbench


def warm(crowd):
    """Server connections, caches and keys are there before anything is counted."""
    crowd.tell("open 4")
    crowd.tell("query")
    crowd.tell("close")


def stop(*things):
    for thing in things:
        thing.stop()


def scaling(folder, cluster, quick):
    """Everything (clients, proxy, canned nodes) on one core, then on two: transactions per second."""
    if len(os.sched_getaffinity(0)) < 2:
        return {"note": "needs two cores"}
    cores = sorted(os.sched_getaffinity(0))[:2]
    canned, proxies, found = {}, {}, {}
    for count in (1, 2):
        these = set(cores[:count])
        nodes = canned[count] = Canned(cluster, 2, these)
        # As many workers as cores: each proxy is started where it is to run.
        proxies["pgweir", count] = start_pgweir(folder, cluster, nodes.nodes, cores=these)
        proxies["pgbouncer", count] = start_pgbouncer(folder, cluster, nodes.primary, cores=these)
    for _ in range(2 if quick else 5):
        for (name, count), proxy in proxies.items():
            run = run_pgbench(cluster, proxy.port, proxy, ("canned", "simple", 32), 1 if quick else 4,
                              set(cores[:count]))
            found.setdefault((name, count), []).append(run)
    stop(*proxies.values(), *canned.values())
    tps = {key: [run["tps"] for run in runs if run] for key, runs in found.items()}
    together = lambda a, b: statistics.median(x / y for x, y in zip(tps[a], tps[b])) if tps[a] and tps[b] else None
    return {
        "cpu_us": {f"{name}, {count} cores": statistics.median(run["cpu_us"] for run in runs if run)
                   for (name, count), runs in found.items()},
        "tps": {f"{name}, {count} cores": statistics.median(values)
                for (name, count), values in tps.items() if values},
        "two_to_one": together(("pgweir", 2), ("pgweir", 1)),
        "pgbouncer_two_to_one": together(("pgbouncer", 2), ("pgbouncer", 1)),
        "to_pgbouncer_on_one": together(("pgweir", 1), ("pgbouncer", 1)),
    }


BULK_ROWS = {"rows of 1 kB": "bulk", "rows of 100 B": "bulk_short"}


def bulk(folder, cluster, quick):
    """CPU seconds per GB of a large answer, and of COPY both ways; and how far memory grew."""
    megabytes = 50 if quick else 200
    say(f"tables of {megabytes} MB …")
    cluster.sql(cluster.primary, f"""
        CREATE TABLE bulk AS SELECT repeat('x', 990) AS t FROM generate_series(1, {megabytes * 1000});
        CREATE TABLE bulk_short AS SELECT repeat('x', 90) AS t FROM generate_series(1, {megabytes * 10000});
        CREATE UNLOGGED TABLE bulk_in (t text); GRANT ALL ON bulk, bulk_short, bulk_in TO app;
        ALTER TABLE bulk_in SET (autovacuum_enabled = off)""")
    cluster.wait_caught_up()
    proxies = {"haproxy": start_haproxy(folder, cluster.primary),
               "pgbouncer": start_pgbouncer(folder, cluster, cluster.primary),
               "pgweir": start_pgweir(folder, cluster, cluster.nodes)}
    crowds = {name: Crowd(cluster, proxy.port) for name, proxy in proxies.items()}
    for crowd in crowds.values():
        warm(crowd)
    before = proxies["pgweir"].peak()
    works = {f"SELECT, {rows}": f"ask SELECT * FROM {table}" for rows, table in BULK_ROWS.items()}
    works["COPY OUT, rows of 1 kB"] = "ask COPY bulk TO STDOUT"
    works["COPY IN, rows of 1 kB"] = f"copy {megabytes} COPY bulk_in FROM STDIN"
    found = {(work, name): [] for work in works for name in proxies}
    # The first go warms the servers' caches, and is not counted.
    for round_number in range(2 if quick else 6):
        for work, command in works.items():
            for name, proxy in proxies.items():
                cpu = proxy.cpu_seconds()
                moved = crowds[name].tell(command)["done"]
                cpu = proxy.cpu_seconds() - cpu
                if work.startswith("COPY IN"):
                    cluster.sql(cluster.primary, "TRUNCATE bulk_in")
                if round_number > 0:
                    found[work, name].append(cpu / (moved / 1e9))
    grown = proxies["pgweir"].peak() - before
    stop(*crowds.values(), *proxies.values())
    cluster.sql(cluster.primary, "DROP TABLE bulk, bulk_short, bulk_in")
    return {
        "cpu_s_per_gb": {work: {name: statistics.median(found[work, name]) for name in proxies} for work in works},
        "megabytes": megabytes, "pgweir_peak_grew_by": grown,
    }


# Seconds until pgweir's clients have gone to sleep: each after one or two without a request.
SETTLE = 4


def memory(folder, cluster, quick):
    """Bytes (PSS) per idle client, before and after each has run a query, with and without TLS; ten rounds."""
    count, rounds = (2000, 3) if quick else (10_000, 10)
    found = {}
    for tls in (False, True):
        starts = {"pgbouncer": lambda: start_pgbouncer(folder, cluster, cluster.primary, tls=tls),
                  "pgweir": lambda: start_pgweir(folder, cluster, cluster.nodes, tls=tls)}
        for name, start in starts.items():
            proxy = start()
            crowd = Crowd(cluster, proxy.port, tls=tls)
            warm(crowd)
            time.sleep(1)
            empty = proxy.pss()
            crowd.tell(f"open {count}")
            time.sleep(SETTLE)
            opened = proxy.pss()
            crowd.tell("query")
            time.sleep(SETTLE)
            asked = proxy.pss()
            after = []
            for _ in range(rounds if name == "pgweir" and not tls else 1):
                crowd.tell("close")
                time.sleep(0.5)
                after.append(proxy.pss())
                crowd.tell(f"open {count}")
                crowd.tell("query")
            found[f"{name}{', TLS' if tls else ''}"] = {
                "bytes": (opened - empty) / count, "bytes_after_query": (asked - empty) / count,
                "empty": empty, "rounds": after, "full": proxy.pss(),
            }
            say(f"memory, {name}{', TLS' if tls else ''}: {(opened - empty) / count:.0f} bytes per idle client")
            stop(crowd, proxy)
    return {"clients": count, **found}


def login(folder, cluster, quick):
    """CPU microseconds of connect, SCRAM, one query and close."""
    count, found = (300, {}) if quick else (1500, {})
    for tls in (False, True):
        proxies = {"pgbouncer": start_pgbouncer(folder, cluster, cluster.primary, tls=tls),
                   "pgweir": start_pgweir(folder, cluster, cluster.nodes, tls=tls)}
        crowds = {name: Crowd(cluster, proxy.port, tls=tls) for name, proxy in proxies.items()}
        runs = {name: [] for name in proxies}
        for crowd in crowds.values():
            warm(crowd)
        for _ in range(2 if quick else 6):
            for name, proxy in proxies.items():
                cpu = proxy.cpu_seconds()
                crowds[name].tell(f"login {count}")
                runs[name].append((proxy.cpu_seconds() - cpu) * 1e6 / count)
        stop(*crowds.values(), *proxies.values())
        found["tls" if tls else "plain"] = {
            **{name: statistics.median(values) for name, values in runs.items()},
            "ratio": statistics.median(a / b for a, b in zip(runs["pgweir"], runs["pgbouncer"])),
        }
    return found


def decisions(_folder, _cluster, _quick):
    return json.loads(subprocess.check_output([example("decision_cost")], text=True))


def per_transaction(proxy, crowd, clients, seconds):
    cpu = proxy.cpu_seconds()
    done = crowd.tell(f"run {clients} {seconds}")["done"]
    return (proxy.cpu_seconds() - cpu) * 1e6 / max(done, 1)


def growth(folder, cluster, quick):
    """CPU per transaction as clients, replicas and idle clients grow, against canned nodes."""
    rounds, seconds = (2, 1) if quick else (6, 2)
    idle = 2000 if quick else 10_000
    few, many = Canned(cluster, 2), Canned(cluster, 16)
    plain, crowded = start_pgweir(folder, cluster, few.nodes), start_pgweir(folder, cluster, few.nodes)
    wide = start_pgweir(folder, cluster, many.nodes)
    # 20 connections in all: twelve to the primary, which these reads do not use, is ten to each replica.
    shared = start_pgweir(folder, cluster, few.nodes, pool=10)
    crowds = {proxy: Crowd(cluster, proxy.port) for proxy in (plain, crowded, wide, shared)}
    for proxy, crowd in crowds.items():
        crowd.tell(f"open {1000 if proxy is shared else 16}")
        crowd.tell("run 16 1")
    crowds[crowded].tell(f"open {idle}")
    found = {"16": [], "1000": [], "2 replicas": [], "16 replicas": [], "no idle": [], "idle": []}
    for _ in range(rounds):
        found["16"].append(per_transaction(shared, crowds[shared], 16, seconds))
        found["1000"].append(per_transaction(shared, crowds[shared], 1000, seconds))
        base = per_transaction(plain, crowds[plain], 16, seconds)
        found["2 replicas"].append(base)
        found["no idle"].append(base)
        found["16 replicas"].append(per_transaction(wide, crowds[wide], 16, seconds))
        found["idle"].append(per_transaction(crowded, crowds[crowded], 16, seconds))
    stop(*crowds.values(), *crowds, few, many)
    times = lambda a, b: statistics.median(x / y for x, y in zip(found[a], found[b]))
    return {
        "cpu_us": {name: statistics.median(values) for name, values in found.items()}, "idle_clients": idle,
        "clients": times("1000", "16"), "replicas": times("16 replicas", "2 replicas"),
        "idle": times("idle", "no idle"),
    }


ALL = {"scaling": scaling, "bulk": bulk, "memory": memory, "login": login, "decisions": decisions, "growth": growth}
