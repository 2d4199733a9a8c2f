"""Files and directories of a ``file://`` upstream, over real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.static.open_beneath import MAX_SYMLINKS, open_beneath
from authproxy.static.static_files import MAX_ENTRIES, SMALL_FILE
from authproxy_core.messages import Request, ServeFile
from support.server import Answer, Server, Wire

MODIFIED = 1_700_000_000
UNPRIVILEGED_UID = 65534


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files, symlinks and a FIFO; a secret file is beside it."""
    base = tmp_path_factory.mktemp("files")
    (base / "secret").write_text("secret")
    directory = base / "www"
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "index.html").write_text("<h1>start</h1>")
    (directory / "a.txt").write_text("0123456789")
    (directory / ".dot").write_text("dot")
    (directory / "page.html").write_text("<p>")
    (directory / "noext").write_text("just text ü")
    (directory / "script").write_text("<script>alert(1)</script>")
    (directory / "binary").write_bytes(b"\x00\x01\xff")
    (directory / "latin").write_bytes(b"caf\xe9 au lait")
    (directory / "cut").write_bytes(b"x" * 511 + "ü".encode())
    (directory / "x.tar.gz").write_bytes(b"gz")
    (directory / "x.tar.bz2").write_bytes(b"bz")
    (directory / "empty").write_bytes(b"")
    (directory / "big.bin").write_bytes(bytes(range(256)) * (SMALL_FILE // 64))
    (directory / "sub" / 'a <b>&"c".txt').write_text("odd")
    (directory / "sub" / "a:b").mkdir()
    (directory / "out").symlink_to(base / "secret")
    (directory / "up").symlink_to("../secret")
    (directory / "updir").symlink_to("..")
    (directory / "sub" / "in").symlink_to("../a.txt")
    (directory / "sub" / "round").symlink_to("deep/../../sub/./in")
    (directory / "loop").symlink_to("loop")
    (directory / "indexless").mkdir()
    (directory / "indexless" / "index.html").mkdir()
    os.mkfifo(directory / "pipe")
    for name in ("a.txt", "big.bin", "sub"):
        os.utime(directory / name, (MODIFIED, MODIFIED))
    return directory


@pytest.fixture(scope="module")
def wire(root: Path) -> Iterator[Wire]:
    """A connection to a server of *root*; the prefix ``/+`` follows symlinks."""

    def handle(request: Request) -> ServeFile:
        path = request.target.partition(b"?")[0].decode()
        follow = path.startswith("/+")
        path = path.removeprefix("/+")
        added = ((b"x-added", b"1"),)
        return ServeFile(str(root), path, added, upstream="files", follow=follow)

    with Server(handle) as server, Wire(server.port) as connection:
        yield connection


def get(wire: Wire, path: str, *fields: str, method: str = "GET") -> Answer:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *fields, "", ""]
    wire.send("\r\n".join(lines).encode())
    return wire.answer(head_only=method == "HEAD")


def test_static_file_is_served(wire: Wire) -> None:
    response = get(wire, "/a.txt")
    assert (response.status, response.body) == (200, b"0123456789")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["last-modified"] == formatdate(MODIFIED, usegmt=True)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-length"] == "10"
    assert response.headers["x-added"] == "1"


def test_static_large_file_is_streamed(wire: Wire, root: Path) -> None:
    response = get(wire, "/big.bin")
    assert response.body == (root / "big.bin").read_bytes()
    assert response.headers["content-length"] == str(4 * SMALL_FILE)


def test_static_head_has_length_and_no_body(wire: Wire) -> None:
    for path, size in (
        ("/a.txt", "10"),
        ("/big.bin", str(4 * SMALL_FILE)),
        ("/", "14"),
    ):
        response = get(wire, path, method="HEAD")
        assert (response.status, response.headers["content-length"]) == (200, size)


def test_static_post_is_served_like_get(wire: Wire) -> None:
    assert get(wire, "/a.txt", "Range: bytes=0-1", method="POST").status == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/page.html", "text/html; charset=utf-8"),
        ("/noext", "text/plain; charset=utf-8"),
        ("/script", "text/plain; charset=utf-8"),  # a browser must not run it
        ("/binary", "application/octet-stream"),
        ("/latin", "application/octet-stream"),
        ("/cut", "text/plain; charset=utf-8"),
        ("/empty", "text/plain; charset=utf-8"),
        ("/x.tar.gz", "application/gzip"),
        ("/x.tar.bz2", "application/octet-stream"),
    ],
)
def test_static_content_type(wire: Wire, path: str, kind: str) -> None:
    response = get(wire, path)
    assert response.headers["content-type"] == kind
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=8-", 206, b"89"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes= 2-2 ", 206, b"2"),
        ("bytes=10-", 416, b"invalid range: failed to overlap\n"),
        ("bytes=-0", 416, b"invalid range: failed to overlap\n"),
        ("bytes=3-1", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
        ("lines=0-1", 200, b"0123456789"),
    ],
)
def test_static_range(wire: Wire, value: str, status: int, body: bytes) -> None:
    response = get(wire, "/a.txt", f"Range: {value}")
    assert (response.status, response.body) == (status, body)
    if status == 206:
        start = b"0123456789".index(body)
        content_range = f"bytes {start}-{start + len(body) - 1}/10"
        assert response.headers["content-range"] == content_range
    if status == 416:
        assert response.headers["content-range"] == "bytes */10"


