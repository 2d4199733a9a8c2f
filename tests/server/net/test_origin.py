"""Origins of URLs, and the proxies of the environment."""

from __future__ import annotations

import pytest

from authproxy.net.origin import Origin, select_proxy, split_url
from authproxy_core.errors import FetchError


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://idp.test", Origin("http", "idp.test", 80), "/"),
        ("https://IDP.test/a", Origin("https", "idp.test", 443), "/a"),
        ("HTTPS://idp.test:8443?x", Origin("https", "idp.test", 8443), "/?x"),
        (
            "http://my_idp:80/a%2fb?c=d?e#f",
            Origin("http", "my_idp", 80),
            "/a%2fb?c=d?e",
        ),
        ("http://[::1]:8080/", Origin("http", "::1", 8080), "/"),
        ("http://10.0.0.1//a", Origin("http", "10.0.0.1", 80), "//a"),
    ],
)
def test_split_url_valid_url_gives_origin_and_target(
    url: str, origin: Origin, target: str
) -> None:
    assert split_url(url) == (origin, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.test",
        "//idp.test/",
        "ftp://idp.test/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://:80/",
        "http://idp.test:0/",
        "http://idp.test:65536/",
        "http://idp.test:x/",
        "http://user@idp.test/",
        "http://idp.test\\@evil.test/",
        "http://idp.test/a b",
        "http://idp.test/\r\nx: y",
        "http://idp.test/\x00",
        "http://idp.test/ü",
        "http://[::1/",
        "http://[nonsense:1]/",
        "http://a%2fb/",
        "http://" + "a" * 64 + ".test/",
        "http://" + "a." * 127 + "/",
        "http://a..b/",
        "http://.idp.test/",
    ],
)
def test_split_url_invalid_url_rejected(url: str) -> None:
    with pytest.raises(FetchError, match=r"^not an http or https URL with a host$"):
        split_url(url)


@pytest.mark.parametrize(
    ("origin", "host_port", "authority"),
    [
        (Origin("http", "a.test", 80), "a.test:80", "a.test"),
        (Origin("https", "a.test", 443), "a.test:443", "a.test"),
        (Origin("http", "a.test", 443), "a.test:443", "a.test:443"),
        (Origin("http", "::1", 80), "[::1]:80", "[::1]"),
        (Origin("http", "::1", 8080), "[::1]:8080", "[::1]:8080"),
    ],
)
def test_origin_host_port_and_authority(
    origin: Origin, host_port: str, authority: str
) -> None:
    assert (origin.host_port, origin.authority) == (host_port, authority)


PROXY = Origin("http", "proxy.test", 3128)


@pytest.mark.parametrize(
    "url", ["http://proxy.test:3128", "proxy.test:3128", "HTTP://Proxy.test:3128/"]
)
def test_select_proxy_depends_on_the_scheme(url: str) -> None:
    origin = Origin("https", "idp.test", 443)
    assert select_proxy(origin, {"https": url}) == (PROXY, ())
    assert select_proxy(origin, {"http": url}) is None
    assert select_proxy(origin, {}) is None


def test_select_proxy_credentials_become_proxy_authorization() -> None:
    proxy = select_proxy(
        Origin("http", "idp.test", 80), {"http": "http://u:p%40@proxy.test:3128"}
    )
    assert proxy == (PROXY, ((b"proxy-authorization", b"Basic dTpwQA=="),))


@pytest.mark.parametrize(
    "url", ["socks5://proxy.test", "https://proxy.test", "http://", "http://s3cr3t@/"]
)
def test_select_proxy_unsupported_proxy_url_rejected_without_credentials(
    url: str,
) -> None:
    with pytest.raises(FetchError, match=r"is not http://HOST:PORT$") as caught:
        select_proxy(Origin("http", "idp.test", 80), {"http": url})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "idp.test", False),
        ("*", "idp.test", True),
        ("idp.test", "idp.test", True),
        ("idp.test", "a.idp.test", True),
        ("idp.test", "notidp.test", False),
        (".idp.test", "a.idp.test", True),
        (".idp.test", "idp.test", False),
        ("*.idp.test", "a.idp.test", True),
        ("*.idp.test", "idp.test", False),
        ("other.test, IDP.test", "idp.test", True),
        ("idp.test:80", "idp.test", True),
        ("idp.test:81", "idp.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("10.0.0.0/8", "idp.test", False),
        (",", "idp.test", False),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
    ],
)
def test_select_proxy_no_proxy_and_loopback_are_direct(
    no_proxy: str, host: str, direct: bool
) -> None:
    proxies = {"http": "http://proxy.test:3128", "no": no_proxy}
    assert (select_proxy(Origin("http", host, 80), proxies) is None) is direct
