"""A relay of several workers: each has a queue of the TUN device, and packets come to whichever the kernel picks."""

from pathlib import Path

import pytest
from harness import web
from harness.certificates import Certificates
from netns import traffic
from netns.programs import Programs
from netns.topology import EGRESS_IPV4, ORIGIN_IPV4, ORIGIN_IPV6, Topology

WORKERS = 4
# Connections land on workers by their ports: so many leave hardly a pair of worker and queue out.
ROUNDS = 5
FLOWS = 4
FILE_BYTES = 500_000


@pytest.mark.parametrize("carrier", ["h3", "h2"])
def test_packets_find_the_worker_of_their_tunnel(
    hosts: Topology, programs: Programs, origin: str, certificates: Certificates, tmp_path: Path, carrier: str
) -> None:
    relay = programs.relay(hosts.egress, EGRESS_IPV4, workers=WORKERS)
    for _ in range(ROUNDS):
        tunnel = programs.tun(hosts.client, relay, carrier=carrier).wait_up()
        traffic.wait_ping(hosts.client, ORIGIN_IPV4)
        traffic.wait_ping(hosts.client, ORIGIN_IPV6)
        # Nothing of the client's went before, from which the kernel could have learned the queue.
        for version in (4, 6):
            assert traffic.ping(hosts.origin, tunnel.address(version), count=3) == 3
        for number in range(FLOWS):
            url = web.random_url(origin, number, FILE_BYTES)
            expected = web.digest_of_random(number, FILE_BYTES)
            assert traffic.fetch(hosts.client, certificates, url, tmp_path / "file") == expected
        programs.forget(tunnel.process)
        assert tunnel.process.stop() == 0, tunnel.process.output()