def test_static_range_of_large_file(wire: Wire, root: Path) -> None:
    response = get(wire, "/big.bin", f"Range: bytes=100-{SMALL_FILE + 100}")
    assert response.body == (root / "big.bin").read_bytes()[100 : SMALL_FILE + 101]


NOW, BEFORE, AFTER = (
    formatdate(MODIFIED + shift, usegmt=True) for shift in (0, -10, 10)
)


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (f"If-Modified-Since: {NOW}", 304),
        (f"If-Modified-Since: {AFTER}", 304),
        (f"If-Modified-Since: {BEFORE}", 200),
        ("If-Modified-Since: yesterday", 200),
        (f"If-Unmodified-Since: {NOW}", 200),
        (f"If-Unmodified-Since: {BEFORE}", 412),
        ('If-Match: "x"', 412),
        ("If-Match: *", 200),
        ('If-None-Match: "x"', 200),
        ("If-None-Match: *", 304),
        (f'If-None-Match: "x"\r\nIf-Modified-Since: {NOW}', 200),
        (f"Range: bytes=0-0\r\nIf-Range: {NOW}", 206),
        (f"Range: bytes=0-0\r\nIf-Range: {BEFORE}", 200),
        ('Range: bytes=0-0\r\nIf-Range: "x"', 200),
        (f"Range: bytes=0-0\r\nIf-Modified-Since: {NOW}", 304),
    ],
)
def test_static_conditional_request(wire: Wire, field: str, status: int) -> None:
    response = get(wire, "/a.txt", field)
    assert response.status == status
    if status == 304:
        assert "content-length" not in response.headers
        assert "content-type" not in response.headers


def test_static_conditional_post(wire: Wire) -> None:
    field = f"If-Modified-Since: {NOW}"
    assert get(wire, "/a.txt", field, method="POST").status == 200
    assert get(wire, "/a.txt", "If-None-Match: *", method="POST").status == 412


def test_static_directory_index_redirect_and_listing(wire: Wire) -> None:
    assert get(wire, "/").body == b"<h1>start</h1>"
    for path, location in (
        ("/index.html", "./"),
        ("/index.html?q=1", "./?q=1"),
        ("/sub", "./sub/"),
        ("/sub?q", "./sub/?q"),
        ("/sub/a:b", "./a%3Ab/"),
        ("/a.txt/", "../a.txt"),
    ):
        response = get(wire, path)
        assert (response.status, response.headers["location"]) == (301, location)
    page = get(wire, "/sub/").body.decode()
    assert '<a href="./a%20%3Cb%3E%26%22c%22.txt">a &lt;b&gt;&amp;&quot;c&quot;' in page
    assert '<a href="./a%3Ab/">a:b/</a>' in page
    assert get(wire, "/sub/", f"If-Modified-Since: {NOW}").status == 304
    assert get(wire, "/indexless/").status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/missing", 404),
        ("/a.txt/x", 404),
        ("/" + "x" * 300, 404),
        ("/../secret", 404),
        ("/sub/../../secret", 404),
        ("/..", 404),
        ("/pipe", 404),
        ("/out", 403),
        ("/up", 403),
        ("/updir/secret", 403),
        ("/loop", 403),
        ("/+/missing", 404),
        ("/+/pipe", 404),
    ],
)
def test_static_missing_or_outside_root_rejected(
    wire: Wire, path: str, status: int
) -> None:
    """SK34: dot segments and symlinks do not leave the root directory."""
    response = get(wire, path)
    assert response.status == status
    assert b"secret" not in response.body


