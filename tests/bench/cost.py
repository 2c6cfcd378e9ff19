"""`make cost`: counts an incident's life on an engine of its own and writes COSTS.md; is no test.

`--again` writes the page from what was counted last, with the prices and the template of now and without an engine.
`--count` prints a fresh count as JSON and writes nothing.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markdown import Markdown

from pipeline.local import engine as local_engine
from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.bench import cost_lifecycle, cost_lines
from tests.bench.cost_bill import Book
from tests.bench.cost_document import document
from tests.bench.cost_stack import stack

ROOT: Final = Path(__file__).parents[2]
COUNTED: Final = Path(__file__).with_name("cost_counted.json")
DOCUMENT: Final = ROOT / "COSTS.md"


def price_file() -> Path:
    """Return the newest price file."""
    return max((ROOT / "infra" / "prices").glob("*.json"), key=lambda path: path.name)


def count(endpoint_url: str) -> dict[str, Any]:
    """Count everything on a running engine."""
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)):
        os.environ.setdefault(name, value)
    counted = asyncio.run(cost_lifecycle.counted(endpoint_url))
    # Loggers remember where they wrote first, so lines are counted in a process of their own.
    command = [sys.executable, "-m", cost_lines.__name__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return counted | json.loads(done.stdout)


def written(counted: dict[str, Any]) -> str:
    """Return COSTS.md for a count, with the newest prices and the template as it stands."""
    path = price_file()
    prices = json.loads(path.read_text("utf-8"))
    assumed = {name: float(one["value"]) for name, one in prices["assumptions"].items()}
    return document(Book(prices["prices"], assumed, counted, stack()), prices, path.name)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--again", action="store_true", help="write the page from what was counted last")
    arguments.add_argument("--count", action="store_true", help="print a fresh count and write nothing")
    asked = arguments.parse_args()
    if asked.again:
        show(json.loads(COUNTED.read_text("utf-8")))
        return
    with tempfile.TemporaryDirectory(prefix="opx-cost-") as folder:
        try:
            counted = count(local_engine.start(Path(folder), leash=True).endpoint_url)
        finally:
            local_engine.stop(Path(folder))
    if asked.count:
        sys.stdout.write(json.dumps(counted, indent=1) + "\n")
        return
    COUNTED.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    show(counted)


def show(counted: dict[str, Any]) -> None:
    """Write the page and print it."""
    DOCUMENT.write_text(text := written(counted), encoding="utf-8")
    Console().print(Markdown(text))


if __name__ == "__main__":
    main()
