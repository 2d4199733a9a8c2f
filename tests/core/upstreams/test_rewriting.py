"""Rewritten request targets equal those of oauth2-proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.errors import RequestError
from authproxy_core.go_regex import (
    MAX_PATTERN_LENGTH,
    compile_pattern,
    escape_pattern,
    replace_all,
)
from authproxy_core.upstreams.rewriting import PathRewrite, clean_path, escape_path


@pytest.mark.parametrize(
    ("pattern", "template", "path", "query", "target"),
    [
        ("^/api/(.*)$", "/$1", b"/api/users", b"", b"/users"),
        ("^/api/(.*)$", "/v2/${1}x", b"/api/a", b"", b"/v2/ax"),
        ("^/api/(.*)$", "/v2/$1x", b"/api/a", b"", b"/v2/"),  # the group "1x"
        ("^/(?P<name>[a-z]+)/(.*)", "/$2/$name", b"/ab/c", b"", b"/c/ab"),
        ("^/(?<name>[a-z]+)/", "/${name}-", b"/ab/c", b"", b"/ab-c"),
        ("/a", "/b", b"/a/a", b"", b"/b/b"),  # every match, not only the first
        ("^/a", "/$$1$9$", b"/a", b"", b"/$1$"),
        ("^/a/(.*)", "/b?path=$1", b"/a/x y", b"", b"/b?path=x+y"),
        ("^/a/(.*)", "/b?a=$1", b"/a/1", b"z=2&a=0", b"/b?a=0&a=1&z=2"),
        ("^/a", "/b", b"/a", b"c=1&b=%zz&a=;&&b&a=%2F+", b"/b?a=%2F+&b=&c=1"),
        ("^/a", "", b"/a", b"", b"/"),
        ("^/a/", "$x", b"/a/b", b"", b"/b"),
        ("^/a/(.*)", "/$1", "/a/ü%/?".encode(), b"", b"/%C3%BC%25/?"),
        ("^/a/(.*)", "/$1", b"/a/\r\n x", b"", b"/%0D%0A%20x"),
        ("a*", "-", b"/baac", b"", b"/-/-b-c-"),
    ],
)
def test_rewrite_target(
    pattern: str, template: str, path: bytes, query: bytes, target: bytes
) -> None:
    rewriting = PathRewrite(pattern, template)
    assert rewriting.matches(path)
    if b"?" in path:  # ambiguous with the question mark of the template
        target = target.removesuffix(b"?")
    assert rewriting.rewrite(path, query) == target


def test_rewrite_path_not_utf8_raises() -> None:
    rewriting = PathRewrite("^/a", "/b")
    with pytest.raises(RequestError):
        rewriting.matches(b"/\xff")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("^/rw/(.*)", b"/rw/../../admin"),
        ("^/rw/(.*)", b"/rw/.."),
        ("^/rw(.*)", b"/rw../admin"),
        ("^/rw/(.*)", b"/rw/..\\..\\admin"),
        ("^/rw/(.*)", b"/rw/..;x=y/admin"),
    ],
)
def test_rewrite_out_of_target_raises(pattern: str, path: bytes) -> None:
    with pytest.raises(RequestError):
        PathRewrite(pattern, "/base/$1").rewrite(path, b"")
    assert PathRewrite(pattern, "/base?p=$1").rewrite(path, b"")[:5] == b"/base"


@pytest.mark.parametrize("path", [b"/rw/..x/y", b"/rw/x../y", b"/rw/...", b"/rw/."])
def test_rewrite_other_dots_kept(path: bytes) -> None:
    target = PathRewrite("^/rw/(.*)", "/base/$1").rewrite(path, b"")
    assert target == b"/base/" + path[4:]


@pytest.mark.parametrize(
    "pattern", ["(", "a(?=b)", r"(a)\1", "a" * (MAX_PATTERN_LENGTH + 1), "\udcff"]
)
def test_invalid_pattern_raises(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        (b"/", b"/"),
        (b"", b"/"),
        (b"/a/b", b"/a/b"),
        (b"//a///b/", b"/a/b/"),
        (b"/a/./b/.", b"/a/b/"),
        (b"/a/../../b/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/.a/..b/...", b"/.a/..b/..."),
        (b"a", b"/a"),
    ],
)
def test_clean_path(path: bytes, clean: bytes) -> None:
    assert clean_path(path) == clean


@given(st.binary())
def test_clean_path_has_no_dot_segments(path: bytes) -> None:
    clean = clean_path(path)
    assert clean.startswith(b"/")
    assert clean_path(clean) == clean
    assert not {b".", b".."} & set(clean.split(b"/"))


@given(st.binary())
def test_escape_path_has_only_safe_characters(path: bytes) -> None:
    assert all(33 <= byte < 127 and byte not in b'?#"<>' for byte in escape_path(path))


@given(st.text(), st.text())
def test_escape_pattern_matches_itself_only(text: str, other: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    other = other.encode("utf-8", "replace").decode()
    pattern = compile_pattern(escape_pattern(text[:500]))
    assert pattern.fullmatch(text[:500])
    assert (pattern.fullmatch(other) is not None) == (other == text[:500])


def test_replace_all_without_match() -> None:
    assert replace_all(compile_pattern("x"), "abc", lambda match: "y") is None
