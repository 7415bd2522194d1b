"""Put the tables of the last runs into docs/peers.md, between their markers.

    python experiments/peers/page.py [experiments/results]

A marker `<!-- table: KEY -->` up to `<!-- end -->` gets the table of that key from every machine that has one, the
CPU's first, each with its machine, date, versions and command. The words around the markers are by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from rows import ROOT, caption, markdown

PAGE = ROOT / "docs" / "peers.md"
RESULTS = ROOT / "experiments" / "results"
MARKED = re.compile(r"(<!-- table: (?P<key>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables(results: Path) -> dict[str, list[str]]:
    """Return the Markdown of every table by key, the CPU's before the cards'."""
    found: dict[str, list[str]] = {}
    files = sorted(results.glob("*/peers/*.json"), key=lambda file: (file.parent.parent.name != "cpu", file))
    for file in files:
        data = json.loads(file.read_text())
        for key, table in data.get("tables", {}).items():
            found.setdefault(key, []).append(block(data, table))
    return found


def block(data: dict[str, Any], table: dict[str, Any]) -> str:
    """Return one table with its title above and where it comes from below."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table["header"], *table["rows"])]
    origin = f"{data['date']}, {caption(data['machine'])}. `{data['command']}`"
    return f"**{table['title']}**\n\n{markdown(cells)}\n\n<sub>{origin}</sub>\n"


def fill(page: str, found: dict[str, list[str]]) -> str:
    """Return the page with what was found; a key without a table keeps what stands there."""

    def put(match: re.Match[str]) -> str:
        blocks = found.get(match["key"])
        return match[0] if blocks is None else f"{match[1]}{chr(10).join(blocks)}{match[3]}"

    return MARKED.sub(put, page)


def main() -> None:
    """Rewrite the page."""
    page, found = PAGE.read_text(), tables(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    keys = {match["key"] for match in MARKED.finditer(page)}
    PAGE.write_text(fill(page, found))
    print(f"{PAGE.relative_to(ROOT)}: {len(keys & set(found))} of {len(keys)} tables")
    for key in sorted(set(found) - keys):
        print(f"No marker for {key}")


if __name__ == "__main__":
    main()
