"""The results as one SVG, without any library: bars of CPU per transaction, and the goals."""

from html import escape

from .goals import figure

COLOURS = {"haproxy": "#9aa5b1", "pgbouncer": "#d9822b", "pgbouncer (session)": "#d9822b", "pgpool": "#a66bbe",
           "pgweir": "#2b6cb0", "base": "#7fb3e6"}
WIDTH, BAR, LEFT = 900, 14, 250


def svg(facts, rows, goals):
    rows = [row for row in rows if row.get("cpu_us")]
    most = max((row["cpu_us"] for row in rows), default=1)
    # One that costs many times more than the rest would make them all look alike.
    scale = min(most, 4 * max((row["cpu_us"] for row in rows if row["way"] == "pgweir"), default=most))
    out, y, previous = [], 60, None
    for row in rows:
        if row["cell"] != previous:
            previous, y = row["cell"], y + 10
            out.append(f'<text x="10" y="{y + 11}" font-weight="bold">{escape(row["cell"])}</text>')
        width = min(row["cpu_us"] / scale, 1) * (WIDTH - LEFT - 90)
        out.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(row["way"])}</text>'
                   f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS.get(row["way"], "#555")}"/>'
                   f'<text x="{LEFT + width + 6:.1f}" y="{y + 11}">{row["cpu_us"]:.1f} µs</text>')
        y += BAR
    y += 30
    out.append(f'<text x="10" y="{y}" font-size="15">Goals</text>')
    for goal in goals:
        y += 16
        colour = "#2f855a" if goal["met"] else "#c53030"
        out.append(f'<circle cx="16" cy="{y - 4}" r="5" fill="{colour}"/>'
                   f'<text x="28" y="{y}">{goal["goal"]}. {escape(goal["what"])}: {figure(goal["figure"])} '
                   f'(wanted {goal["sign"]} {figure(goal["bound"])})</text>')
    title = f'CPU of the proxy per transaction · {facts["date"]} · {facts["cores"]} cores · load {facts["load before"]}'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="10" y="30" font-size="15">{escape(title)}</text>' + "".join(out) + "</svg>\n")
