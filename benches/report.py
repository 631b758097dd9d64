#!/usr/bin/env python3
"""Makes the tables of BENCHMARKS.md and README.md and the charts of what `benches/run` has left in raw/."""

import json
import re
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
RAW = HERE / "raw"


def lines(name):
    path = RAW / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def of_kind(name, kind):
    return [line for line in lines(name) if line["kind"] == kind]


# ---- tables


def table(heads, rows):
    """Figures stand to the right, the first column to the left."""
    if not rows:
        return "Not measured yet."
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [heads, rule, *rows])


def thousands(number):
    return f"{number:,.0f}"


def machine():
    path = RAW / "machine.txt"
    facts = [line.split(": ", 1) for line in path.read_text().splitlines()] if path.exists() else []
    return table(["what", "measured on"], facts)


def hot_path():
    rows = [
        [line["service"], *(thousands(line[key]) for key in ("min_ns", "median_ns", "over_bare_ns")),
         f"{line['times_ours']:.2f}"]
        for line in lines("hot_path")
    ]
    return table(["service", "min ns", "median ns", "over bare ns", "× ours"], rows)


def threads():
    rows = [
        [line["tokens"], line["threads"], f"{line['ours_per_second'] / 1e6:.2f}", f"{line['ours_gain']:.2f}",
         f"{line['bare_gain']:.2f}", thousands(line["over_bare_ns"])]
        for line in of_kind("scaling", "threads")
    ]
    return table(["tokens", "threads", "million calls/s", "× one thread", "bare: × one thread", "over bare ns"], rows)


def sizes():
    rows = [
        [thousands(line["tokens"]), thousands(line["over_bare_ns"]), f"{line['times_1000']:.2f}"]
        for line in of_kind("scaling", "sizes")
    ]
    return table(["cached tokens", "hit over bare ns", "× that with 1,000"], rows)


def memory():
    rows = [
        [thousands(line["tokens"]), thousands(line["bytes_per_token"]), thousands(line["texts_bytes"]),
         f"{line['allocations_per_token']:.2f}"]
        for line in lines("memory")
    ]
    return table(["cached tokens", "heap bytes a token", "a record's own texts", "blocks a token"], rows)


def stalls():
    keys = ("ours_us", "left_alone_us", "ours_interrupted_us", "left_alone_interrupted_us")
    rows = [[line["while"], *(thousands(line[key]) for key in keys)] for line in of_kind("scaling", "stalls")]
    heads = ["longest hit while", "this gate µs", "one left alone µs", "interrupted: this µs", "one left alone µs"]
    return table(heads, rows)


def cold():
    rows = [
        [line["hash"], line["threads"], thousands(line["bare_per_second"]), thousands(line["gate_per_second"]),
         f"{line['ratio']:.3f}"]
        for line in lines("cold")
    ]
    return table(["hash", "threads", "bare hashes/s", "cold tokens/s", "ratio"], rows)


def http():
    rows = [
        [line["server"], thousands(line["per_second"]), f"{line['of_bare']:.3f}", f"{line['cpu_us']:.2f}",
         f"{line['over_bare_us']:.2f}"]
        for line in lines("http")
    ]
    return table(["server", "requests/s", "of bare", "server CPU µs a request", "over bare µs"], rows)


def counts():
    pairs = [line.split() for line in (HERE / "counts.txt").read_text().splitlines()]
    rows = [(path, int(count)) for path, count in (pair for pair in pairs if len(pair) == 2 and pair[1].isdigit())]
    bare = dict(rows).get("bare", 0)
    return table(["path", "instructions", "over bare"], [[p.replace("_", " "), thousands(n), thousands(n - bare)] for p, n in rows])


# ---- the three lines of the README


def named(name, key, value, figure):
    """The figure of the line whose `key` begins with `value`."""
    return next(line[figure] for line in lines(name) if line.get(key, "").startswith(value))


def readme():
    if not all(map(lines, ("hot_path", "scaling", "memory", "http"))):
        return "Not measured yet."
    ours, plain = (named("hot_path", "service", f"ours: hit, {name}", "over_bare_ns") for name in ("audit to tr", "without"))
    dashmap, moka, jwt = (named("hot_path", "service", f"AsyncRequireAuthorization, {name}", "times_ours")
                          for name in ("sha256 + dashmap", "sha256 + moka", "HS256"))
    served, in_json = (named("http", "server", f"ours: audit {name}", "of_bare")
                       for name in ("to tracing, nobody", "in JSON to a file, through"))
    hot = [line for line in of_kind("scaling", "threads") if line["tokens"] == "one hot token"][-1]
    last, held = of_kind("scaling", "sizes")[-1], lines("memory")[-1]
    return "\n".join([
        f"- A hot request costs {ours:.0f} ns over the bare service, {plain:.0f} without the extension. A hand-written cache "
        f"behind `AsyncRequireAuthorization` costs {dashmap:.1f} times as much with dashmap and {moka:.1f} times with moka, "
        f"HS256 by `jsonwebtoken` {jwt:.1f} times.",
        f"- An axum server on loopback answers {served:.0%} of the requests that it answers without the layer, and "
        f"{in_json:.0%} where every event is written as JSON through a queue.",
        f"- {hot['threads']} threads on one hot token do {hot['ours_gain']:.2f} times the work of one. Among "
        f"{thousands(last['tokens'])} cached tokens a random hit costs {last['times_1000']:.1f} times that among 1,000, and "
        f"each takes {thousands(held['bytes_per_token'])} bytes of heap.",
    ])


# ---- charts

