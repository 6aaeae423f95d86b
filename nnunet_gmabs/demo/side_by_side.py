"""Commands that run side by side, each with its own log file and progress bar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_gmabs.errors import InputError

POLL_SECONDS = 0.5
LINE_SECONDS = 20.0
TAIL_LINES = 15


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: what to call it on the screen.
        command: program and arguments.
        environment: of the process, complete.
        log: file for all its output.
        total: how many pieces of work it has.
        done: how many are done; asked again and again while it runs.
    """

    title: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    total: int
    done: Callable[[], int]


def run_side_by_side(jobs: Sequence[Sequence[Step]], slots: int, say: Callable[[str], None]) -> dict[str, float]:
    """Run jobs, some at the same time; the steps of a job one after the other.

    In a terminal there is a bar with the remaining time for each step. Elsewhere say gets a line now and then.

    Args:
        jobs: started in this order.
        slots: how many run at the same time.
        say: for output that is no terminal.

    Returns:
        Seconds that each step took, by title.

    Raises:
        InputError: if a command fails; it names the log file and shows its end. All others are stopped.
    """
    screen = _Bars(jobs) if sys.stderr.isatty() else _Lines(say)
    waiting = [list(job) for job in jobs]
    running: list[_Running] = []
    seconds: dict[str, float] = {}
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                job = waiting.pop(0)
                running.append(_Running(job[0], job[1:]))
                screen.start(job[0])
            time.sleep(POLL_SECONDS)
            for process in list(running):
                code = process.poll()
                screen.show(process.step, process.step.total if code == 0 else process.step.done(), finished=code == 0)
                if code is None:
                    continue
                running.remove(process)
                if code:
                    raise InputError(_failure(process.step, code))
                seconds[process.step.title] = process.seconds
                if process.next_steps:
                    waiting.insert(0, process.next_steps)
    finally:
        for process in running:
            process.stop()
        screen.close()
    return seconds


def count_in_file(path: Path, text: str) -> int:
    """How often the text occurs in a file; 0 while there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace").count(text) if path.is_file() else 0


class _Running:
    """A step whose process runs, in a process group of its own so that its workers stop with it."""

    def __init__(self, step: Step, next_steps: list[Step]) -> None:
        self.step, self.next_steps = step, next_steps
        self._start = time.monotonic()
        step.log.parent.mkdir(parents=True, exist_ok=True)
        with open(step.log, "wb") as log:
            self._process = subprocess.Popen(
                step.command,
                env=dict(step.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=os.name == "posix",
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self._process.poll() is None:
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGTERM)
            else:
                self._process.terminate()
            self._process.wait()


class _Bars:
    """One bar for each step from the beginning on, so that none moves."""

    def __init__(self, jobs: Sequence[Sequence[Step]]) -> None:
        from tqdm import tqdm

        steps = [step for job in jobs for step in job]
        width = max(len(step.title) for step in steps)
        layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left"
        self._bars = {
            step.title: tqdm(total=step.total, desc=step.title.ljust(width), position=i, bar_format=layout, ncols=100)
            for i, step in enumerate(steps)
        }

    def start(self, step: Step) -> None:
        self._bars[step.title].reset()

    def show(self, step: Step, done: int, finished: bool) -> None:
        bar = self._bars[step.title]
        bar.n = min(done, step.total)
        bar.refresh()

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


class _Lines:
    """A line at the beginning, at the end, and now and then between."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._start: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def start(self, step: Step) -> None:
        self._start[step.title] = self._last[step.title] = time.monotonic()

    def show(self, step: Step, done: int, finished: bool) -> None:
        from tqdm import tqdm

        now = time.monotonic()
        if not finished and now - self._last[step.title] < LINE_SECONDS:
            return
        self._last[step.title] = now
        elapsed = now - self._start[step.title]
        left = tqdm.format_interval(elapsed / done * (step.total - done)) if done else "?"
        self._say(f"{step.title}: {done}/{step.total}, {tqdm.format_interval(elapsed)}, {left} left")

    def close(self) -> None:
        pass


def _failure(step: Step, code: int) -> str:
    tail = step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return f"{' '.join(step.command)}: ended with code {code}; its output is in {step.log}, the end:\n" + "\n".join(
        tail
    )
