"""Compare responses of oauth2-proxy and authproxy in many configurations.

The table of `differences` must explain every differing field, and every row of it must
apply to some response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from authproxy.config.options.table import BY_KEY
from authproxy_devprovider.config import Client, ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.certificates import make_certificate
from support.echo import EchoApp
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.peers import OAUTH2_PROXY, command
from support.ports import LOOPBACK
from support.programs import ROOT, find
from support.redis import RedisServer

from .cases import CASES, RETURNS, Case
from .configurations import CALLBACK_HOSTS, CONFIGURATIONS, Configuration
from .differences import (
    CHANGES,
    DIFFERENCES,
    PROOFS,
    Comparison,
    apply_differences,
    table,
)
from .observed import differences, observe
from .running import Peer, Peers

pytestmark = pytest.mark.peers
MAX_REPORTED = 12  # differing responses of one configuration
TOKEN_LIFETIME = 3600.0  # seconds, longer than the tests take
NAMES = [configuration.name for configuration in CONFIGURATIONS]
used: set[str] = set()
ran: set[str] = set()


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    """An identity provider for both programs."""
    callbacks = tuple(
        f"{scheme}://{host}{prefix}/callback"
        for scheme in ("http", "https")
        for host in CALLBACK_HOSTS
        for prefix in sorted({one.prefix for one in CONFIGURATIONS})
    )
    client = Client(
        id=CLIENT_ID,
        secret=CLIENT_SECRET,
        redirect_uris=(*callbacks, "/oauth2/callback"),
    )
    config = ProviderConfig(
        users=example_users("secret"),
        clients=(client,),
        access_token_lifetime=TOKEN_LIFETIME,
        id_token_lifetime=TOKEN_LIFETIME,
    )
    provider = DevProvider(config)
    with serve(provider):
        yield provider


@pytest.fixture(scope="module")
def peers(
    provider: DevProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peers]:
    """Both programs with an application and a Redis server."""
    if command(OAUTH2_PROXY) is None:
        pytest.skip("oauth2-proxy is not installed")
    with ExitStack() as stack:
        echo = stack.enter_context(EchoApp())
        certificate = make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)
        values = {
            "{echo}": str(echo.port),
            "{cert}": certificate.cert_file,
            "{key}": certificate.key_file,
        }
        if find("redis-server"):
            server = RedisServer(tmp_path_factory.mktemp("redis"))
            redis = stack.enter_context(server)
            values["{redis}"] = f"redis://127.0.0.1:{redis.port}"
        yield Peers(provider, values)


def unexplained(
    configuration: Configuration, case: Case, both: tuple[Peer, Peer]
) -> str:
    """Return the fields that the table does not explain as text, "" for none."""
    reference, actual = (
        observe(peer.send(case), cookie=configuration.cookie, whole=configuration.whole)
        for peer in both
    )
    comparison = Comparison(configuration, case, reference, actual)
    expected, rows = apply_differences(comparison)
    used.update(rows)
    found = differences(expected, actual)
    return "".join(
        f"\n{case.name}: {field}\n  expected {one!r}\n  got      {other!r}"
        for field, (one, other) in found.items()
    )


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=NAMES)
def test_responses_equal_except_for_listed_differences(
    configuration: Configuration, peers: Peers, tmp_path: Path
) -> None:
    if "session_store_type" in configuration.options and not find("redis-server"):
        pytest.skip("redis-server is not installed")
    with peers.running(configuration, tmp_path) as both:
        found = [unexplained(configuration, case, both) for case in configuration.cases]

    ran.add(configuration.name)
    reports = list(filter(None, found))
    assert not reports, f"{len(reports)} responses" + "".join(reports[:MAX_REPORTED])


@pytest.fixture(scope="module")
def both(
    peers: Peers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Peer, Peer]]:
    """Both programs with the default options and whitelisted domains."""
    options = {"whitelist_domains": [".example.org"], "encode_state": True}
    folder = tmp_path_factory.mktemp("logins")
    with peers.running(Configuration("logins", options), folder) as running:
        yield running


@pytest.mark.parametrize("rd", [rd for rd in RETURNS if "{P}" not in rd])
def test_login_redirects_to_the_same_target(
    rd: str, both: tuple[Peer, Peer], provider: DevProvider
) -> None:
    """A complete login redirects to the target of the compared sign-in page."""
    results = []
    for peer in both:
        started, finished = peer.log_in_with(provider, rd)
        observed = observe(finished, cookie="_oauth2_proxy")
        session = [line for line in observed.cookies if "csrf=" not in line]
        results.append((started.status, finished.status, observed.location, session))

    reference, actual = results
    case = next(case for case in CASES if case.name == f"sign out to {rd!r}")
    assert (reference[:2], reference[3]) == (actual[:2], actual[3])
    assert actual[3] == ["_oauth2_proxy=…; Path=/; Max-Age=604800; HttpOnly; Secure"]
    signed_out = [observe(peer.send(case), cookie="_oauth2_proxy") for peer in both]
    assert [one.location for one in signed_out] == [reference[2], actual[2]]


def test_each_row_applies_to_a_response() -> None:
    if ran != set(NAMES):
        pytest.skip("not all configurations ran")
    assert set(CHANGES) == used


def test_each_row_has_a_change_or_a_proof() -> None:
    assert sorted([*CHANGES, *PROOFS]) == sorted(row.id for row in DIFFERENCES)
    for proof in PROOFS.values():
        file, _, function = proof.partition("::")
        source = (ROOT / "tests" / file).read_text()
        assert re.search(rf"\bdef {function}\(", source), proof


def test_each_row_names_the_option_or_the_reason() -> None:
    for row in DIFFERENCES:
        assert row.instead, row.what
        assert not row.instead.endswith("not available"), row.what
        assert set(row.settings) <= set(BY_KEY), row.what


def test_page_has_the_table() -> None:
    """``python -m peers.differences`` in ``tests/`` rewrites it."""
    assert table() in (ROOT / "docs" / "differences.md").read_text()


def test_cases_and_configurations_are_numerous_and_unique() -> None:
    assert len(CONFIGURATIONS) >= 40
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert len(set(NAMES)) == len(NAMES)


def test_page_has_the_number_of_cases() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    assert f"{len(CONFIGURATIONS)} configurations" in text
    assert f"{len(CASES)} requests" in text
