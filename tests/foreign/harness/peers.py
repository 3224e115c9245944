"""Starts the foreign servers and runs the foreign clients."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .certificates import ORIGIN_NAME, Certificates
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


def start_https_origin(processes: Processes, certificates: Certificates) -> str:
    """The HTTPS origin with random bytes, digests of uploads, and a page."""
    command = [sys.executable, PEERS / "https_origin.py"]
    command += ["--certificate", certificates.certificate, "--key", certificates.key]
    return processes.spawn("https-origin", command).wait_for(listening_address)[0]


def start_masque_go(processes: Processes, certificates: Certificates, *options: str) -> str:
    command = [masque_go() / "proxy", "-certificate", certificates.certificate, "-key", certificates.key, *options]
    return processes.spawn("masque-go-proxy", command).wait_for(listening_address)[0]


def start_envoy(processes: Processes, certificates: Certificates, target: str, folder: Path) -> str:
    """Envoy, every UDP tunnel of which leads to `target`."""
    host, _, port = target.rpartition(":")
    values = {"TARGET_HOST": host, "TARGET_PORT": port}
    return _start_envoy(processes, certificates, "envoy", values, folder)["connect_udp"]


def start_envoy_connect(processes: Processes, certificates: Certificates, folder: Path) -> dict[str, str]:
    """Envoy as a proxy for CONNECT; the addresses of its listeners `tcp` (HTTP/1.1 and HTTP/2) and `udp` (HTTP/3)."""
    return _start_envoy(processes, certificates, "envoy_connect", {}, folder)


def _start_envoy(
    processes: Processes, certificates: Certificates, name: str, values: dict[str, str], folder: Path
) -> dict[str, str]:
    """The addresses by listener: Envoy binds to free ports, and its admin interface says which."""
    config = (PEERS / f"{name}.yaml").read_text()
    for key, value in (values | {"CERTIFICATE": certificates.certificate, "KEY": certificates.key}).items():
        config = config.replace(f"@{key}@", str(value))
    config_file, admin_file = folder / f"{name}.yaml", folder / f"{name}-admin"
    config_file.write_text(config)
    command = [python_tool("envoy"), "-c", config_file, "--admin-address-path", admin_file]
    command += ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]
    envoy = processes.spawn(name, command)

    def addresses() -> dict[str, str] | None:
        try:
            url = f"http://{admin_file.read_text()}/listeners?format=json"
            with urllib.request.urlopen(url, timeout=1) as answer:
                listeners = json.load(answer).get("listener_statuses", [])
        except (OSError, ValueError, urllib.error.URLError):
            return None
        bound = {listener["name"]: listener["local_address"]["socket_address"] for listener in listeners}
        return {name: f"{address['address']}:{address['port_value']}" for name, address in bound.items()} or None

    return envoy.wait_until(addresses)


def start_dns(processes: Processes) -> str:
    """dnsmasq with a fixed zone, no upstream server and no file of this machine."""
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    options += ["--pid-file", "--log-facility=-", "--listen-address=127.0.0.1", "--bind-interfaces"]
    options += [f"--local=/{ZONE}/", f"--host-record={ECHO_NAME},{ORIGIN_NAME},127.0.0.1"]
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

    def curl_http3(self, proxy: str, proxy_version: str, target: str, url: str, *options: object) -> dict:
        """libcurl with HTTP/3 to proxies; `target` is `http1` for CONNECT and `http3` for CONNECT-UDP."""
        command = [sys.executable, PEERS / "curl_http3.py", "--ca", self.ca, "--proxy", f"https://{proxy}"]
        command += ["--proxy-version", proxy_version, "--target", target, *map(str, options), url]
        return run_client(command, CLIENT_SECONDS)
