"""The path that most tests use.

```text
 client ──── router ──── ingress ──── egress ──── origin
      10.64.0     10.64.1      10.64.2     203.0.113     and fd64:0::/64 to fd64:2::/64, 2001:db8:113::/64
```

Everybody reaches the relays; the origin is known to the egress alone. So what reaches the origin went through a tunnel
that ends there, and the client's default route would have led nowhere.
"""

from dataclasses import dataclass

from .namespace import Namespace, Network

ORIGIN_IPV4 = "203.0.113.2"
ORIGIN_IPV6 = "2001:db8:113::2"
# Further addresses of the origin, for scopes that leave them out.
OTHER_IPV4 = "203.0.113.3"
OTHER_IPV6 = "2001:db8:113::3"

INGRESS_IPV4 = "10.64.1.2"
EGRESS_IPV4 = "10.64.2.2"
EGRESS_IPV6 = "fd64:2::2"
RELAYS = (INGRESS_IPV4, EGRESS_IPV4, "fd64:1::2", EGRESS_IPV6)


@dataclass(frozen=True)
class Topology:
    client: Namespace
    router: Namespace
    ingress: Namespace
    egress: Namespace
    origin: Namespace


def make(network: Network) -> Topology:
    path = [network.namespace(role, role not in ("client", "origin")) for role in Topology.__annotations__]
    client, router, ingress, egress, origin = path
    for number, (left, right) in enumerate(zip(path, path[1:-1])):
        network.link(left, right, f"10.64.{number}.0/24", f"fd64:{number}::/64")
    network.link(egress, origin, "203.0.113.0/24", "2001:db8:113::/64")

    client.route("default", "10.64.0.2")
    client.route("default", "fd64:0::2")
    router.route("10.64.2.0/24", "10.64.1.2")
    router.route("fd64:2::/64", "fd64:1::2")
    ingress.route("10.64.0.0/24", "10.64.1.1")
    ingress.route("fd64:0::/64", "fd64:1::1")
    egress.route("10.64.0.0/23", "10.64.2.1")
    egress.route("fd64:0::/31", "fd64:2::1")
    origin.route("default", "203.0.113.1")
    origin.route("default", "2001:db8:113::1")
    for address in (f"{OTHER_IPV4}/24", f"{OTHER_IPV6}/64"):
        # Never the source of what the origin sends by itself.
        origin.ip("address", "add", address, "dev", origin.interface_to(egress), "preferred_lft", 0)
    return Topology(client, router, ingress, egress, origin)
