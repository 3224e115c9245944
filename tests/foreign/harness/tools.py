"""Where the programs of the tests come from, and what happens when one is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

FOREIGN = Path(__file__).resolve().parent.parent
PEERS = FOREIGN / "peers"
REPOSITORY = FOREIGN.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
GO_BUILD_SECONDS = 300


def missing(what: str, remedy: str) -> NoReturn:
    """A missing tool is an error in CI, where nothing may be left out, and a skip with its remedy elsewhere."""
    message = f"{what} is missing: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def tool(name: str, package: str) -> str:
    """Path of a program of the operating system. Debian keeps daemons in /usr/sbin, which is not on every PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or missing(name, f"apt-get install {package}")


def python_tool(name: str) -> Path:
    """Path of a program that requirements.txt brings."""
    found = Path(sys.executable).parent / name
    return found if found.exists() else missing(name, "use tests/foreign/run")


def bauta() -> Path:
    """The program under test: `$BAUTA`, or the newer one of the release and the debug build."""
    if named := os.environ.get("BAUTA"):
        # A wrong path is a mistake of the caller, never a reason to skip.
        assert Path(named).is_file(), f"BAUTA={named} is no file"
        return Path(named).resolve()
    built = [path for profile in ("release", "debug") if (path := TARGET / profile / "bauta").is_file()]
    if not built:
        missing("bauta", "run `cargo build --release`, or name the program in $BAUTA")
    return max(built, key=lambda path: path.stat().st_mtime)


def curl() -> str:
    """A curl that speaks HTTP/2 to proxies (8.1.0 or newer): that of the system, or the one that `install` unpacked."""
    for found in (shutil.which("curl"), shutil.which(FOREIGN / ".curl" / "curl")):
        if found and "--proxy-http2" in subprocess.check_output([found, "--help", "all"], text=True):
            return found
    return missing("curl 8.1 or newer", "use tests/foreign/run")


def chromium() -> str:
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    return found or missing("chromium", "apt-get install chromium-headless-shell")


def masque_go() -> Path:
    """Builds the masque-go programs and returns the folder that holds `client` and `proxy`."""
    return _go_build("masque-go", "./...")


def connect_ip_go() -> Path:
    """Builds the connect-ip-go programs and returns the folder that holds `client` and `proxy`."""
    return _go_build("connect-ip-go", "./...")


def h2spec() -> Path:
    return _go_build("h2spec", "github.com/summerwind/h2spec/cmd/h2spec") / "h2spec"


def _go_build(module: str, packages: str) -> Path:
    go = shutil.which("go") or missing("go", "install a Go toolchain")
    folder = TARGET / "foreign" / module
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [go, "build", "-o", f"{folder}/", packages],
        cwd=FOREIGN / module,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GO_BUILD_SECONDS,
    )
    assert done.returncode == 0, f"go build: {done.stdout}{done.stderr}"
    return folder
