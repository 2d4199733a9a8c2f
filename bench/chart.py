"""The results as a table and as an SVG chart."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

COLORS = {"authproxy": "#2f5bea", "oauth2-proxy": "#9aa3b5", "nginx": "#c9ced9"}
WIDTH, ROW, LEFT, RIGHT = 760, 26, 250, 120


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table with one row per program and case."""
    lines = [
        "| case | program | requests/s | of oauth2-proxy | goal | p50 ms | p99 ms | CPU µs |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        goal = f"{row.get('goal', '')}" if row["program"] == "authproxy" else ""
        lines.append(
            f"| {row['case']} | {row['program']} | {row['rate']:,.0f} | {ratio} | {goal} "
            f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['cpu_us']:,.0f} |"
        )
    return "\n".join(lines)


def svg(rows: Sequence[dict[str, Any]]) -> str:
    """Return a bar chart of requests per second."""
    top = max(row["rate"] for row in rows)
    height = ROW * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="12" y="24" font-size="15" font-weight="600">Auth checks per second</text>',
    ]
    for number, row in enumerate(rows):
        y = 42 + number * ROW
        length = (WIDTH - LEFT - RIGHT) * row["rate"] / top
        color = COLORS.get(row["program"], "#888")
        label = escape(f"{row['case']}, {row['program']}")
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{label}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="18" rx="3" '
            f'fill="{color}"/>'
            f'<text x="{LEFT + length + 6:.0f}" y="{y + 14}">{row["rate"]:,.0f}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])