STYLE = """<style>
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px } .small { font-size: 12px; fill: #57606a }
.grid { stroke: #d0d7de } .ours { fill: #0969da } .peer { fill: #8c959f } .curve { fill: none; stroke: #0969da; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .ours { fill: #4493f8 } .peer { fill: #7d8590 }
.curve { stroke: #4493f8 }
}
</style>"""


def text(x, y, words, css="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'


def svg(width, height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, text(12, 24, title, "title"), *parts, "</svg>\n"])


def bars():
    """What each service costs over the bare one."""
    shown = [line for line in lines("hot_path") if line["group"] in ("ours", "peer")]
    if not shown:
        return None
    left, width, step = 360, 460, 26
    longest = max(line["over_bare_ns"] for line in shown)
    parts = []
    for at, line in enumerate(sorted(shown, key=lambda line: line["over_bare_ns"])):
        y, long = 44 + at * step, max(1, width * line["over_bare_ns"] / longest)
        css = "ours" if line["group"] == "ours" else "peer"
        parts += [
            text(left - 8, y + 14, line["service"], anchor="end"),
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="18" rx="2" class="{css}"/>',
            text(left + long + 6, y + 14, thousands(line["over_bare_ns"]), "small"),
        ]
    title = "A hot request: nanoseconds over the bare service, shorter is better"
    return svg(left + width + 70, 54 + len(shown) * step, title, parts)


def curve(points):
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="ours"/>' for x, y in points]
    return [f'<polyline points="{drawn}" class="curve"/>', *dots]


def short(number):
    """1,000 as 1k, 1,000,000 as 1M."""
    for power, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= power:
            return f"{number / power:g}{letter}"
    return f"{number:g}"


def axes(x, y, width, height, marks, top, unit):
    """A frame whose upright goes from 0 to `top`, and marks along the bottom."""
    parts = [text(x - 8, y - 12, unit, "small")]
    for part in range(5):
        level = y + height * (1 - part / 4)
        parts += [
            f'<line x1="{x}" x2="{x + width}" y1="{level:.1f}" y2="{level:.1f}" class="grid"/>',
            text(x - 8, level + 4, f"{top * part / 4:,g}", "small", "end"),
        ]
    return parts + [text(at, y + height + 18, mark, "small", "middle") for at, mark in marks]


def rounded_up(value):
    """The next number that is easily divided by four."""
    power = 10 ** (len(str(int(value))) - 1)
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def scaling():
    """Left: the cost of a hit by cached tokens. Right: the work of more threads."""
    sizes, threads = of_kind("scaling", "sizes"), of_kind("scaling", "threads")
    if not sizes or not threads:
        return None
    width, height, y, left, right = 330, 220, 76, 60, 500
    top = rounded_up(max(line["over_bare_ns"] for line in sizes))
    xs = [left + width * (at + 0.5) / len(sizes) for at in range(len(sizes))]
    parts = axes(left, y, width, height, list(zip(xs, (short(line["tokens"]) for line in sizes))), top, "ns over bare")
    points = [(x, y + height * (1 - line["over_bare_ns"] / top)) for x, line in zip(xs, sizes)]
    parts += curve(points)
    parts += [text(x - 6, level - 10, thousands(line["over_bare_ns"]), "small", "middle")
              for (x, level), line in zip(points, sizes)]
    parts += [text(left + width / 2, y + height + 38, "cached tokens, random ids", "small", "middle")]
    parts += gains(threads, right, y, width, height)
    return svg(right + width + 30, y + height + 56, "A hit as tokens and threads grow", parts)


def gains(threads, x, y, width, height):
    """Bars: how many times the work of one thread all threads do, ours and bare."""
    most = max(line["threads"] for line in threads)
    shown = [line for line in threads if line["threads"] == most]
    # Room for the figures above bars that reach the top.
    top = most * 1.2
    parts = axes(x, y, width, height, [], top, f"{most} threads: × the work of one")
    for at, line in enumerate(shown):
        middle = x + width * (at + 0.5) / len(shown)
        for side, key, css in ((-32, "ours_gain", "ours"), (2, "bare_gain", "peer")):
            tall = height * min(1, line[key] / top)
            parts += [
                f'<rect x="{middle + side:.1f}" y="{y + height - tall:.1f}" width="30" height="{tall:.1f}" class="{css}"/>',
                text(middle + side + 15, y + height - tall - 5, f"{line[key]:.2f}", "small", "middle"),
            ]
        name, _, how = line["tokens"].partition(", ")
        parts += [text(middle, y + height + 18, name, "small", "middle"), text(middle, y + height + 34, how, "small", "middle")]
    for at, (css, word) in enumerate((("ours", "ours"), ("peer", "bare"))):
        parts += [
            f'<rect x="{x + width - 120 + at * 62}" y="{y - 22}" width="11" height="11" class="{css}"/>',
            text(x + width - 105 + at * 62, y - 12, word, "small"),
        ]
    return parts


# ---- all of it


def put(path, name, words):
    """Replaces what stands between the markers of this name."""
    old = path.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.S)
    new, found = pattern.subn(lambda marks: f"{marks[1]}{words}\n{marks[2]}", old)
    assert found == 1, f"{path} has {found} places for {name}"
    path.write_text(new)


def main():
    for make in (machine, hot_path, threads, sizes, memory, stalls, cold, http, counts):
        put(HERE / "BENCHMARKS.md", make.__name__, make())
    put(HERE.parent / "README.md", "benchmarks", readme())
    (HERE / "charts").mkdir(exist_ok=True)
    for name, chart in (("hot_path", bars()), ("scaling", scaling())):
        if chart:
            (HERE / "charts" / f"{name}.svg").write_text(chart)


if __name__ == "__main__":
    main()
