"""connect-ip-go inside namespaces: a client, and a proxy behind which every host answers."""

from dataclasses import dataclass
from pathlib import Path

from harness.certificates import Certificates
from harness.process import Process, Processes, listening_address, run_client
from harness.tools import connect_ip_go

from .namespace import Namespace

CLIENT_SECONDS = 60.0
# connect-ip-go expands no variables: this is the default template with both at their wildcard.
PATH = "/.well-known/masque/ip/*/*/"
ASSIGNED_IPV4 = "192.0.2.11"
ASSIGNED_IPV6 = "2001:db8:1::11"


@dataclass(frozen=True)
class Proxy:
    process: Process
    address: str

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def wait_for(self, text: str, count: int = 1) -> list[str]:
        """The first lines with `text` among what it prints."""
        return self.process.wait_for(lambda line: line if text in line else None, count)


def start_proxy(
    processes: Processes, host: Namespace, certificates: Certificates, listen: str, *options: object
) -> Proxy:
    command = [connect_ip_go() / "proxy", "-listen", listen]
    command += ["-certificate", certificates.certificate, "-key", certificates.key]
    process = processes.spawn(f"connect-ip-go-{host.name}", host.command(*command, *options))
    return Proxy(process, process.wait_for(listening_address)[0])


def client(host: Namespace, ca: Path, proxy: str, *options: object) -> dict:
    """Opens a tunnel through `proxy`, does what the options say and returns the result, `ok` or not."""
    command = [connect_ip_go() / "client", "-ca", ca, "-url", f"https://{proxy}{PATH}", *options]
    return run_client(host.command(*command), CLIENT_SECONDS)
