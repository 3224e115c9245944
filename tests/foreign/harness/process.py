"""Child processes with bounded lives: started by argument list, watched by their output, stopped by their id.

```text
spawn ── output read by a thread ──► wait_for(pattern) ──► stop: SIGTERM, then SIGKILL after STOP_SECONDS
```

Nothing here sleeps for a fixed time: readiness is a printed line, a file, or a probe that answers.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
PROBE_INTERVAL_SECONDS = 0.02
OUTPUT_LINES_SHOWN = 60

Found = TypeVar("Found")


class Process:
    """A long-running child; stdout and stderr are read as one stream of lines, and also kept in a log file."""

    def __init__(self, name: str, command: list[str], log_dir: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._log = log_dir / f"{name}.log"
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._log.open("a") as log:
            for line in self._child.stdout:
                log.write(line)
                log.flush()
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def is_running(self) -> bool:
        return self._child.poll() is None

    def output(self) -> str:
        with self._changed:
            return "\n".join(self._lines[-OUTPUT_LINES_SHOWN:])

    def wait_for(self, find: Callable[[str], Found | None], count: int = 1) -> list[Found]:
        """The first `count` results that `find` makes of the printed lines; fails when the process ends before."""
        deadline = time.monotonic() + READY_SECONDS
        with self._changed:
            while True:
                found = [result for line in self._lines if (result := find(line)) is not None]
                if len(found) >= count:
                    return found[:count]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    how = "ended" if self._ended else f"not ready within {READY_SECONDS} s"
                    raise RuntimeError(f"{self.name}: {how}; it printed\n" + "\n".join(self._lines))
                self._changed.wait(left)

    def wait_until(self, probe: Callable[[], Found | None]) -> Found:
        """Polls `probe` until it returns something; fails when the process ends before."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if (found := probe()) is not None:
                return found
            if not self.is_running() or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: not ready; it printed\n{self.output()}")
            time.sleep(PROBE_INTERVAL_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal and waits for nothing."""
        if self.is_running():
            self._child.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        code = self._child.wait(seconds)
        self._reader.join(STOP_SECONDS)
        return code

    def kill(self) -> None:
        """Ends it as a crash does: it notices nothing."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Ends the process and returns its exit code, negative for a signal."""
        self.send_signal(signal.SIGTERM)
        try:
            code = self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._reader.join(STOP_SECONDS)
        return code


class Processes:
    """What one test or session started; ends it all in reverse order."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._started: list[Process] = []

    def spawn(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> Process:
        process = Process(name, [str(word) for word in command], self._log_dir, env)
        self._started.append(process)
        return process

    def stop(self) -> None:
        while self._started:
            self._started.pop().stop()

    def output(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.output()}" for process in self._started)


def listening_address(line: str) -> str | None:
    """`HOST:PORT` of a line like `listening on 127.0.0.1:4433`; all our peers print it this way."""
    found = re.search(r"\blistening on (?:https?://)?(\S+:\d+)", line)
    return found[1] if found else None


def run_client(command: list[str | Path], seconds: float) -> dict:
    """Runs a client that prints one JSON object, and returns it; the object says `ok` or what the problem was."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"{words[0]} still ran after {seconds} s: {late.stderr or ''}") from None
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise AssertionError(
            f"{' '.join(words)}\nexit code {done.returncode} without a result\n{done.stdout}{done.stderr}"
        ) from None
    assert result["ok"] == (done.returncode == 0), f"exit code {done.returncode} with {result}"
    return result


def free_port() -> int:
    """A port that was free for UDP and TCP on 127.0.0.1 a moment ago; for programs that cannot bind to port 0."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
