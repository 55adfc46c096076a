"""Draws docs/grafana.json as what it asks for: each panel's queries, answered by a Prometheus that watched the
outage of tools/alerts/outage. Grafana itself is not needed, and is in no package (Debian, npm).

    dashboard.py PROMETHEUS DATA PICTURE

Fails if Prometheus refuses a query, or if a panel of a single value has none.
"""

import html
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE.parent.parent / "docs" / "grafana.json"
# Calls are counted every 10 s: a window has to see two of them.
WINDOW = "21s"
UNIT, ROW, GAP, HEAD = 50, 25, 8, 34
COLORS = "#73bf69 #f2cc0c #5794f2 #ff9830 #f2495c #b877d9 #8ab8ff #ffa6b0".split()
MOST_LINES = 8


class Prometheus:
    """On what was scraped; it scrapes nothing itself."""

    def __init__(self, program, data):
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name) / "prometheus.yml"
        config.write_text("scrape_configs: []\n")
        arguments = [
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            "--web.listen-address=127.0.0.1:0",
        ]
        self.process = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE, text=True)
        self.base = None
        for line in self.process.stderr:
            if found := re.search(r'msg="Listening on" address=(\S+)', line):
                self.base = f"http://{found[1]}/api/v1/"
            if "Server is ready" in line:
                return
        sys.exit("dashboard: Prometheus ended before it was ready")

    def ask(self, what, **parameters):
        url = f"{self.base}{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"dashboard: {parameters['query']}: {error.read().decode()}")

    def end(self):
        self.process.terminate()
        self.process.communicate()
        self.folder.cleanup()


def concrete(query):
    """What Grafana puts in for its variables: all of everything."""
    query = query.replace("$__rate_interval", WINDOW)
    return re.sub(r"\$(job|namespace|group|service)\b", ".*", query)


def legend(form, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), form)


def shown(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    suffix = {"reqps": " req/s", "ops": " /s"}.get(unit, "")
    return f"{value:.3g}{suffix}"


def text(x, y, words, size=12, color="#ccccdc", anchor="start", weight=400):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{html.escape(words)}</text>'
    )


def graph(box, series, begin, end, unit):
    x, y, width, height = box
    ranked = sorted(series, key=lambda line: -max(value for _, value in line[1]))
    some = [line for line in ranked if max(value for _, value in line[1]) > 0] or ranked
    lines, rest = some[:MOST_LINES], len(ranked) - len(some[:MOST_LINES])
    legend_rows = -(-(len(lines) + bool(rest)) // 3)
    left, right, top = x + 62, x + width - 10, y + HEAD
    bottom = y + height - 22 - 14 * legend_rows
    most = max((value for _, line in lines for _, value in line), default=0) or 1
    across = lambda at: left + (at - begin) / (end - begin) * (right - left)
    up = lambda value: bottom - value / most * (bottom - top)
    out = []
    for share in (0, 0.5, 1):
        level = up(most * share)
        out.append(f'<path d="M{left} {level:.1f}H{right}" stroke="#2c3235"/>')
        out.append(text(left - 6, level + 4, shown(most * share, unit), 10, "#9fa7b3", "end"))
    step = 10 * -(-int(end - begin) * 4 // int(width))
    for seconds in range(0, int(end - begin) + 1, step):
        out.append(text(across(begin + seconds), bottom + 14, f"{seconds} s", 10, "#9fa7b3", "middle"))
    for number, (name, line) in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path, last = "", None
        for place, (at, value) in enumerate(line):
            before, after = line[place - 1 : place] or [None], line[place + 1 : place + 2] or [None]
            same = before[0] and after[0] and before[0][1] == value == after[0][1] and after[0][0] - at < 2.5
            if not same:
                command = "L" if last is not None and at - last < 2.5 else "M"
                path += f"{command}{across(at):.0f} {up(value):.0f}"
            last = at
        out.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    for number, name in enumerate([name for name, _ in lines] + [f"and {rest} more"] * bool(rest)):
        place = (x + 12 + number % 3 * (width - 20) / 3, bottom + 28 + 14 * (number // 3))
        color = COLORS[number % len(COLORS)] if number < len(lines) else "#9fa7b3"
        out.append(f'<path d="M{place[0]:.0f} {place[1] - 4:.0f}h10" stroke="{color}" stroke-width="3"/>')
        out.append(text(place[0] + 15, place[1], name[:34], 10))
    return out


def panel(prometheus, one, begin, end):
    at = one["gridPos"]
    x, y = at["x"] * UNIT + GAP, at["y"] * ROW + GAP + HEAD
    width, height = at["w"] * UNIT - GAP, at["h"] * ROW - GAP
    if one["type"] == "row":
        return [text(x, y + 14, one["title"], 14, weight=600)]
    out = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="#181b1f" stroke="#2c3235"/>',
        text(x + 10, y + 20, one["title"], 13, weight=600),
    ]
    unit, series = one["fieldConfig"]["defaults"].get("unit"), []
    for target in one["targets"]:
        query = concrete(target["expr"])
        for found in prometheus.ask("query_range", query=query, start=begin, end=end, step=1):
            line = [(at, float(value)) for at, value in found["values"] if value not in ("NaN", "+Inf", "-Inf")]
            if line:
                series.append((legend(target["legendFormat"], found["metric"]), line))
    if one["type"] == "stat":
        if not series:
            sys.exit(f"dashboard: {one['title']} has no value")
        worst = max(value for _, value in series[0][1])
        color = "#f2495c" if worst else "#73bf69"
        return out + [
            text(x + width / 2, y + height - 18, shown(worst, unit), 40, color, "middle", 600),
            text(x + width - 10, y + height - 10, "the most at once", 10, "#9fa7b3", "end"),
        ]
    if not series:
        return out + [text(x + width / 2, y + height / 2, "nothing of it in this run", 12, "#9fa7b3", "middle")]
    return out + graph((x, y, width, height), series, begin, end, unit)


def main(program, data, picture):
    dashboard = json.loads(DASHBOARD.read_text())
    prometheus = Prometheus(program, data)
    try:
        times = [float(at) for one in prometheus.ask("query", query="tower_nacos_clients[1d]") for at, _ in one["values"]]
        if not times:
            sys.exit("dashboard: nothing was scraped; run tools/alerts/outage first")
        begin, end = min(times), max(times)
        drawn = [line for one in dashboard["panels"] for line in panel(prometheus, one, begin, end)]
    finally:
        prometheus.end()
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in dashboard["panels"])
    width, height = 24 * UNIT + GAP, rows * ROW + 2 * GAP + HEAD
    title = text(GAP, 28, f"{dashboard['title']}: docs/grafana.json, by the data of one outage", 16, weight=600)
    Path(picture).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#111217"/>\n' + "\n".join([title, *drawn]) + "\n</svg>\n"
    )
    print(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
