"""The values and commands of the documentation's pages about the chart."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from authproxy.config.load import load_settings
from docs.blocks import Block, blocks
from helm.chart import KUBERNETES, Objects, template
from helm.pod import Pod
from support.programs import ROOT, find

pytestmark = pytest.mark.skipif(not find("helm"), reason="no helm")
COMMANDS = [
    (block, line[2:])
    for block in blocks("console")
    for line in block.text.splitlines()
    if line.startswith("$ helm ")
]
VALUES = [
    block
    for block in blocks("yaml")
    if "config" in (next(yaml.safe_load_all(block.text)) or {})
    and block.page.name in ("kubernetes.md", "official-chart.md")
]


@pytest.mark.parametrize("block", VALUES, ids=lambda block: block.name)
def test_values_of_page_are_accepted(block: Block, tmp_path: Path) -> None:
    done = template(block.text)
    assert done.returncode == 0, done.stderr
    pod = Pod(Objects(done.stdout), tmp_path)
    settings = load_settings(pod.arguments, pod.environment)
    assert settings.core.providers


@pytest.mark.parametrize(
    ("block", "command"), COMMANDS, ids=[command[:20] for _, command in COMMANDS]
)
def test_helm_command_of_page_works(block: Block, command: str, tmp_path: Path) -> None:
    """With the first values of the page, and without a cluster."""
    (values,) = [one for one in VALUES if one.page == block.page][:1]
    (tmp_path / "values.yaml").write_text(values.text)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    words = shlex.split(command.replace("upgrade --install", "template"))[1:]
    if "--create-namespace" in words:
        words.remove("--create-namespace")
    done = subprocess.run(
        [str(find("helm")), *words, "--kube-version", KUBERNETES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert Objects(done.stdout).get("Deployment")["metadata"]["namespace"] == "apps"
