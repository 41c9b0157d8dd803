"""The goals, each with its figure."""


def row_of(rows, workload, mode, clients, way):
    return next((row for row in rows if (row["workload"], row["mode"], row["clients"], row["way"])
                 == (workload, mode, clients, way) and "note" not in row), None)


def cpu_goals(rows):
    for workload, mode, most in (("-S", "simple", 0.95), ("-S", "extended", 0.95), ("-S", "prepared", 0.85),
                                 ("TPC-B", "simple", 0.95)):
        for clients in (1, 16, 64):
            row = row_of(rows, workload, mode, clients, "pgweir")
            if row and row.get("cpu_us_ratio"):
                bound = 1.0 if clients == 1 else most
                name = mode if workload == "-S" else workload
                yield (1, f"CPU per transaction, {name}, {clients} clients, × PgBouncer", row["cpu_us_ratio"], bound, "≤")
    for mode in ("simple", "extended", "prepared"):
        ours, theirs, direct = (row_of(rows, "-S", mode, 1, way) for way in ("pgweir", "pgbouncer", "direct"))
        theirs = theirs or row_of(rows, "-S", mode, 1, "pgbouncer (session)")
        if ours and theirs and direct:
            added = [1000 * (row["p50_ms"] - direct["p50_ms"]) for row in (ours, theirs)]
            yield (1, f"added latency, {mode}, 1 client, p50, µs (PgBouncer {added[1]:.0f})", added[0], added[1], "≤")


def part_goals(parts):
    scaling, bulk, memory = parts.get("scaling", {}), parts.get("bulk"), parts.get("memory")
    if scaling.get("two_to_one"):
        yield (2, "transactions per second on 2 cores, × 1 core", scaling["two_to_one"], 1.8, "≥")
        yield (2, "transactions per second on 1 core, × PgBouncer", scaling["to_pgbouncer_on_one"], 1.0, "≥")
    if bulk:
        for work, by in bulk["cpu_s_per_gb"].items():
            yield (3, f"{work}, CPU s/GB (PgBouncer {by['pgbouncer']:.2f}, HAProxy {by['haproxy']:.2f})",
                   by["pgweir"], 0.5, "≤")
        yield (3, "memory grown by it, MB", bulk["pgweir_peak_grew_by"] / 1e6, 8, "≤")
    if memory:
        ours, theirs, tls = memory["pgweir"], memory["pgbouncer"], memory["pgweir, TLS"]
        yield (4, f"bytes per idle client (PgBouncer {theirs['bytes']:.0f})", ours["bytes"], 1060, "≤")
        yield (4, "the same after each has run a query, × before", ours["bytes_after_query"] / ours["bytes"], 1.1, "≤")
        yield (4, f"bytes per idle client, TLS (PgBouncer {memory['pgbouncer, TLS']['bytes']:.0f})",
               tls["bytes"], 8192, "≤")
        yield (4, f"memory after the last of {len(ours['rounds'])} rounds, × after the first",
               ours["rounds"][-1] / ours["rounds"][0], 1.05, "≤")
    if "login" in parts:
        plain, tls = parts["login"]["plain"], parts["login"]["tls"]
        yield (5, f"login, CPU µs (PgBouncer {plain['pgbouncer']:.0f})", plain["pgweir"], 150, "≤")
        yield (5, f"login with TLS resumption, × PgBouncer's {tls['pgbouncer']:.0f} µs", tls["ratio"], 1.5, "≤")
    if "decisions" in parts:
        cost = parts["decisions"]
        yield (6, "fingerprint + cache + decide, pgbench -S, ns", cost["pgbench_ns"], 300, "≤")
        yield (6, "the same, 15 lines of an ORM, ns", cost["orm_ns"], 1000, "≤")
        storm = cost["storm"]
        yield (6, "parses per new shape", storm["misses"] / storm["shapes"], 1.0, "≤")
        yield (6, f"shapes kept of {storm['shapes']}", storm["kept"], 4096, "≤")
        yield (6, "hits during a storm of shapes, × before", storm["hit_after_ns"] / storm["hit_before_ns"], 1.2, "≤")
        worst = max(cost["hostile"], key=lambda text: text["growth"])
        yield (6, f"time for ten times the text ({worst['what']})", worst["growth"], 15, "≤")
    if "growth" in parts:
        grown = parts["growth"]
        yield (7, "CPU per transaction, 1,000 clients over 20 connections, × 16 clients", grown["clients"], 1.3, "≤")
        yield (7, "16 replicas, × 2 replicas", grown["replicas"], 1.1, "≤")
        yield (7, f"beside {grown['idle_clients']} idle clients, × beside none", grown["idle"], 1.05, "≤")


def judge(rows, parts):
    goals = []
    for number, what, figure, bound, sign in [*cpu_goals(rows), *part_goals(parts)]:
        met = figure <= bound if sign == "≤" else figure >= bound
        goals.append({"goal": number, "what": what, "figure": figure, "bound": bound, "sign": sign, "met": met})
    return goals


def figure(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def print_goals(goals):
    print(f"\n{'goal':<6}{'':<84}{'figure':>10}{'':>3}{'wanted':>9}")
    for goal in goals:
        print(f"{goal['goal']:<6}{goal['what']:<84}{figure(goal['figure']):>10}  {goal['sign']}"
              f"{figure(goal['bound']):>9}  {'met' if goal['met'] else 'NOT MET'}")
