"""Starts our own programs inside namespaces. What they read and print is known here and nowhere else in these tests."""

import ipaddress
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from harness.bauta import PLAIN_LOG
from harness.certificates import Certificates
from harness.process import Process, Processes, listening_address
from harness.tools import bauta

from .namespace import Namespace
from .traffic import wait_until

RELAY_PORT = 4433
TUN = "tun-test"
# Addresses that relays give to clients.
POOL_IPV4 = "10.200.0.0/24"
POOL_IPV6 = "fd64:200::/64"
PANIC = "panicked at"

_numbers = itertools.count()


@dataclass
class Relay:
    """A running relay and what is needed to start it again."""

    process: Process
    host: Namespace
    config: Path
    address: str

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def stop(self) -> dict[str, int]:
        """Ends it in order, and returns the counters that it prints last."""
        self.process.stop()
        return summary(self.process)


def summary(process: Process) -> dict[str, int]:
    """The counters of the last line of a relay, `summary name=value …`."""
    lines = [line for line in process.output().splitlines() if line.startswith("summary ")]
    assert lines, f"no summary\n{process.output()}"
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?= |$)", lines[-1])}


@dataclass
class Tunnel:
    """A running `bauta tun`."""

    process: Process
    host: Namespace
    interface: str

    def wait_up(self, *families: int) -> "Tunnel":
        """Until the interface has an address of each family."""
        for family in families or (4, 6):
            self.process.wait_until(lambda: self.host.has_address(self.interface, family) or None)
        return self

    def address(self, family: int = 4) -> str:
        """Its first address of that family."""
        devices = self.host.show(f"-{family}", "address", "show", "dev", self.interface)
        entries = [entry for device in devices for entry in device.get("addr_info", [])]
        return next(entry["local"] for entry in entries if entry["scope"] == "global")

    def mtu(self) -> int:
        return self.host.show("link", "show", "dev", self.interface)[0]["mtu"]

    def is_gone(self) -> bool:
        return all(link["ifname"] != self.interface for link in self.host.show("link", "show"))


@dataclass
class Programs:
    """Relays and clients of one test."""

    processes: Processes
    certificates: Certificates
    folder: Path
    # Where our programs note what they have to undo: not where those of this machine do.
    _env: dict[str, str] = field(init=False)
    _relays: list[Process] = field(default_factory=list)
    _clients: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._env = PLAIN_LOG | {"BAUTA_STATE_DIR": str(self.folder / "state")}

    def relay(
        self,
        host: Namespace,
        address: str,
        *,
        upstream: str | None = None,
        port: int = RELAY_PORT,
        pools: tuple[str, ...] = (POOL_IPV4, POOL_IPV6),
        has_tun: bool = True,
        ip: tuple[str, ...] = (),
        policy: tuple[str, ...] = ("public_only = false",),
        extra: tuple[str, ...] = (),
        workers: int = 1,
    ) -> Relay:
        """Starts a relay on `address` of `host`; one without `upstream` is an exit with a TUN device and `pools`, or,
        when there are none, serves other tunnels alone. Without TUN device it joins its clients and nobody else.

        `ip` are further lines of its section `[ip]`, `policy` are those of `[policy]`, `extra` further sections.
        """
        lines = [
            f"workers = {workers}",
            "[[listen]]",
            f"address = {_quoted(authority(address, port))}",
            f"certificate = {_quoted(self.certificates.certificate)}",
            f"key = {_quoted(self.certificates.key)}",
            "[policy]",
            *policy,
        ]
        if upstream:
            lines += ["[upstream]", f"urls = [{_quoted(upstream)}]", f"ca = {_quoted(self.certificates.ca)}"]
        elif pools:
            tun = f"relay{next(_numbers)}" if has_tun else "off"
            lines += ["[ip]", f'tun = "{tun}"', f"pools = [{', '.join(map(_quoted, pools))}]", *ip]
        lines += extra
        config = self.folder / f"relay-{host.name}-{next(_numbers)}.toml"
        config.write_text("\n".join(lines) + "\n")
        return self.start(host, config)

    def start(self, host: Namespace, config: Path) -> Relay:
        """Starts a relay from a file that was written before."""
        process = self._spawn(host, f"relay-{next(_numbers)}", bauta(), "relay", "--config", config)
        self._relays.append(process)
        return Relay(process, host, config, process.wait_for(listening_address)[0])

    def tun(
        self, host: Namespace, *via: Relay | str, carrier: str | None = None, options: tuple[object, ...] = ()
    ) -> Tunnel:
        """Starts a client through one relay, or nested through two."""
        command = self.tun_command(*via, carrier=carrier, options=options)
        process = self._spawn(host, f"tun-{next(_numbers)}", *command)
        self._clients.append(process)
        return Tunnel(process, host, TUN)

    def tun_command(
        self, *via: Relay | str, carrier: str | None = None, options: tuple[object, ...] = ()
    ) -> list[object]:
        """The words of a client."""
        words: list[object] = [bauta(), "tun", "--name", TUN, "--ca", self.certificates.ca]
        for relay in via:
            words += ["--via", relay.url if isinstance(relay, Relay) else relay]
        if carrier:
            words += ["--carrier", carrier]
        return [*words, *options]

    def _spawn(self, host: Namespace, name: str, *command: object) -> Process:
        return self.processes.spawn(f"{host.name}-{name}", host.command(*command), self._env)

    def forget(self, process: Process) -> None:
        """A test has ended it, or expects that it ends."""
        self._relays = [known for known in self._relays if known is not process]
        self._clients = [known for known in self._clients if known is not process]

    def stop(self) -> None:
        """Clients first: a relay waits for their tunnels."""
        for process in self._clients:
            process.stop()
        self.processes.stop()

    def check_healthy(self) -> None:
        """No program may have ended by itself or panicked."""
        for process in [*self._relays, *self._clients]:
            output = process.output()
            assert process.is_running(), f"{process.name} ended by itself\n{output}"
            assert PANIC not in output, f"{process.name} panicked\n{output}"


def authority(address: str, port: int = RELAY_PORT) -> str:
    return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"


def _quoted(value: object) -> str:
    """A TOML basic string; JSON strings are a subset of them."""
    return json.dumps(str(value))
