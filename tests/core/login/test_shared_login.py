"""Single use of login states across processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from authproxy_core import SessionSettings
from support.fleet import Fleet
from support.harness import settings, target_of

KINDS = {
    "cookie": SessionSettings(shared=True),
    "ticket": SessionSettings(shared=True, backend="store"),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def start_login(kind: str, seed: int = 0) -> tuple[Fleet, str]:
    """Return two processes, and the request target of a callback."""
    fleet = Fleet(settings(sessions=KINDS[kind]), seed=seed)
    response = fleet[0].get("/oauth2/start?rd=/deep")
    [location] = [value for name, value in response.headers if name == b"location"]
    return fleet, target_of(fleet.idp.log_in(location.decode(), "alice"))


@kinds
@given(seed=st.integers(0, 1 << 32))
@budget(max_examples=10, deadline=None)
def test_lg05_concurrent_callbacks_redeem_once(kind: str, seed: int) -> None:
    fleet, target = start_login(kind, seed)
    responses = fleet.check_together(4, dict(fleet.harness.jar), target)
    assert sorted(response.status for response in responses) == [302, 403, 403, 403]
    assert fleet.idp.count("token") == 1


@kinds
def test_lg04_used_login_rejected_by_other_process(kind: str) -> None:
    fleet, target = start_login(kind)
    jar = dict(fleet.harness.jar)
    assert fleet[0].get(target, jar=dict(jar)).status == 302
    assert fleet[1].get(target, jar=dict(jar)).status == 403
    assert fleet.idp.count("token") == 1


@pytest.mark.parametrize(("kind", "status"), [("cookie", 302), ("ticket", 503)])
def test_login_with_store_unavailable(kind: str, status: int) -> None:
    """If the session needs the store, the code is not redeemed and can be retried."""
    fleet, target = start_login(kind)
    fleet.store.away = True
    jar = dict(fleet.harness.jar)
    assert fleet[0].get(target, jar=jar).status == status
    assert fleet.idp.count("token") == (1 if status == 302 else 0)
