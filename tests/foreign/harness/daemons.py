"""sshd and iperf3, each on a port that was free a moment ago, with nothing of this machine's configuration."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .process import Process, Processes, free_port
from .tools import tool

ATTEMPTS = 5
CLIENT_SECONDS = 60


def _start(processes: Processes, name: str, command, ready: str) -> tuple[Process, str]:
    """Neither program can bind to port 0 and say so: `command(port)` gets a second chance when the port is taken."""
    for attempt in range(ATTEMPTS):
        port = free_port()
        server = processes.spawn(name, command(port))
        try:
            server.wait_for(lambda line: True if re.search(ready, line) else None)
            return server, f"127.0.0.1:{port}"
        except RuntimeError:
            if server.is_running() or attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _run(command: list[str | Path], stdin: bytes = b"") -> bytes:
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=CLIENT_SECONDS)
    assert done.returncode == 0, f"{words[0]}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@dataclass(frozen=True)
class Ssh:
    """A throw-away sshd that knows one key, and the client for it."""

    folder: Path
    address: str

    @classmethod
    def start(cls, processes: Processes, folder: Path) -> "Ssh":
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            keygen = tool("ssh-keygen", "openssh-client")
            _run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name])
        key = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
        (folder / "known_hosts").write_text(f"throw-away {key}\n")
        if os.geteuid() == 0:
            # Debian makes it when the service starts; sshd does not run as root without it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = {
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "PidFile": "none",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]

        def command(port: int) -> list[str | Path]:
            listen = f"-oListenAddress=127.0.0.1:{port}"
            return [tool("sshd", "openssh-server"), "-D", "-e", "-f", "/dev/null", *options, listen]

        _, address = _start(processes, "sshd", command, r"Server listening on")
        return cls(folder, address)

    def _client(self, address: str) -> list[str | Path]:
        host, _, port = address.rpartition(":")
        options = ["-F", "none", "-p", port, "-i", self.folder / "user", "-o", "BatchMode=yes"]
        options += ["-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "HostKeyAlias=throw-away"]
        return [tool("ssh", "openssh-client"), *options, host]

    def run(self, address: str, command: str, stdin: bytes = b"") -> bytes:
        """Runs `command` behind `address`, which leads to this sshd, and returns what it printed."""
        return _run([*self._client(address), command], stdin)

    def start_socks(self, processes: Processes) -> str:
        """A SOCKS5 proxy (CONNECT only) of another author."""

        def command(port: int) -> list[str | Path]:
            options = ["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-D", f"127.0.0.1:{port}"]
            return [*self._client(self.address), *options]

        return _start(processes, "ssh-socks", command, r"Local forwarding listening on")[1]


@dataclass(frozen=True)
class Iperf:
    address: str

    @classmethod
    def start(cls, processes: Processes) -> "Iperf":
        def command(port: int) -> list[str | Path]:
            return [tool("iperf3", "iperf3"), "--server", "--bind", "127.0.0.1", "--port", str(port), "--forceflush"]

        return cls(_start(processes, "iperf3", command, r"Server listening on")[1])

    @staticmethod
    def transfer(address: str, size: int, *options: str) -> None:
        """Moves `size` bytes (`--reverse`: towards the client).

        Upwards the server stops to count when the client has handed over its last byte, which may still be on its way
        then: that bytes arrive whole is for ssh to show.
        """
        host, _, port = address.rpartition(":")
        command = [tool("iperf3", "iperf3"), "--client", host, "--port", port, "--bytes", str(size), "--json", *options]
        end = json.loads(_run(command))["end"]
        sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
        assert sent >= size, f"{sent} of {size} bytes sent"
        least = size if "--reverse" in options else 1
        assert least <= received <= sent, f"{received} of {sent} bytes received"
