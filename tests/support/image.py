"""Build deploy/Containerfile without a container daemon, and run the result.

buildah's chroot isolation builds it on a base of debootstrap, which ``.ci/run`` makes.
The image runs in a mount namespace with a read-only root file system. Requires root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.processes import Process
from support.programs import ROOT, TOOLS, find
from support.zipapp import build

BASE = TOOLS / "debian-trixie.tar"
BASE_NAME = "localhost/debian:trixie"
NAME = "localhost/authproxy:test"
PYTHON = "3.13"  # of the base
# Mounts as few as possible; $1 is the root directory, $2 options of /dev/shm.
NAMESPACE = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount --bind /proc "$1/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for name in null zero urandom; do
    touch "$1/dev/$name"
    mount --bind "/dev/$name" "$1/dev/$name"
done
mkdir "$1/dev/shm"
mount -t tmpfs -o "$2" tmpfs "$1/dev/shm"
if [ -n "$3" ]; then mount --bind "$3" "$1/mnt"; fi
mount -o remount,bind,ro "$1"
mount -o remount,ro "$1/dev"
cd "$1"
user=$4
shift 4
exec setpriv --no-new-privs chroot --userspec="$user" --groups= . "$@"
"""


def missing_requirement() -> str:
    """Return why images cannot be built here; empty if they can."""
    if os.getuid() != 0:
        return "only root can build and run images"
    for program in ("buildah", "unshare", "setpriv"):
        if find(program) is None:
            return f"no {program}"
    return "" if BASE.exists() else f"no {BASE.name} of debootstrap in .tools"


class Image:
    """The built image: its configuration and its files in a directory."""

    def __init__(self, folder: Path) -> None:
        """Build the image; *folder* is for buildah's storage."""
        self._folder = folder
        context = folder / "context"
        (context / "dist").mkdir(parents=True)
        shutil.copytree(ROOT / "deploy", context / "deploy")
        done = build("--python", PYTHON, "--output", context / "dist/authproxy.pyz")
        assert done.returncode == 0, done.stderr
        base = self._buildah("from", "scratch").strip()
        self._buildah("add", base, str(BASE), "/")
        self._buildah("commit", "--rm", base, BASE_NAME)
        containerfile = str(context / "deploy" / "Containerfile")
        arguments = ["--format", "docker", "--build-arg", f"BASE={BASE_NAME}"]
        arguments += ["--file", containerfile, "--tag", NAME, str(context)]
        self._buildah("build", *arguments)
        inspected = json.loads(self._buildah("inspect", "--type", "image", NAME))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        container = self._buildah("from", NAME).strip()
        self.root = Path(self._buildah("mount", container).strip())

    def close(self) -> None:
        """Remove the containers and the images, which are all in the directory."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _buildah(self, *arguments: str) -> str:
        command = ["buildah", "--storage-driver", "vfs"]
        command += ["--root", str(self._folder / "storage")]
        command += ["--runroot", str(self._folder / "run"), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        user: str,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        shm: str = "mode=1777,noexec",
    ) -> Process:
        """Run *command*, else the entry point, as *user* (UID:GID) with *arguments*.

        Nothing is writable but /dev/shm, whose mount options are *shm*; *folder* is
        at /mnt.
        """
        inherited = dict(item.split("=", 1) for item in self.config["Env"])
        variables = {**inherited, **(environment or {})}
        run = [*(command or self.config["Entrypoint"]), *arguments]
        return Process(
            f"image-{user.partition(':')[0]}",
            [
                *("unshare", "--mount", "--ipc", "sh", "-ec", NAMESPACE, "sh"),
                *(self.root, shm, folder, user),
                *("/usr/bin/env", "-i"),
                *(f"{name}={value}" for name, value in variables.items()),
                *run,
            ],
            folder=folder,
        )
