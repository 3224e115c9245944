"""h2spec against the TCP listener: all of it, with what is not as it wants it, and why.

h2spec sends `GET /`, which a relay answers without content (it has none), so that a few cases find nothing to measure.
"""

from pathlib import Path

from harness.bauta import Bauta
from harness.conformance import run_h2spec

SECTIONS = ("generic", "hpack", "http2")
# The number of cases of h2spec 2.2.1 in these sections: fewer mean that it broke off.
CASES = 145

# Case: reason. A case that passes has no place here.
ACCEPTED: dict[str, str] = {}


def test_h2spec(bauta: Bauta, relay: str, tmp_path: Path) -> None:
    results = run_h2spec(relay, tmp_path / "report.xml", *SECTIONS)
    assert len(results) == CASES, f"{len(results)} cases"
    found = {case: problem for case, problem in results.items() if problem is not None}
    unexpected = {case: problem for case, problem in found.items() if case not in ACCEPTED}
    assert not unexpected, "\n".join(f"{case}: {problem}" for case, problem in unexpected.items())
    assert not ACCEPTED.keys() - found.keys(), f"no longer found: {ACCEPTED.keys() - found.keys()}"
