"""Tunnels over HTTP/3, HTTP/2 and HTTP/1.1 as clients of other authors open them: aioquic, h2, plain TLS sockets.

```text
Tunnel   bytes and their end, datagrams          tunnel.py   one class for classic CONNECT, connect-tcp, connect-udp
Stream   bytes, FIN, reset of one request        h3.py  h2.py  h1.py
Link     bytes of a TCP or TLS connection        link.py
```

Nothing here starts a thread or an event loop: whoever waits for something moves the connection meanwhile (`pump`), and
whatever arrives before it is asked for is kept. So a test can send megabytes towards an echo without a deadlock.
"""

from pathlib import Path

from . import h1, h2, h3
from .stream import Stream
from .tunnel import FORMS, Tunnel, tunnel_request

CARRIERS = {"h3": h3.connect, "h2": h2.connect, "h1": h1.connect}

__all__ = ["CARRIERS", "FORMS", "Tunnel", "open_tunnel", "request"]


def request(carrier: str, proxy: str, ca: Path, form: str, target: str, fields: dict[str, str] | None = None) -> Stream:
    """Connects to `proxy`, sends the request for a tunnel and returns its stream, whose head may not be there yet."""
    connection = CARRIERS[carrier](proxy, ca)
    return connection.request(tunnel_request(form, proxy, target, fields or {}))


def open_tunnel(
    carrier: str, proxy: str, ca: Path, form: str, target: str, fields: dict[str, str] | None = None
) -> Tunnel:
    """The same, and waits until the tunnel is open."""
    return Tunnel(request(carrier, proxy, ca, form, target, fields), form)
