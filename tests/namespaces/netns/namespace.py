"""Network namespaces joined by pairs of virtual Ethernet devices; what is made here goes with `Network.close`.

```text
Network ── names of its own in every run, so that two runs, or the rest of a killed one, do not meet
   ├── Namespace    a host: its own interfaces, routes, firewall, and a resolv.conf of its own
   └── link         a cable between two of them, a /24 and a /64
```
"""

import contextlib
import ctypes
import ipaddress
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.tools import tool

SECONDS = 20.0
CLONE_NEWNET = 0x4000_0000
# `ip netns exec` puts what lies here over the files of the same names in /etc.
ETC = Path("/etc/netns")
RESOLV_CONF = "nameserver 192.0.2.53\n"

_numbers = itertools.count()


@dataclass(frozen=True)
class Cable:
    """One end of a link: the interface and its addresses."""

    interface: str
    ipv4: str
    ipv6: str


def run(*words: object, seconds: float = SECONDS, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends by itself; its output belongs to the error when it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def ip() -> str:
    return tool("ip", "iproute2")


class Namespace:
    """A host of its own. `forwards` makes a router of it."""

    def __init__(self, name: str, forwards: bool) -> None:
        self.name = name
        self.links: dict[str, Cable] = {}
        run(ip(), "netns", "add", name)
        (ETC / name).mkdir(parents=True)
        self.resolv_conf.write_text(RESOLV_CONF)
        # Addresses are usable at once, nothing is learnt from routers, and no error is left out.
        settings = {
            "ipv6.conf.all.accept_dad": 0,
            "ipv6.conf.default.accept_dad": 0,
            "ipv6.conf.default.accept_ra": 0,
            # Who loses its first address keeps the others.
            "ipv4.conf.all.promote_secondaries": 1,
            "ipv4.icmp_ratelimit": 0,
            "ipv6.icmp.ratelimit": 0,
            "ipv4.ip_forward": int(forwards),
            "ipv6.conf.all.forwarding": int(forwards),
        }
        self.run("sysctl", "-q", "-w", *(f"net.{name}={value}" for name, value in settings.items()))
        self.ip("link", "set", "lo", "up")

    @property
    def resolv_conf(self) -> Path:
        """What programs inside see as /etc/resolv.conf."""
        return ETC / self.name / "resolv.conf"

    def command(self, *words: object) -> list[str]:
        """Runs inside. `ip` replaces itself by the program: signals reach it."""
        return [ip(), "netns", "exec", self.name, *map(str, words)]

    def run(
        self, *words: object, seconds: float = SECONDS, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return run(*self.command(*words), seconds=seconds, check=check)

    def ip(self, *words: object) -> str:
        return run(ip(), "-n", self.name, *words).stdout

    def show(self, *words: object) -> list[dict]:
        """What `ip -json` says."""
        return json.loads(run(ip(), "-n", self.name, "-json", *words).stdout or "[]")

    def has_address(self, interface: str, family: int = 4) -> bool:
        done = run(ip(), "-n", self.name, f"-{family}", "-json", "address", "show", "dev", interface, check=False)
        if done.returncode:
            return False
        devices = json.loads(done.stdout or "[]")
        return any(entry["scope"] == "global" for device in devices for entry in device.get("addr_info", []))

    def route(self, destination: str, via: str | None = None, *words: object) -> None:
        self.ip("route", "add", destination, *(["via", via] if via else []), *words)

    def interface_to(self, other: "Namespace") -> str:
        return self.links[other.name].interface

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is inside meanwhile: sockets that it makes stay there."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(descriptor: int) -> None:
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {self.name}")

        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            enter(there)
            yield
            enter(here)
        finally:
            with contextlib.suppress(OSError):
                enter(here)
            os.close(here)
            os.close(there)

    def delete(self) -> None:
        run(ip(), "netns", "delete", self.name, check=False)
        shutil.rmtree(ETC / self.name, ignore_errors=True)


class Network:
    """The namespaces of one test module."""

    def __init__(self) -> None:
        self._name = f"bauta-{os.getpid()}-{next(_numbers)}"
        self._namespaces: list[Namespace] = []

    def namespace(self, role: str, forwards: bool = False) -> Namespace:
        made = Namespace(f"{self._name}-{role}", forwards)
        self._namespaces.append(made)
        return made

    def link(self, left: Namespace, right: Namespace, ipv4: str, ipv6: str, mtu: int = 1500) -> None:
        """Joins both; the left one has the first address of each network, the right one the second."""
        ends = ((left, right, 1), (right, left, 2))
        names = [f"to-{other.name.rpartition('-')[2]}" for _, other, _ in ends]
        pair = ["add", names[0], "netns", left.name, "mtu", mtu, "type", "veth", "peer", "name", names[1]]
        run(ip(), "link", *pair, "netns", right.name, "mtu", mtu)
        for (own, other, number), interface in zip(ends, names):
            nets = [ipaddress.ip_network(ipv4), ipaddress.ip_network(ipv6)]
            for net in nets:
                own.ip("address", "add", f"{net[number]}/{net.prefixlen}", "dev", interface)
            own.ip("link", "set", interface, "up")
            own.links[other.name] = Cable(interface, *(str(net[number]) for net in nets))

    def close(self) -> None:
        """Programs inside have to be gone already: a namespace lives as long as one of them."""
        while self._namespaces:
            self._namespaces.pop().delete()
