"""The same requests to oauth2-proxy and to authproxy, in many configurations.

Where the answers differ, the table of `differences` has to say so, field by field, and
what it says has to be so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

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
from .differences import DIFFERENCES, Seen, expected, table
from .observed import differences, observe
from .running import Peer, Peers

pytestmark = pytest.mark.peers
SHOWN = 12  # differences of one configuration
LONG = 3600.0  # seconds that tokens live: longer than the tests take
NAMES = [configuration.name for configuration in CONFIGURATIONS]
used: set[str] = set()
ran: set[str] = set()


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    """An identity provider for both."""
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
        access_token_lifetime=LONG,
        id_token_lifetime=LONG,
    )
    made = DevProvider(config)
    with serve(made):
        yield made


@pytest.fixture(scope="module")
def peers(
    provider: DevProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peers]:
    """Starts both programs, beside an application and a store."""
    if command(OAUTH2_PROXY) is None:
        pytest.skip("oauth2-proxy isn't installed")
    with ExitStack() as stack:
        echo = stack.enter_context(EchoApp())
        made = make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)
        places = {
            "{echo}": str(echo.port),
            "{cert}": made.cert_file,
            "{key}": made.key_file,
        }
        if find("redis-server"):
            server = RedisServer(tmp_path_factory.mktemp("redis"))
            redis = stack.enter_context(server)
            places["{redis}"] = f"redis://127.0.0.1:{redis.port}"
        yield Peers(provider, places)


def compared(configuration: Configuration, case: Case, both: tuple[Peer, Peer]) -> str:
    """What is not as the table says, "" when all is."""
    theirs, ours = (
        observe(
            peer.answer(case), cookie=configuration.cookie, whole=configuration.whole
        )
        for peer in both
    )
    should, entries = expected(Seen(configuration, case, theirs, ours))
    used.update(entries)
    found = differences(should, ours)
    return "".join(
        f"\n{case.name}: {field}\n  expected {one!r}\n  got      {other!r}"
        for field, (one, other) in found.items()
    )


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=NAMES)
def test_both_answer_alike(
    configuration: Configuration, peers: Peers, tmp_path: Path
) -> None:
    if "session_store_type" in configuration.options and not find("redis-server"):
        pytest.skip("redis-server isn't installed")
    with peers.started(configuration, tmp_path) as both:
        found = [compared(configuration, case, both) for case in CASES]

    ran.add(configuration.name)
    wrong = list(filter(None, found))
    assert not wrong, f"{len(wrong)} answers" + "".join(wrong[:SHOWN])


@pytest.fixture(scope="module")
def both(
    peers: Peers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Peer, Peer]]:
    """Both with the defaults and some listed domains."""
    options = {"whitelist_domains": [".example.org"], "encode_state": True}
    folder = tmp_path_factory.mktemp("logins")
    with peers.started(Configuration("logins", options), folder) as running:
        yield running


@pytest.mark.parametrize("rd", [rd for rd in RETURNS if "{P}" not in rd])
def test_a_login_ends_alike(
    rd: str, both: tuple[Peer, Peer], provider: DevProvider
) -> None:
    """The whole way; where it ends is what the sign-in page says in the comparison."""
    seen = []
    for peer in both:
        started, ended = peer.logged_in(provider, rd)
        observed = observe(ended, cookie="_oauth2_proxy")
        session = [line for line in observed.cookies if "csrf=" not in line]
        seen.append((started.status, ended.status, observed.location, session))

    theirs, ours = seen
    case = next(case for case in CASES if case.name == f"sign out to {rd!r}")
    assert (theirs[:2], theirs[3]) == (ours[:2], ours[3])
    assert ours[3] == ["_oauth2_proxy=…; Path=/; Max-Age=604800; HttpOnly; Secure"]
    signed_out = [observe(peer.answer(case), cookie="_oauth2_proxy") for peer in both]
    assert [one.location for one in signed_out] == [theirs[2], ours[2]]


def test_every_entry_of_the_table_is_true() -> None:
    if ran != set(NAMES):
        pytest.skip("not all configurations ran")
    listed = {entry.what for entry in DIFFERENCES if entry.change is not None}
    assert listed == used


def test_every_entry_is_shown_or_proved() -> None:
    for entry in DIFFERENCES:
        assert bool(entry.change) != bool(entry.proof), entry.what
        if entry.proof:
            file, _, function = entry.proof.partition("::")
            source = (ROOT / "tests" / file).read_text()
            assert re.search(rf"\bdef {function}\(", source), entry.proof


def test_every_entry_says_how_to_have_it_as_in_the_original() -> None:
    assert not [entry.what for entry in DIFFERENCES if not entry.instead]


def test_the_readme_shows_the_table() -> None:
    """``python -m peers.differences`` in the folder of the tests writes it anew."""
    assert table() in (ROOT / "README.md").read_text()


def test_there_is_enough_of_both() -> None:
    assert len(CONFIGURATIONS) >= 40
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert len(set(NAMES)) == len(NAMES)


def test_the_readme_tells_how_much() -> None:
    text = (ROOT / "README.md").read_text()
    assert f"{len(CONFIGURATIONS)} configurations" in text
    assert f"{len(CASES)} requests" in text
