"""Fixtures: certificates, foreign peers and our programs. Sessions share what has no state worth resetting."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import certificates as pki
from harness import peers
from harness.bauta import Bauta
from harness.daemons import Iperf, Ssh
from harness.process import Processes
from harness.target import EchoTarget, Target

PROGRAMS = pytest.StashKey[Processes]()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="session")
def processes(folder: Path) -> Iterator[Processes]:
    started = Processes(folder)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def certificates(folder: Path) -> pki.Certificates:
    return pki.make(folder)


@pytest.fixture(scope="session")
def clients(certificates: pki.Certificates) -> peers.Clients:
    return peers.Clients(certificates.ca)


@pytest.fixture(scope="session")
def echo(processes: Processes) -> str:
    return peers.start_echo(processes)


@pytest.fixture(scope="session")
def echo_ipv6(processes: Processes) -> str:
    return peers.start_echo(processes, "::1")


@pytest.fixture(scope="session")
def origin(processes: Processes, certificates: pki.Certificates) -> str:
    return peers.start_origin(processes, certificates)


@pytest.fixture(scope="session")
def https_origin(processes: Processes, certificates: pki.Certificates) -> str:
    return peers.start_https_origin(processes, certificates)


@pytest.fixture(scope="session")
def dns(processes: Processes) -> str:
    return peers.start_dns(processes)


@pytest.fixture(scope="session")
def masque_go(processes: Processes, certificates: pki.Certificates) -> str:
    return peers.start_masque_go(processes, certificates)


@pytest.fixture(scope="session")
def inner_masque_go(processes: Processes, certificates: pki.Certificates) -> str:
    """For the far end of a nested tunnel."""
    return peers.start_masque_go(processes, certificates, "-small-packets")


@pytest.fixture(scope="session")
def envoy(processes: Processes, certificates: pki.Certificates, echo: str, folder: Path) -> str:
    return peers.start_envoy(processes, certificates, echo, folder)


@pytest.fixture(scope="session")
def envoy_connect(processes: Processes, certificates: pki.Certificates, folder: Path) -> dict[str, str]:
    """By carrier: the address at which Envoy takes CONNECT."""
    listeners = peers.start_envoy_connect(processes, certificates, folder)
    return {"h3": listeners["udp"], "h2": listeners["tcp"], "h1": listeners["tcp"]}


@pytest.fixture(scope="session")
def tcp_echo() -> Iterator[str]:
    target = EchoTarget()
    yield target.address
    target.close()


@pytest.fixture
def tcp_target() -> Iterator[Target]:
    target = Target()
    yield target
    target.close()


@pytest.fixture(scope="session")
def ssh(processes: Processes, folder: Path) -> Ssh:
    return Ssh.start(processes, folder / "ssh")


@pytest.fixture(scope="session")
def ssh_socks(ssh: Ssh, processes: Processes) -> str:
    return ssh.start_socks(processes)


@pytest.fixture(scope="session")
def iperf(processes: Processes) -> Iperf:
    return Iperf.start(processes)


@pytest.fixture(params=["masque_go", "envoy"])
def foreign_proxy(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def bauta(certificates: pki.Certificates, folder: Path, request: pytest.FixtureRequest) -> Iterator[Bauta]:
    started = Processes(folder)
    programs = Bauta(started, certificates, folder)
    request.node.stash[PROGRAMS] = started
    try:
        yield programs
        programs.check_healthy()
    finally:
        started.stop()


@pytest.fixture(scope="module")
def relay(bauta: Bauta, dns: str) -> str:
    """A relay that lets everybody reach loopback."""
    return bauta.relay("open", dns=dns)


@pytest.fixture(scope="module")
def chained(bauta: Bauta, relay: str) -> str:
    """A relay in front of `relay`."""
    return bauta.relay("ingress", upstream=relay)


@pytest.fixture(scope="module")
def guarded(bauta: Bauta, dns: str) -> str:
    """A relay that wants to know who asks."""
    return bauta.guarded_relay("guarded", dns=dns)


@pytest.fixture(params=["direct", "chained"])
def via(request: pytest.FixtureRequest) -> str:
    """The relay that a client is pointed at."""
    return request.getfixturevalue({"direct": "relay", "chained": "chained"}[request.param])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The peers among themselves come first: nothing else means much while they fail."""
    items.sort(key=lambda item: item.path.name != "test_peers.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Puts what our programs printed beside the failure."""
    report = yield
    module = item.getparent(pytest.Module)
    if report.failed and module is not None and (started := module.stash.get(PROGRAMS, None)):
        report.sections.append(("output of bauta", started.output()))
    return report
