"""Allow lists of hosts and domains."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy_core.request.hosts import ListedDomains, listed_hosts

NAMES = st.sampled_from(["a.b", "b", "c.a.b", "xb", "a.bc", "x.a.b"])
ENTRIES = st.tuples(
    st.sampled_from(["", ".", "*."]), NAMES, st.sampled_from(["", ":*", ":80"])
).map("".join)


@settings(max_examples=100, deadline=None)
@given(entries=st.lists(ENTRIES, max_size=4), domain=st.none() | NAMES)
def test_listed_domains_contain_what_an_entry_without_port_matches(
    entries: list[str], domain: str | None
) -> None:
    expected = domain is not None and any(
        one.matches(domain, "") for one in listed_hosts(entries)
    )
    assert (domain in ListedDomains(entries)) == expected
