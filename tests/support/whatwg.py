"""URLs as browsers parse them, by Node's WHATWG parser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from support.programs import find

BASE = "https://app.example.com/"
PROGRAM = """
const read = require('fs').readFileSync(0, 'utf8');
const hosts = JSON.parse(read).map(target => {
  try { const url = new URL(target, %s); return [url.protocol, url.host]; }
  catch { return null; }
});
console.log(JSON.stringify(hosts));
"""


def available() -> bool:
    """Return whether Node is installed."""
    return find("node") is not None


def resolve(targets: Sequence[str]) -> list[tuple[str, str] | None]:
    """Return protocol and host of each target relative to `BASE`, None if invalid."""
    node = find("node")
    assert node
    done = subprocess.run(
        [str(node), "-e", PROGRAM % json.dumps(BASE)],
        input=json.dumps(list(targets)),
        capture_output=True,
        text=True,
        check=True,
    )
    return [found and tuple(found) for found in json.loads(done.stdout)]
