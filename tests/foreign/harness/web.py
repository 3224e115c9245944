"""What fetches pages: curl, and Chromium without a screen."""

import hashlib
import json
import re
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import https_origin as page

from .certificates import Certificates
from .tools import chromium, curl

CURL_SECONDS = 30
CHROMIUM_SECONDS = 90
NEGOTIATED = re.compile(r"CONNECT tunnel: HTTP/(\S+) negotiated")


def random_url(host: str, seed: int, size: int) -> str:
    return f"https://{host}/random?seed={seed}&bytes={size}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_random(seed: int, size: int) -> str:
    return digest(page.random_body(seed, size))


@dataclass(frozen=True)
class Fetched:
    """Outcome of one run of curl."""

    exit_code: int
    status: int
    # Of the last CONNECT; curl does not tell it for HTTP/2.
    connect_status: int
    body: bytes
    # HTTP versions of the tunnels it made, as curl names them.
    proxy_versions: list[str]
    log: str

    @property
    def sha256(self) -> str:
        return digest(self.body)


def fetch(ca: Path, url: str, *options: str | Path, program: str | None = None) -> Fetched:
    """Runs curl, which trusts `ca` for the proxy and for the origin. No setting of this machine counts."""
    command = [program or curl(), "--disable", "--silent", "--show-error", "--verbose", "--noproxy", "", "--max-time", CURL_SECONDS]
    command += ["--cacert", ca, "--proxy-cacert", ca, "--write-out", "%{stderr}\n%{json}", *options, url]
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, timeout=CURL_SECONDS + 10
    )
    log, _, written = done.stderr.decode(errors="replace").rpartition("\n")
    facts = json.loads(written)
    versions = NEGOTIATED.findall(log)
    return Fetched(done.returncode, facts["http_code"], facts["http_connect"], done.stdout, versions, log)


def browse(folder: Path, certificates: Certificates, proxy: str, url: str) -> tuple[str, "Picture"]:
    """Opens `url` in Chromium through `proxy` and returns the DOM after `load`, and what is to be seen."""
    screenshot = folder / "screenshot.png"
    screenshot.unlink(missing_ok=True)
    # The sandbox does not work for root, nor in most containers. Loopback goes through the proxy too, and no name is
    # resolved here.
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={folder / 'chromium'}"]
    command += [f"--proxy-server={proxy}", "--proxy-bypass-list=<-loopback>"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
    command += [f"--ignore-certificate-errors-spki-list={certificates.public_key_hash()}"]
    command += ["--window-size=400,300", "--hide-scrollbars", "--dump-dom", f"--screenshot={screenshot}", url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHROMIUM_SECONDS)
    assert done.returncode == 0 and screenshot.exists(), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, Picture.read(screenshot.read_bytes())


def check_page(dom: str, picture: "Picture") -> None:
    """The script ran after the picture had come, and both are painted where the page puts them."""
    assert f'<p id="said">{page.DONE}</p>' in dom, dom
    middle, side = page.PICTURE_SIDE // 2, page.PICTURE_SIDE
    assert picture.colour(middle, middle) == page.PICTURE_COLOUR
    assert picture.colour(side + middle, middle) == page.SCRIPT_COLOUR
    assert picture.colour(2 * side + middle, middle) == page.PAGE_COLOUR


class Picture:
    """Pixels of a PNG with 8 bits per channel, RGB or RGBA, not interlaced: what Chromium writes (RFC 2083)."""

    def __init__(self, rows: list[bytes], channels: int) -> None:
        self._rows = rows
        self._channels = channels

    def colour(self, x: int, y: int) -> tuple[int, ...]:
        return tuple(self._rows[y][x * self._channels :][:3])

    @classmethod
    def read(cls, data: bytes) -> "Picture":
        assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
        offset, packed, head = 8, b"", b""
        while offset < len(data):
            length, kind = struct.unpack_from(">I4s", data, offset)
            content = data[offset + 8 : offset + 8 + length]
            head = content if kind == b"IHDR" else head
            packed += content if kind == b"IDAT" else b""
            offset += 12 + length
        width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", head)
        assert depth == 8 and colours in (2, 6) and not interlaced, head
        channels = {2: 3, 6: 4}[colours]
        lines, stride = zlib.decompress(packed), width * channels
        rows, above = [], bytes(stride)
        for y in range(height):
            line = lines[y * (stride + 1) : (y + 1) * (stride + 1)]
            above = _unfilter(line[0], line[1:], above, channels)
            rows.append(above)
        return cls(rows, channels)


def _unfilter(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """RFC 2083 section 6."""
    row = bytearray(line)
    for at in range(len(row)):
        left = row[at - step] if at >= step else 0
        up, corner = above[at], above[at - step] if at >= step else 0
        if kind == 4:
            guess = left + up - corner
            add = min((left, up, corner), key=lambda near: abs(guess - near))
        else:
            add = (0, left, up, (left + up) // 2)[kind]
        row[at] = (row[at] + add) & 0xFF
    return bytes(row)
