"""The conformance tests of h2spec (RFC 7540 and RFC 7541) against the TLS listener."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.program import Program
from support.programs import find

H2SPEC = find("h2spec")


@pytest.mark.skipif(H2SPEC is None, reason="h2spec is missing")
def test_h2_conforms_to_h2spec(tmp_path: Path) -> None:
    """The response has to be longer than a few bytes, or window tests are skipped."""
    certificate = make_certificate(tmp_path, LOOPBACK)
    with Program(
        tmp_path,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
    ) as program:
        program.started()
        done = subprocess.run(
            [
                *(str(H2SPEC), "--tls", "--insecure", "--timeout", "10"),
                *("--host", LOOPBACK, "--port", str(program.port)),
                *("--path", "/robots.txt"),
            ],
            capture_output=True,
            text=True,
            timeout=150,
        )
    counts = re.search(
        r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout
    )
    assert counts is not None, done.stdout + done.stderr
    assert int(counts[1]) > 140
    assert (counts[3], counts[4]) == ("0", "0"), done.stdout
