#!/usr/bin/env python3
"""Counts the instructions that the lines of benches/instructions cost, under valgrind's callgrind.

Of each line two runs in one process are counted, one three times as long as the other: the difference
over the difference of their lengths is what one operation costs, and what both have in common falls out.

count.py table [LINE...]      counts and prints
count.py check [LINE...]      and compares with benches/instructions.txt: fails where a line is beside it
count.py baseline [LINE...]   and writes that file
count.py noise [TIMES]        counts so often, and prints by how much each line differs from run to run
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "benches" / "instructions.txt"
# Either way: what got cheaper is to be written down, or it may get dearer again unseen.
ALLOWED = 0.02
REBASELINE = "tools/instructions/count.py baseline"
COUNTED = "counted_by_callgrind"
# A server that does not answer would keep a run for ever.
LONGEST = 300


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def build():
    """The program, as `cargo bench` builds it."""
    told = run("cargo", "bench", "--quiet", "--bench", "instructions", "--no-run", "--message-format=json")
    for line in told.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "instructions" and message.get("executable"):
            return message["executable"]
    sys.exit("cargo built no bench `instructions`")


def machine():
    """What the figures hold for: where one of these differs the counts do, whatever this crate does."""
    rustc = dict(re.findall(r"^(\S+): (.*)$", run("rustc", "-vV"), re.M))
    flags = Path("/proc/cpuinfo")
    flags = flags.read_text() if flags.exists() else ""
    return {
        "rustc": f"{rustc['release']} ({rustc.get('commit-hash', 'unknown')[:9]})",
        "target": rustc["host"],
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        # The C library chooses how it copies by this.
        "cpu": "avx2" if " avx2 " in flags else "no avx2",
        "rustflags": os.environ.get("RUSTFLAGS", "") or "none",
    }


def count(program, name, operations):
    """Instructions an operation."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            f"--toggle-collect=*{COUNTED}*",
            program,
            name,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        if ended.returncode != 0:
            raise RuntimeError(f"{name} failed under valgrind:\n{ended.stderr}")
        costs = calls(out.read_text())
    if len(costs) != 2 or costs[1] <= costs[0]:
        raise RuntimeError(f"{name}: callgrind saw {costs} of {COUNTED}, not a short run and a long one")
    return (costs[1] - costs[0]) / operations


def calls(profile):
    """What each call of the function that is counted cost, in callgrind's format: `cfn`, `calls`, the cost."""
    known = re.search(rf"^c?fn=(\(\d+\)) .*{COUNTED}", profile, re.M)
    if not known:
        return []
    of_it = rf"^cfn={re.escape(known.group(1))}(?: .*)?\ncalls=1 .*\n\S+ (\d+)$"
    return [int(cost) for cost in re.findall(of_it, profile, re.M)]


def names(program):
    """The lines, and how many operations lie between their two runs."""
    lines = (line.split() for line in run(program, "--list").splitlines())
    return {name: int(operations) for name, operations in lines}


def count_all(only, program=None):
    program = program or build()
    lines = names(program)
    unknown = [name for name in only if name not in lines]
    if unknown:
        sys.exit(f"no line is called {', '.join(unknown)}; {program} --list names them")
    wanted = only or list(lines)
    # Nobody is in anybody's way: instructions are counted, not time.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = pool.map(lambda name: count(program, name, lines[name]), wanted)
        return dict(zip(wanted, counted))


def read():
    """The head of the baseline, and its figures."""
    if not BASELINE.exists():
        sys.exit(f"there is no {BASELINE.relative_to(ROOT)} to compare with: {REBASELINE} writes it")
    head, figures = {}, {}
    for line in BASELINE.read_text().splitlines():
        if found := re.match(r"# (\w+): (.*)", line):
            head[found.group(1)] = found.group(2)
        elif line and not line.startswith("#"):
            name, figure = line.split()
            figures[name] = float(figure)
    return head, figures


def write(figures):
    head = "".join(f"# {name}: {value}\n" for name, value in machine().items())
    lines = "".join(f"{name:32} {figure:12.1f}\n" for name, figure in figures.items())
    about = "# Instructions an operation, by valgrind: tools/instructions/count.py writes and checks this.\n"
    BASELINE.write_text(about + head + "\n" + lines)


def check(only):
    head, before = read()
    here = machine()
    others = [f"{name} {here[name]}, not {head.get(name)}" for name in here if here[name] != head.get(name)]
    program = build()
    lines = names(program)
    beside = [f"{name}: in the baseline, and not in benches/instructions" for name in before if name not in lines]
    unknown = [name for name in lines if name not in before]
    wanted = [name for name in only or lines if name in before and name in lines]
    now = count_all(wanted, program) if wanted else {}
    for name, figure in now.items():
        change = figure / before[name] - 1
        print(f"{name:32} {before[name]:12.1f} {figure:12.1f}  {change:+7.2%}")
        if abs(change) > ALLOWED:
            beside.append(
                f"{name}: {before[name]:.1f} instructions in the baseline, {figure:.1f} now ({change:+.2%})"
            )
    if unknown:
        print(f"instructions: not in the baseline, and not counted: {', '.join(unknown)} ({REBASELINE} LINE...)")
    if others:
        print(f"instructions: reported only, since the baseline is of another machine: {'; '.join(others)}")
        return 0
    if beside:
        print(f"\ninstructions: beside the baseline (± {ALLOWED:.0%}):", file=sys.stderr)
        for line in beside:
            print(f"  {line}", file=sys.stderr)
        print(
            f"If that is as it should be: {REBASELINE}\n"
            "and commit benches/instructions.txt with what changed it. If not, callgrind_annotate tells where "
            "it went (benches/README.md).",
            file=sys.stderr,
        )
        return 1
    print(f"instructions: ok, {len(now)} lines within {ALLOWED:.0%} of the baseline")
    return 0


def baseline(only):
    figures = read()[1] if only and BASELINE.exists() else {}
    figures.update(count_all(only))
    write(figures)
    print(BASELINE.read_text(), end="")
    return 0


def noise(times):
    all_times = [count_all([]) for _ in range(times)]
    for name in all_times[0]:
        figures = [one[name] for one in all_times]
        spread = max(figures) / min(figures) - 1
        print(f"{name:32} {min(figures):12.1f} {max(figures):12.1f}  {spread:7.3%}")
    return 0


def main():
    what, *rest = sys.argv[1:] or ["--help"]
    if what == "table":
        for name, figure in count_all(rest).items():
            print(f"{name:32} {figure:12.1f}", flush=True)
        return 0
    if what == "check":
        return check(rest)
    if what == "baseline":
        return baseline(rest)
    if what == "noise":
        return noise(int(rest[0]) if rest else 5)
    print(__doc__)
    return 0 if what == "--help" else 2


if __name__ == "__main__":
    sys.exit(main())
