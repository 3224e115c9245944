"""Fixtures: one set of namespaces for each module, certificates for the relays in them, and what runs inside."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import certificates as pki
from harness.process import Processes
from netns import topology, traffic
from netns.namespace import Network
from netns.programs import Programs
from netns.topology import Topology

STARTED = pytest.StashKey[list[Processes]]()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("namespaces")


@pytest.fixture(scope="session")
def certificates(folder: Path) -> pki.Certificates:
    return pki.make(folder, *topology.RELAYS, topology.ORIGIN_IPV4, topology.ORIGIN_IPV6)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def processes(folder: Path, network: Network, request: pytest.FixtureRequest) -> Iterator[Processes]:
    """What lives as long as the namespaces, and ends before them."""
    started = Processes(folder)
    request.node.stash.setdefault(STARTED, []).append(started)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def hosts(network: Network) -> Topology:
    return topology.make(network)


@pytest.fixture(scope="module")
def origin(processes: Processes, hosts: Topology, certificates: pki.Certificates) -> str:
    """`HOST:PORT` of the HTTPS origin; its iperf3 runs as well."""
    traffic.start_iperf(processes, hosts.origin)
    return traffic.start_origin(processes, hosts.origin, topology.ORIGIN_IPV4, certificates)


@contextlib.contextmanager
def _programs(folder: Path, certificates: pki.Certificates, module: pytest.Collector) -> Iterator[Programs]:
    made = Programs(Processes(folder), certificates, folder)
    module.stash.setdefault(STARTED, []).append(made.processes)
    try:
        yield made
        made.check_healthy()
    finally:
        made.stop()


@pytest.fixture
def programs(
    network: Network, certificates: pki.Certificates, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Programs]:
    """Starts bauta; what a test starts ends with it, in good health unless the test has said otherwise."""
    with _programs(folder, certificates, request.node.getparent(pytest.Module)) as made:
        yield made


@pytest.fixture(scope="module")
def lasting(
    network: Network, certificates: pki.Certificates, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Programs]:
    """The same for what serves all tests of a module."""
    with _programs(folder, certificates, request.node) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Puts what the programs printed beside the failure."""
    report = yield
    module = item.getparent(pytest.Module)
    if report.failed and module is not None:
        for started in module.stash.get(STARTED, []):
            if output := started.output():
                report.sections.append(("output of the programs", output))
    return report
