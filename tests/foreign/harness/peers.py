"""Starts the foreign servers and runs the foreign clients."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .certificates import Certificates
from .process import Processes, free_port, listening_address, run_client
from .tools import PEERS, masque_go, python_tool, tool

ZONE = "bauta.test"
ECHO_NAME = f"echo.{ZONE}"
TEXT_NAME = f"text.{ZONE}"
# Four strings: with EDNS the answer is longer than 512 bytes.
TEXT = [letter * 200 for letter in "abcd"]
BIND_ATTEMPTS = 5
CLIENT_SECONDS = 90.0


def template(address: str) -> str:
    """The default template of RFC 9298 section 2."""
    return f"https://{address}/.well-known/masque/udp/{{target_host}}/{{target_port}}/"


def start_echo(processes: Processes, listen: str = "127.0.0.1") -> str:
    echo = processes.spawn("udp-echo", [sys.executable, PEERS / "udp_echo.py", "--listen", listen])
    return echo.wait_for(listening_address)[0]


def start_origin(processes: Processes, certificates: Certificates) -> str:
    """The HTTP/3 origin that serves random bytes."""
    command = [sys.executable, PEERS / "h3_download_server.py"]
    command += ["--certificate", certificates.certificate, "--key", certificates.key]
    return processes.spawn("h3-origin", command).wait_for(listening_address)[0]


def start_masque_go(processes: Processes, certificates: Certificates, *options: str) -> str:
    command = [masque_go() / "proxy", "-certificate", certificates.certificate, "-key", certificates.key, *options]
    return processes.spawn("masque-go-proxy", command).wait_for(listening_address)[0]


def start_envoy(processes: Processes, certificates: Certificates, target: str, folder: Path) -> str:
    """Envoy, every tunnel of which leads to `target`. It binds to free ports; its admin interface says which."""
    host, _, port = target.rpartition(":")
    config = (PEERS / "envoy.yaml").read_text()
    values = {
        "CERTIFICATE": certificates.certificate,
        "KEY": certificates.key,
        "TARGET_HOST": host,
        "TARGET_PORT": port,
    }
    for name, value in values.items():
        config = config.replace(f"@{name}@", str(value))
    config_file, admin_file = folder / "envoy.yaml", folder / "envoy-admin"
    config_file.write_text(config)
    command = [python_tool("envoy"), "-c", config_file, "--admin-address-path", admin_file]
    command += ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]
    envoy = processes.spawn("envoy", command)

    def address() -> str | None:
        try:
            url = f"http://{admin_file.read_text()}/listeners?format=json"
            with urllib.request.urlopen(url, timeout=1) as answer:
                listeners = json.load(answer).get("listener_statuses", [])
        except (OSError, ValueError, urllib.error.URLError):
            return None
        bound = [listener["local_address"]["socket_address"] for listener in listeners]
        return f"{bound[0]['address']}:{bound[0]['port_value']}" if bound else None

    return envoy.wait_until(address)


def start_dns(processes: Processes) -> str:
    """dnsmasq with a fixed zone, no upstream server and no file of this machine."""
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    options += ["--pid-file", "--log-facility=-", "--listen-address=127.0.0.1", "--bind-interfaces"]
    options += [f"--local=/{ZONE}/", f"--host-record={ECHO_NAME},127.0.0.1"]
    options += [f"--txt-record={TEXT_NAME},{','.join(TEXT)}"]
    for attempt in range(BIND_ATTEMPTS):
        # Port 0 means "no DNS" to dnsmasq, so it gets a port that was free a moment ago and a second chance.
        port = free_port()
        server = processes.spawn("dnsmasq", [tool("dnsmasq", "dnsmasq-base"), *options, f"--port={port}"])
        try:
            server.wait_until(lambda: dig(f"127.0.0.1:{port}", ECHO_NAME, "A", seconds=1) or None)
            return f"127.0.0.1:{port}"
        except RuntimeError:
            if server.is_running() or attempt + 1 == BIND_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def dig(server: str, name: str, kind: str, seconds: int = 5) -> list[str]:
    """The answers of one query over UDP, sent once; empty when there is none."""
    host, _, port = server.rpartition(":")
    command = [tool("dig", "bind9-dnsutils"), f"@{host}", "-p", port, name, kind]
    command += ["+short", "+tries=1", f"+timeout={seconds}", "+bufsize=1232", "+ignore", "+notcp"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 10)
    return [] if done.returncode else [line for line in done.stdout.splitlines() if not line.startswith(";")]


@dataclass(frozen=True)
class Clients:
    """The foreign clients; each method runs one and returns its result, `ok` or not."""

    ca: Path

    def aioquic(self, proxy: str, target: str, *options: object) -> dict:
        command = [sys.executable, PEERS / "connect_udp_client.py", "--ca", self.ca]
        command += ["--template", template(proxy), "--target", target]
        return run_client([*command, *map(str, options)], CLIENT_SECONDS)

    def masque_go(self, proxy: str, target: str, *options: object) -> dict:
        command = [masque_go() / "client", "-ca", self.ca, "-template", template(proxy), "-target", target]
        return run_client([*command, *map(str, options)], CLIENT_SECONDS)

    def download(self, address: str, *options: object) -> dict:
        command = [sys.executable, PEERS / "h3_download_client.py", "--ca", self.ca, "--address", address]
        return run_client([*command, *map(str, options)], CLIENT_SECONDS)
