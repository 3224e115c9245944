"""h2spec, which sends an HTTP/2 server what RFC 9113 and RFC 7541 say about, and more than they allow."""

import re
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

from .tools import h2spec

SECONDS = 240
# h2spec waits this long for every answer that does not come.
TIMEOUT_SECONDS = 1
UNPRINTABLE = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]")


def run_h2spec(address: str, report: Path, *sections: str) -> dict[str, str | None]:
    """What was found wrong by test case, like `http2/6.5.2 Sends …`, None where nothing was. Skipped ones count."""
    host, _, port = address.rpartition(":")
    command = [h2spec(), "--tls", "--insecure", "--host", host, "--port", port]
    command += ["--timeout", TIMEOUT_SECONDS, "--junit-report", report, *sections]
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    # 1 says that something was found, and the report says what.
    assert done.returncode in (0, 1) and report.exists(), f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    results: dict[str, str | None] = {}
    # What h2spec received goes into its report as it is, and XML has no place for control characters.
    text = UNPRINTABLE.sub("", report.read_text(errors="replace"))
    for case in xml.fromstring(text.partition("?>")[2]).iter("testcase"):
        found = case.find("error")
        if found is None:
            found = case.find("failure")
        name = f"{case.get('package')} {case.get('classname')}"
        results[name] = None if found is None else " ".join((found.text or "no reason").split())
    return results
