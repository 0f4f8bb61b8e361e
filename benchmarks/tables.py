"""Tables and figures as report.py writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table that is also legible as text: columns padded, all but the first to the right where they are numbers."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    numbers = [i > 0 and all(row[i][:1].isdigit() or row[i] == "" for row in cells[1:]) for i in range(len(widths))]
    rule = ["-" * (width - number) + ":" * number for width, number in zip(widths, numbers, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numbers, strict=True)) + " |"
        for line in lines
    )


def short(count: int) -> str:
    if count % 1_000_000 == 0:
        return f"{count // 1_000_000} M"
    return f"{count // 1000} k" if count % 1000 == 0 else str(count)


def spread(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.1f}x ({row['ratio_min']:.1f} to {row['ratio_max']:.1f})"
