"""Headless Chromium with an empty profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from support.ports import LOOPBACK

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--window-size=1000,800",
)


def start_browser(
    chromium: Path,
    driver: Path,
    folder: Path,
    resolve: Mapping[str, int],
    *flags: str,
) -> Chrome:
    """Start a browser that connects to local ports for the hosts in *resolve*."""
    options = ChromeOptions()
    options.binary_location = str(chromium)
    rules = [
        f"MAP {name}:443 {LOOPBACK}:{port}" for name, port in sorted(resolve.items())
    ]
    for flag in (
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--host-resolver-rules={','.join(rules)}",
        *flags,
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(str(driver)))
    browser.set_page_load_timeout(30)
    return browser
