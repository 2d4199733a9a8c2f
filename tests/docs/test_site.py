"""The documentation: the site builds, its links and the README's lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = "dist/site"
MAX_README_LINES = 150


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    """Broken links, anchors and included files are warnings."""
    for name in ("docs", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= {path.stem for path in (tmp_path / SITE).rglob("*.html")}


def test_each_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert re.search(rf"[ :-] {re.escape(name)}$", navigation, re.MULTILINE), name


def test_readme_is_short_and_its_links_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= MAX_README_LINES
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert links
    assert not [link for link in links if not (ROOT / link).is_file()]
