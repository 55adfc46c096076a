"""make.py TARGET [page|terminal …]: see tools/pictures/make."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
COLUMNS, ROWS = 110, 40
# What a thing that does not come is waited for at most, in seconds.
LONGEST = 60


class Started:
    """A program whose lines are read one by one; ends with the block that it was started for."""

    def __init__(self, *command, **variables):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def line(self, pattern):
        """The next line with that, as a match."""
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return found
        sys.exit(f"{self.process.args[0]} ended before it said {pattern}")


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, *command):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.title = " ".join([Path(command[0]).name, *map(str, command[1:])])
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.environ.pop("NO_COLOR", None)
            os.execv(command[0], [str(part) for part in command])
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read_until(self, shown):
        """Feeds the screen until it shows that, or its program has ended."""
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            if not select.select([self.file], [], [], 0.1)[0]:
                if shown is not None and re.search(shown, "\n".join(self.screen.display)):
                    return
                continue
            try:
                read = os.read(self.file, 65536)
            except OSError:
                read = b""
            if not read:
                return
            self.stream.feed(read)
        sys.exit(f"{self.title}: nothing with {shown} came within {LONGEST} s:\n" + "\n".join(self.screen.display))

    def end(self):
        os.kill(self.pid, signal.SIGINT)
        os.waitpid(self.pid, 0)

    def draw(self, path):
        lines = []
        for row in range(ROWS):
            cells = self.screen.buffer[row]
            line = Text()
            for column in range(COLUMNS):
                cell = cells[column]
                line.append(cell.data, style(cell))
            line.rstrip()
            lines.append(line)
        while lines and not lines[-1].plain:
            lines.pop()
        with open(os.devnull, "w") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
            for line in lines:
                console.print(line, no_wrap=True, crop=True)
            svg = console.export_svg(title=self.title, theme=MONOKAI, unique_id=path.stem)
        # Nothing from elsewhere: the reader's own monospace font.
        svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S)
        path.write_text(svg)
        print(path)


def style(cell):
    names = {"brown": "yellow", "default": ""}
    parts = ["bold" if cell.bold else "", "dim" if getattr(cell, "dim", False) else ""]
    parts += ["reverse" if cell.reverse else "", "underline" if cell.underscore else ""]
    colour = names.get(cell.fg, cell.fg)
    if re.fullmatch(r"[0-9a-f]{6}", colour):
        colour = f"#{colour}"
    elif colour.startswith("bright"):
        colour = f"bright_{names.get(colour[6:], colour[6:])}"
    return " ".join(part for part in [*parts, colour] if part)


def terminal(target):
    command = target / "tower-nacos"
    with Started(command, "serve", "--port", "0") as registry:
        os.environ["NACOS_SERVER"] = registry.line(r"(127\.0\.0\.1:\d+)")[1]
        register = [command, "register", "orders"]
        with (
            Started(*register, "10.0.0.1:8080", "--meta", "version=1"),
            Started(*register, "10.0.0.2:8080", "--meta", "version=2", "--weight", "2"),
        ):
            watching = Terminal(command, "watch", "orders")
            watching.read_until(r"10\.0\.0\.1:8080(.|\n)*10\.0\.0\.2:8080")
            with Started(*register, "10.0.0.3:8080", "--meta", "version=2"):
                watching.read_until(r"10\.0\.0\.3:8080")
            watching.read_until("removed")
            watching.draw(PICTURES / "watch.svg")
            watching.end()
            doctor = Terminal(command, "doctor")
            doctor.read_until(None)
            doctor.draw(PICTURES / "doctor.svg")


def page(target):
    with Started(target / "examples" / "status") as example:
        page = example.line(r"the page: (\S+)")[1]
        example.line("^killed")
        time.sleep(1)  # calls are to find it
        for name, scheme in [("page-light", "1"), ("page-dark", "0")]:
            path = PICTURES / f"{name}.png"
            with tempfile.TemporaryDirectory() as profile:
                subprocess.run(
                    [
                        "chromium",
                        "--headless",
                        "--no-sandbox",
                        "--disable-gpu",
                        "--hide-scrollbars",
                        f"--user-data-dir={profile}",
                        f"--blink-settings=preferredColorScheme={scheme}",
                        "--window-size=1500,1000",
                        "--timeout=3000",
                        f"--screenshot={path}",
                        f"{page}/?service=example-orders",
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=LONGEST,
                )
            print(path)


# The dashboard is drawn by dashboard.py, from the outage that tools/alerts/outage makes.
ALL = {"page": page, "terminal": terminal, "dashboard": lambda _: None}

if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or ALL:
        ALL[name](target)
