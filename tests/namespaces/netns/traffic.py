"""Programs that know nothing of tunnels: ping, traceroute, curl, iperf3, and a firewall that only counts."""

import ipaddress
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness import web
from harness.certificates import Certificates
from harness.process import PROBE_INTERVAL_SECONDS, Process, Processes, listening_address
from harness.tools import PEERS, curl, tool

from .namespace import Namespace, run

Found = TypeVar("Found")

IPERF_PORT = 5201
FETCH_SECONDS = 60


def family(address: str) -> int:
    return ipaddress.ip_address(address).version


def wait_until(probe: Callable[[], Found | None], what: str, seconds: float = 20.0) -> Found:
    """What `probe` returns once that is something; it is asked again and again."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(PROBE_INTERVAL_SECONDS)
    return found


def ping(host: Namespace, address: str, *options: object, count: int = 1, wait_seconds: int = 2) -> int:
    """How many of `count` echoes came back."""
    command = [tool("ping", "iputils-ping"), f"-{family(address)}", "-n", "-c", count, "-i", "0.2", "-W", wait_seconds]
    done = host.run(*command, *options, address, check=False)
    found = re.search(r"(\d+) received", done.stdout)
    return int(found[1]) if found else 0


def wait_ping(host: Namespace, address: str, seconds: float = 20.0) -> None:
    """Until an echo comes back."""
    wait_until(lambda: ping(host, address, wait_seconds=1) or None, f"echo of {address} at {host.name}", seconds)


def traceroute(host: Namespace, address: str) -> list[str]:
    """The routers on the way, and the end; `*` for one that says nothing."""
    options = [f"-{family(address)}", "-n", "-q", "1", "-w", "2", "-m", "6"]
    lines = host.run(tool("traceroute", "traceroute"), *options, address, seconds=40).stdout.splitlines()
    return [line.split()[1] for line in lines[1:]]


def start_origin(processes: Processes, host: Namespace, address: str, certificates: Certificates) -> str:
    """The HTTPS origin with random bytes and digests of uploads; returns `HOST:PORT`."""
    command = host.command(sys.executable, PEERS / "https_origin.py", "--listen", address)
    command += ["--certificate", str(certificates.certificate), "--key", str(certificates.key)]
    return processes.spawn(f"https-{host.name}", command).wait_for(listening_address)[0]


def _curl(host: Namespace, certificates: Certificates, *options: object) -> list[str]:
    command = [curl(), "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    return host.command(*command, "--max-time", FETCH_SECONDS, "--cacert", certificates.ca, *options)


def fetch(host: Namespace, certificates: Certificates, url: str, file: Path, *options: object) -> str:
    """Fetches `url` into `file`, and returns the digest of what came."""
    run(*_curl(host, certificates, "--output", file, *options, url), seconds=FETCH_SECONDS + 10)
    return web.digest(file.read_bytes())


def start_fetch(
    processes: Processes, host: Namespace, certificates: Certificates, url: str, file: Path, rate: str
) -> Process:
    """The same, no faster than `rate`, while the test does something else; it is over when the process has ended."""
    options = ("--output", file, "--limit-rate", rate, url)
    return processes.spawn(f"curl-{host.name}", _curl(host, certificates, *options))


def upload(host: Namespace, certificates: Certificates, url: str, file: Path) -> str:
    """Sends `file`, and returns the digest that the other side made."""
    options = ("--data-binary", f"@{file}", "--header", "Expect:", url)
    return run(*_curl(host, certificates, *options), seconds=FETCH_SECONDS + 10).stdout


def start_iperf(processes: Processes, host: Namespace) -> None:
    """An iperf3 server for all addresses of `host`."""
    command = host.command(tool("iperf3", "iperf3"), "--server", "--port", IPERF_PORT, "--forceflush")
    server = processes.spawn(f"iperf3-{host.name}", command)
    server.wait_for(lambda line: True if "Server listening" in line else None)


def iperf(host: Namespace, address: str, *options: object) -> dict:
    """The sums at the end of a run of iperf3: `sum_sent`, `sum_received`, for UDP `sum` with what was lost."""
    command = [tool("iperf3", "iperf3"), f"-{family(address)}", "--client", address, "--port", IPERF_PORT]
    command += ["--connect-timeout", 5000, "--json"]
    done = host.run(*command, *options, seconds=60, check=False)
    result = json.loads(done.stdout)
    assert "error" not in result, result["error"]
    return result["end"]


class Counter:
    """A firewall at a host that lets everything pass and counts the packets that match `rule`."""

    def __init__(self, host: Namespace, name: str, rule: str, hook: str = "prerouting") -> None:
        self._host = host
        self._name = name
        chain = f"type filter hook {hook} priority -300; policy accept;"
        self._nft(f"add table inet {name}; add chain inet {name} count {{ {chain} }}")
        self._nft(f"add rule inet {name} count {rule} counter")

    def _nft(self, *words: str) -> str:
        return self._host.run(tool("nft", "nftables"), *words).stdout

    def packets(self) -> int:
        listing = json.loads(self._nft("-j", "list", "table", "inet", self._name))
        rules = [entry["rule"] for entry in listing["nftables"] if "rule" in entry]
        return sum(part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part)
