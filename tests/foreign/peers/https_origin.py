"""An HTTPS origin (HTTP/1.1) for programs that fetch something through a proxy.

```text
GET  /random?seed=S&bytes=N   N bytes that depend on the seed alone
POST /digest                  the SHA-256 of what was sent, as text
GET  /page.html               a picture and a script: the script says so in the DOM and paints once both are there
```

Prints `listening on ADDR:PORT` once it is bound.
"""

import argparse
import hashlib
import random
import ssl
import struct
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BODY_BYTES_MAX = 64 << 20
PICTURE_SIDE = 120
PICTURE_COLOUR = (0xC0, 0x30, 0x10)
SCRIPT_COLOUR = (0x10, 0xA0, 0x50)
PAGE_COLOUR = (0x20, 0x40, 0x60)
# What the script writes when the picture has arrived whole.
DONE = f"picture {PICTURE_SIDE} x {PICTURE_SIDE}, script done"


def random_body(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def css(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


def picture() -> bytes:
    """A PNG of one colour (RFC 2083)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes(PICTURE_COLOUR) * PICTURE_SIDE) * PICTURE_SIDE
    head = struct.pack(">IIBBBBB", PICTURE_SIDE, PICTURE_SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PAGE = f"""<!doctype html>
<html><head><title>bauta</title><style>
body {{ margin: 0; background: {css(PAGE_COLOUR)} }}
img, #painted {{ position: absolute; top: 0; width: {PICTURE_SIDE}px; height: {PICTURE_SIDE}px }}
#painted {{ left: {PICTURE_SIDE}px }}
#said {{ position: absolute; top: {2 * PICTURE_SIDE}px }}
</style></head>
<body><img id="picture" src="/picture.png"><div id="painted"></div><p id="said">nothing</p>
<script src="/script.js"></script></body></html>
"""

SCRIPT = f"""addEventListener("load", () => {{
  const picture = document.getElementById("picture");
  document.getElementById("painted").style.background = "{css(SCRIPT_COLOUR)}";
  document.getElementById("said").textContent =
    `picture ${{picture.naturalWidth}} x ${{picture.naturalHeight}}, script done`;
}});
"""

FILES = {
    "/page.html": ("text/html; charset=utf-8", PAGE.encode()),
    "/script.js": ("text/javascript", SCRIPT.encode()),
    "/picture.png": ("image/png", picture()),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path in FILES:
            return self._answer(200, *FILES[target.path])
        query = parse_qs(target.query)
        try:
            seed, size = int(query["seed"][0]), int(query["bytes"][0])
        except (KeyError, ValueError):
            seed, size = 0, -1
        if target.path != "/random" or not 0 <= size <= BODY_BYTES_MAX:
            return self._answer(404, "text/plain", b"no such thing\n")
        self._answer(200, "application/octet-stream", random_body(seed, size))

    def do_POST(self) -> None:
        left = int(self.headers.get("content-length", -1))
        if self.path != "/digest" or not 0 <= left <= BODY_BYTES_MAX:
            return self._answer(404, "text/plain", b"no such thing\n")
        digest = hashlib.sha256()
        while left > 0 and (piece := self.rfile.read(min(left, 1 << 16))):
            digest.update(piece)
            left -= len(piece)
        self._answer(200, "text/plain", digest.hexdigest().encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Origin(ThreadingHTTPServer):
    """Handshakes happen in the thread of the connection, so that a slow one holds up nobody."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(address, Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are their own business."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDR")
    parser.add_argument("--certificate", required=True, metavar="PEM")
    parser.add_argument("--key", required=True, metavar="PEM")
    arguments = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    context.set_alpn_protocols(["http/1.1"])
    with Origin((arguments.listen, 0), context) as origin:
        host, port = origin.server_address[:2]
        print(f"listening on {host}:{port}", flush=True)
        origin.serve_forever()


if __name__ == "__main__":
    main()
