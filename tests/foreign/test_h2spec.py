"""h2spec against the TCP listener: all of it, with what is not as it wants it, and why.

h2spec sends `GET /`, which a relay answers without content (it has none), so that a few cases find nothing to measure.
"""

from pathlib import Path

from harness.bauta import Bauta
from harness.conformance import run_h2spec

SECTIONS = ("generic", "hpack", "http2")
# The number of cases of h2spec 2.2.1 in these sections: fewer mean that it broke off.
CASES = 145

NO_CONTENT = "waits for DATA in the answer to GET, and there is none"
# Case: reason. A case that passes has no place here.
ACCEPTED: dict[str, str] = {
    "generic/2 Sends a WINDOW_UPDATE frame on half-closed (remote) stream": NO_CONTENT,
    "generic/2 Sends a PRIORITY frame on half-closed (remote) stream": NO_CONTENT,
    "http2/4.2 Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE": (
        "sends a little more than the default, and the relay announces a larger SETTINGS_MAX_FRAME_SIZE"
    ),
    "http2/5.1.2 Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded": (
        "keeps streams open by a window of 0 for their content; without content each ends with its answer"
    ),
}
# Found or not, depending on what comes first: the relay answers GET at once, and a closed stream judges no more frames.
RACES = {
    "http2/5.1 closed: Sends a HEADERS frame after sending RST_STREAM frame",
    "http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    "http2/8.1 Sends a second HEADERS frame without the END_STREAM flag",
    'http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame '
    "payload length",
    'http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the '
    "multiple DATA frames payload length",
}


def test_h2spec(bauta: Bauta, relay: str, tmp_path: Path) -> None:
    results = run_h2spec(relay, tmp_path / "report.xml", *SECTIONS)
    assert len(results) == CASES, f"{len(results)} cases"
    assert not RACES - results.keys(), f"no such case: {RACES - results.keys()}"
    found = {case: problem for case, problem in results.items() if problem is not None}
    unexpected = {case: problem for case, problem in found.items() if case not in ACCEPTED and case not in RACES}
    assert not unexpected, "\n".join(f"{case}: {problem}" for case, problem in unexpected.items())
    assert not ACCEPTED.keys() - found.keys(), f"no longer found: {ACCEPTED.keys() - found.keys()}"