def test_static_unreadable_file_gets_403() -> None:
    """Root can read everything, so the test drops its privileges temporarily."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        for name, mode in (("open", 0o644), ("closed", 0o600)):
            (Path(directory) / name).write_text("x")
            (Path(directory) / name).chmod(mode if os.geteuid() == 0 else mode & 0o044)
        (Path(directory) / "open").chmod(0o644)

        def handle(request: Request) -> ServeFile:
            return ServeFile(directory, request.target.decode(), upstream="files")

        with Server(handle) as server, Wire(server.port) as wire:
            user = os.geteuid()
            if user == 0:
                os.seteuid(UNPRIVILEGED_UID)
            try:
                responses = [get(wire, "/open"), get(wire, "/closed")]
            finally:
                os.seteuid(user)
    assert [response.status for response in responses] == [200, 403]


def test_static_symlink_inside_root_followed(wire: Wire) -> None:
    for path in ("/sub/in", "/sub/round", "/.dot"):
        assert get(wire, path).status == 200


def test_static_symlink_outside_root_followed_by_option(wire: Wire) -> None:
    for path in ("/+/out", "/+/up", "/+/updir/secret"):
        assert get(wire, path).body == b"secret"


def test_static_truncated_file_aborts_connection(root: Path) -> None:
    file = root / "shrinking"
    file.write_bytes(bytes(64 << 20))

    def handle(request: Request) -> ServeFile:
        return ServeFile(str(root), "/shrinking")

    with Server(handle) as server, Wire(server.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wire.take(1 << 16)
        os.truncate(file, 1 << 20)
        assert len(wire.rest()) < 60 << 20
    file.unlink()


def test_static_missing_root_gets_404() -> None:
    def handle(request: Request) -> ServeFile:
        return ServeFile("/nowhere/at/all", "/x")

    with Server(handle) as server, Wire(server.port) as wire:
        assert get(wire, "/").status == 404


@given(st.text(alphabet="ab./\0\\üsecrt%", max_size=30))
def test_open_beneath_never_leaves_root(path: str) -> None:
    """SK34: whatever the path contains."""
    root = str(Path(__file__).parent)
    try:
        descriptor = open_beneath(root, path)
    except OSError:
        return
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    assert target == root or target.startswith(root + "/")


def test_open_beneath_closes_descriptors(root: Path) -> None:
    def count_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count_descriptors()
    for path in ("/a.txt", "/sub/round", "/missing", "/out", "/a.txt/x", "/pipe", "/"):
        for follow in (False, True):
            with contextlib.suppress(OSError):
                os.close(open_beneath(str(root), path, follow=follow))
    assert count_descriptors() == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before


@pytest.mark.parametrize("more", [0, 1])
def test_static_truncated_listing_is_marked(tmp_path: Path, more: int) -> None:
    for number in range(MAX_ENTRIES + more):
        os.close(os.open(tmp_path / f"f{number}", os.O_CREAT, 0o600))

    def handle(request: Request) -> ServeFile:
        return ServeFile(str(tmp_path), "/")

    with Server(handle) as server, Wire(server.port) as wire:
        body = get(wire, "/").body
    assert body.count(b"<a href") == MAX_ENTRIES
    assert (b"Only the first 10000 entries are listed" in body) == bool(more)


@pytest.mark.parametrize("more", [0, 1])
def test_static_symlink_limit(tmp_path: Path, more: int) -> None:
    (tmp_path / "link0").write_text("here")
    for number in range(MAX_SYMLINKS + more):
        (tmp_path / f"link{number + 1}").symlink_to(f"link{number}")

    def handle(request: Request) -> ServeFile:
        return ServeFile(str(tmp_path), request.target.decode())

    with Server(handle) as server, Wire(server.port) as wire:
        response = get(wire, f"/link{MAX_SYMLINKS + more}")
    assert response.status == (403 if more else 200)
