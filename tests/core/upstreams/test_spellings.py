"""Upstreams with conditions: spellings that a server may take for another path."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Forward, UpstreamSettings
from authproxy_core.access.path_variants import MAX_AMBIGUOUS_BYTES
from authproxy_core.access.rules import MAX_CACHED_BYTES
from authproxy_core.settings.rules import Condition
from support.harness import Harness, settings

OTHER_SPELLINGS = [
    "/admin",
    "/Admin/x",
    "/ADMIN./x",
    "/admin%20/x",
    "/%C1%A1dmin/x",
    "/%EF%BD%81dmin/x",
    "/x/..;/admin/x",
    "/x/%252e%252e/admin/x",
    "/x%5C..%5Cadmin%5Cx",
    "/admin;a=b/x",
    "/%2561dmin/x",
]


def upstream(name: str, path: str, **changes: Any) -> UpstreamSettings:
    """An upstream at *path*; alice is in the groups admins and staff, bob in staff."""
    when = changes.pop("when", {})
    given = {"uri": "http://127.0.0.1:1/", **changes}
    return UpstreamSettings(id=name, path=path, condition=Condition(**when), **given)


ADMIN = upstream("admin", "/admin/", when={"groups": ("admins",)})
NO_ADMIN = upstream("no-admin", "/admin/", uri="static:", static_code=403)
APP = upstream("app", "/")


def harness_of(
    *upstreams: UpstreamSettings, user: str = "bob", **changes: Any
) -> Harness:
    harness = Harness(settings(upstreams=upstreams, **changes))
    harness.log_in(user)
    return harness


def chosen(harness: Harness, target: str, method: bytes = b"GET") -> str:
    """Return the id of the upstream, or the status of the response."""
    decision = harness.send(target, method=method)
    if isinstance(decision, Forward):
        return decision.upstream.id
    return str(decision.status)  # type: ignore[union-attr]


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
def test_other_spelling_of_denied_path_denied(path: str) -> None:
    """An upstream that ignores case, or decodes twice, would serve /admin/x."""
    bob = harness_of(ADMIN, NO_ADMIN, APP)
    assert chosen(bob, "/admin/x") == "403"
    for _ in range(2):  # also from the cache
        assert chosen(bob, path) == "403"
    assert chosen(bob, "/x") == "app"
    assert chosen(harness_of(ADMIN, NO_ADMIN, APP, user="alice"), path) == "app"


@pytest.mark.parametrize("path", ["/public/..;/x", "/public/%252e%252e/x"])
def test_other_spelling_of_path_with_unmet_condition_denied(path: str) -> None:
    """The upstream for /public/ would serve what only admins may see."""
    public = upstream("public", "/public/", when={"groups": ("staff",)})
    rest = upstream("rest", "/", when={"groups": ("admins",)})
    bob = harness_of(public, rest)
    assert chosen(bob, "/public/x") == "public"
    assert chosen(bob, path) == "403"


@pytest.mark.parametrize(
    ("path", "spelling"),
    [
        ("/u/{name}/secret/", "/u/bob/SECRET/x"),
        ("/files/{name:[0-9]+}", "/Files/12"),
        ("/report", "/Report"),
    ],
)
def test_other_spelling_of_exact_path_or_variables_denied(
    path: str, spelling: str
) -> None:
    bob = harness_of(
        upstream("some", path, when={"groups": ("admins",)}),
        upstream("none", path, uri="static:", static_code=403),
        APP,
    )
    assert chosen(bob, spelling) == "403"
    assert chosen(bob, "/u/bob/") == "app"


def test_other_spelling_of_rewritten_path_denied() -> None:
    bob = harness_of(
        upstream(
            "api", "^/API/(.*)$", rewrite_target="/$1", when={"groups": ("admins",)}
        ),
        upstream("none", "^/api", rewrite_target="/", uri="static:", static_code=403),
        APP,
    )
    assert chosen(bob, "/Api/x") == "403"


def test_spellings_that_lead_elsewhere_are_forwarded() -> None:
    """A condition that only selects an upstream denies nothing."""
    bob = harness_of(ADMIN, APP)
    assert chosen(bob, "/admin/x") == "app"
    assert chosen(bob, "/ADMIN/x") == "app"
    assert chosen(bob, "/a%2Fb/c;d") == "app"


def test_upstreams_without_conditions_match_exactly() -> None:
    """As in oauth2-proxy."""
    bob = harness_of(NO_ADMIN, APP)
    assert chosen(bob, "/admin/x") == "403"
    assert chosen(bob, "/ADMIN/x") == "app"


def test_status_of_static_upstream_with_condition_kept() -> None:
    gone = upstream(
        "gone", "/old/", uri="static:", static_code=410, when={"groups": ("staff",)}
    )
    assert chosen(harness_of(gone, APP), "/old/x") == "410"
    assert chosen(harness_of(gone, APP), "/OLD/x") == "403"


def test_long_ambiguous_path_has_to_meet_all_conditions() -> None:
    long, ambiguous = (
        "/" + "x" * MAX_AMBIGUOUS_BYTES,
        "/a%2Fb" + "x" * MAX_AMBIGUOUS_BYTES,
    )
    bob = harness_of(ADMIN, NO_ADMIN, APP)
    assert chosen(bob, long) == "app"
    assert chosen(bob, ambiguous) == "403"
    assert chosen(bob, "/a%2Fb" + "x" * MAX_CACHED_BYTES) == "app"
    assert chosen(harness_of(ADMIN, NO_ADMIN, APP, user="alice"), ambiguous) == "app"


def test_lower_case_method_meets_no_condition_for_methods() -> None:
    """Some servers take it for POST, so neither upstream is certain."""
    writes = upstream("writes", "/", when={"methods": ("POST",)})
    edits = upstream("edits", "/", when={"methods": ("POST",), "groups": ("admins",)})
    assert chosen(harness_of(writes, APP), "/x", b"POST") == "writes"
    assert chosen(harness_of(writes, APP), "/x", b"post") == "403"
    assert chosen(harness_of(edits, APP), "/x", b"post") == "app"
    assert chosen(harness_of(edits, APP, user="alice"), "/x", b"post") == "403"


def test_other_spelling_with_raw_paths_denied() -> None:
    bob = harness_of(ADMIN, NO_ADMIN, APP, proxy_raw_path=True)
    assert chosen(bob, "/x%2F..%2Fadmin/x") == "403"
    assert chosen(bob, "/%61dmin/x") == "403"
