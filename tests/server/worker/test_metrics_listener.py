"""The metrics page: floods of scrapes."""

from __future__ import annotations

import asyncio

from authproxy.metrics.metrics import Metrics
from authproxy.worker.metrics_listener import MetricsPage
from authproxy_core.messages import Request, Respond


def test_simultaneous_scrapes_are_rendered_once() -> None:
    """A rendering takes milliseconds, so a flood shares those of each iteration."""
    published: list[None] = []

    async def main() -> list[bytes]:
        metrics = Metrics()
        metrics.worker_started()
        page = MetricsPage(metrics, lambda: published.append(None))
        bodies = []
        for _ in range(2):
            for target in (b"/metrics", b"/metrics?by=worker") * 50:
                response = page.handle(Request(b"GET", target, (), "", False, "id"))
                assert isinstance(response, Respond)
                bodies.append(response.body)
            await asyncio.sleep(0)
        return bodies

    bodies = asyncio.run(main())
    assert len(published) == 4
    # The counter of scrapes tells the renderings apart.
    assert len(set(bodies)) == 4
    assert bodies[0] == bodies[98] != bodies[100]
