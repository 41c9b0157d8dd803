"""pgbench directly and through each proxy: every cell (a workload at a number of clients) is measured once per
round through each way, in another order each round, so that a slow minute of the machine hits all alike."""

import glob
import os
import re
import statistics
import subprocess
import tempfile

from .machine import POOL, program, say, write

SESSION = "pgbouncer (session)"

# Ten reads between two Syncs: what it costs to be cut up into round trips shows here.
PIPELINE = "\n".join(
    ["\\set aid random(1, 100000 * :scale)", "\\startpipeline"]
    + ["SELECT abalance FROM pgbench_accounts WHERE aid = :aid;"] * 10
    + ["\\endpipeline", ""]
)
# As -S, without the questions that pgbench itself asks first: canned nodes could not answer them.
CANNED = "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"


def cell_name(cell):
    return f"{cell[0]} {cell[1]} × {cell[2]}"


def all_cells():
    cells = [("-S", mode, clients) for mode in ("simple", "extended", "prepared") for clients in (1, 16, 64)]
    cells += [("TPC-B", "simple", clients) for clients in (1, 16, 64)]
    return cells + [("pipeline", "extended", 16), ("pipeline", "prepared", 16)]


def quick_cells():
    return [("-S", mode, 16) for mode in ("simple", "extended", "prepared")] + [("TPC-B", "simple", 16)]


def percentile(sorted_values, share):
    if not sorted_values:
        return None
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def run_pgbench(cluster, port, proxy, cell, seconds, cores=None):
    workload, mode, clients = cell
    with tempfile.TemporaryDirectory() as logs:
        command = [program("pgbench", cluster.facts["bin"]), "-n", "-h", "127.0.0.1", "-p", str(port),
                   "-U", "app", "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds),
                   "--log", f"--log-prefix={logs}/t"]
        if workload == "-S":
            command.append("-S")
        elif workload in ("pipeline", "canned"):
            script = PIPELINE if workload == "pipeline" else CANNED
            command += ["-D", "scale=1", "-f", write(f"{logs}/script.sql", script)]
        env = dict(os.environ, PGPASSWORD=cluster.password, PGSSLMODE="disable")
        before = proxy.cpu_seconds() if proxy else 0
        out = subprocess.run(command + [cluster.database], env=env, capture_output=True, text=True,
                             timeout=seconds * 4 + 60, check=False,
                             preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None)
        cpu = proxy.cpu_seconds() - before if proxy else 0
        latencies = []
        for path in glob.glob(f"{logs}/t*"):
            with open(path, encoding="ascii") as log:
                latencies += [int(line.split()[2]) for line in log]
    done = re.search(r"transactions actually processed: (\d+)", out.stdout)
    tps = re.search(r"tps = ([\d.]+)", out.stdout)
    failed = re.search(r"failed transactions: (\d+)", out.stdout)
    if out.returncode != 0 or not done or not tps or int(done[1]) == 0:
        say(f"  pgbench failed: {(out.stderr or out.stdout).strip().splitlines()[-3:]}")
        return None
    latencies.sort()
    return {
        "tps": float(tps[1]),
        "p50_ms": (percentile(latencies, 0.5) or 0) / 1000,
        "latency_ms": statistics.fmean(latencies) / 1000 if latencies else None,
        "p99_ms": (percentile(latencies, 0.99) or 0) / 1000,
        "cpu_us": cpu * 1e6 / int(done[1]) if proxy else None,
        "transactions": int(done[1]),
        "failed": int(failed[1]) if failed else 0,
    }


def measure(cluster, ways, cells, rounds, seconds):
    """`ways`: name → (port, proxy or None, which cells it can do)."""
    results = {(cell, way): [] for cell in cells for way in ways}
    names = list(ways)
    for round_number in range(rounds):
        for index, cell in enumerate(cells):
            turn = (round_number + index) % len(names)
            line = []
            for way in names[turn:] + names[:turn]:
                port, proxy, can = ways[way]
                if not can(cell):
                    continue
                result = run_pgbench(cluster, port, proxy, cell, seconds)
                results[cell, way].append(result)
                line.append(f"{way} {result['tps']:.0f}" if result else f"{way} failed")
            say(f"round {round_number + 1}/{rounds}, {cell_name(cell)}: tps {' · '.join(line)}")
    return results


def median(runs, key):
    values = [run[key] for run in runs if run and run[key] is not None]
    return statistics.median(values) if values else None


def ratio(runs, base, key):
    """The median over the rounds of what one way took in a round by what the other took in the same round."""
    pairs = [(a[key], b[key]) for a, b in zip(runs, base) if a and b and a[key] and b[key]]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def summarize(results, ways, cells):
    rows = []
    for cell in cells:
        bouncer = results.get((cell, "pgbouncer")) or results.get((cell, SESSION)) or []
        for way, (_, _, can) in ways.items():
            runs = results[cell, way]
            row = {"cell": cell_name(cell), "workload": cell[0], "mode": cell[1], "clients": cell[2], "way": way}
            if not can(cell):
                continue
            if not any(runs):
                rows.append({**row, "note": "failed"})
                continue
            for key in ("tps", "p50_ms", "latency_ms", "p99_ms", "cpu_us"):
                row[key] = median(runs, key)
            row["failed"] = sum(run["failed"] for run in runs if run)
            for key in ("tps", "cpu_us"):
                row[f"{key}_ratio"] = ratio(runs, bouncer, key)
            row["runs"] = runs
            rows.append(row)
    return rows


def show(value, pattern, none="–"):
    return none if value is None else pattern.format(value)


def print_table(rows):
    print(f"\n{'cell':<24}{'through':<21}{'tps':>8}{'p50 ms':>9}{'mean ms':>9}{'p99 ms':>9}{'CPU µs/tx':>11}"
          f"{'tps ×':>8}{'CPU ×':>8}  (× PgBouncer; pool {POOL})")
    previous = None
    for row in rows:
        name = row["cell"] if row["cell"] != previous else ""
        previous = row["cell"]
        start = f"{name:<24}{row['way']:<21}"
        if "note" in row:
            print(start + row["note"])
            continue
        print(start + show(row["tps"], "{:8.0f}") + show(row["p50_ms"], "{:9.3f}")
              + show(row["latency_ms"], "{:9.3f}", f"{'–':>9}")
              + show(row["p99_ms"], "{:9.3f}") + show(row["cpu_us"], "{:11.1f}", f"{'–':>11}")
              + show(row["tps_ratio"], "{:8.2f}", f"{'–':>8}") + show(row["cpu_us_ratio"], "{:8.2f}", f"{'–':>8}")
              + (f"  {row['failed']} FAILED" if row["failed"] else ""))
