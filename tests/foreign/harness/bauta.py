"""Starts our own programs. What they print and what they read is known here and nowhere else in these tests."""

import base64
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from .certificates import Certificates
from .process import Process, Processes, listening_address
from .tools import bauta

LOOPBACK = "127.0.0.0/8"
# Argon2 is slow on purpose, and this may be a debug build.
PASSWD_SECONDS = 30
PLAIN_LOG = {"NO_COLOR": "1", "RUST_BACKTRACE": "1"}


def bound_address(process: Process) -> str:
    """`HOST:PORT` of the one listener: the relay and the forwarder print `listening on HOST:PORT`."""
    return process.wait_for(listening_address)[0]


@dataclass
class Bauta:
    """Relays and forwarders of one test module, with the files they need."""

    # The one account of `guarded_relay`, and its one token.
    USER: ClassVar[str] = "alice:through the relay"
    TOKEN: ClassVar[str] = "c29tZSB0b2tlbg"
    AUTHORIZATION: ClassVar[str] = "Basic " + base64.b64encode(USER.encode()).decode()

    processes: Processes
    certificates: Certificates
    folder: Path
    _started: list[Process] = field(default_factory=list)

    def relay(
        self,
        name: str,
        *,
        upstream: str | None = None,
        allow: tuple[str, ...] = (LOOPBACK,),
        dns: str | None = None,
        extra: tuple[str, ...] = (),
    ) -> str:
        """Starts a relay and returns its address. `upstream` is the relay it sends everything to.

        `extra` are lines of the configuration, each with a section of its own.
        """
        lines = [
            "[[listen]]",
            'address = "127.0.0.1:0"',
            f"certificate = {_quoted(self.certificates.certificate)}",
            f"key = {_quoted(self.certificates.key)}",
        ]
        if upstream:
            lines += ["[upstream]", f"urls = [{_quoted(f'https://{upstream}')}]"]
            lines += [f"ca = {_quoted(self.certificates.ca)}"]
        if allow:
            lines += ["[policy]", f"allow = [{', '.join(map(_quoted, allow))}]"]
        if dns:
            lines += ["[dns]", f"servers = [{_quoted(dns)}]"]
        lines += extra
        config = self.folder / f"{name}.toml"
        config.write_text("\n".join(lines) + "\n")
        return bound_address(self._spawn(f"relay-{name}", "relay", "--config", config))

    def guarded_relay(self, name: str, **options) -> str:
        """A relay that asks for credentials: `USER` by Basic or `TOKEN` by Bearer."""
        user, password = self.USER.split(":")
        hashed = subprocess.run(
            [bauta(), "passwd", "--user", user],
            input=f"{password}\n",
            capture_output=True,
            text=True,
            timeout=PASSWD_SECONDS,
            check=True,
        )
        passwords, tokens = self.folder / f"{name}.passwords", self.folder / f"{name}.tokens"
        for file, text in ((passwords, hashed.stdout), (tokens, f"{self.TOKEN}\n")):
            file.write_text(text)
            file.chmod(0o600)
        auth = ("[auth]", f"passwords = {_quoted(passwords)}", f"tokens = {_quoted(tokens)}")
        return self.relay(name, extra=auth, **options)

    def forward(self, name: str, target: str, *via: str, carrier: str | None = None) -> str:
        """Starts a UDP forwarder through one relay, or nested through two, and returns its local address."""
        return self._client("udp", name, via, carrier, "--target", target)

    def forward_tcp(self, name: str, target: str, *via: str, carrier: str | None = None) -> str:
        """The same for TCP."""
        return self._client("tcp", name, via, carrier, "--target", target)

    def proxy(self, name: str, *via: str, carrier: str | None = None) -> str:
        """Starts the local SOCKS5 and HTTP proxy."""
        return self._client("proxy", name, via, carrier)

    def _client(
        self, program: str, name: str, via: tuple[str, ...], carrier: str | None, *options: str | Path
    ) -> str:
        options += ("--listen", "127.0.0.1:0", "--ca", self.certificates.ca)
        for relay in via:
            options += ("--via", f"https://{relay}")
        if carrier:
            options += ("--carrier", carrier)
        return bound_address(self._spawn(f"{program}-{name}", program, *options))

    def _spawn(self, name: str, *arguments: str | Path) -> Process:
        process = self.processes.spawn(name, [bauta(), *arguments], PLAIN_LOG)
        self._started.append(process)
        return process

    def check_healthy(self) -> None:
        """No program may have ended by itself or panicked, whatever the peers sent."""
        for process in self._started:
            output = process.output()
            assert process.is_running(), f"{process.name} ended by itself\n{output}"
            assert "panicked at" not in output, f"{process.name} panicked\n{output}"


def _quoted(value: object) -> str:
    """A TOML basic string; JSON strings are a subset of them."""
    return json.dumps(str(value))
