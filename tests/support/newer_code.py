"""A copy of the tree whose code reads one schema version more, in the few lines that a release would change.

In it an event says its region, which older ones do not (`unknown`), the row keeps the last that was said, and a receipt has
it, too. Nothing of it is written while the deployment names the version before.
"""

import shutil
from pathlib import Path
from typing import Final

from tests.support.sources import ROOT, files

NEEDED: Final = (
    "pipeline/",
    "consumers/",
    "tests/support/",
    "tests/simulation/",
    "tests/golden/",
    "tests/bad_input_cases.py",
)
# Per file: what stands there, and what the newer code has instead.
CHANGES: Final = {
    "pipeline/domain/envelope.py": {
        "SCHEMA_VERSION: Final = len(STEPS) + 1\n": (
            "STEPS = (*STEPS, Step(\n"
            '    up=lambda document: document | {"region": "unknown"},\n'
            '    down=lambda document: {name: value for name, value in document.items() if name != "region"},\n'
            "))\n"
            "SCHEMA_VERSION: Final = len(STEPS) + 1\n"
        ),
        "    previous_hash: Digest\n": "    region: str\n    previous_hash: Digest\n",
        "        previous_hash=tip.hash,\n": '        region="eu",\n        previous_hash=tip.hash,\n',
    },
    "pipeline/domain/incidents.py": {
        "    schema_version: Sequence | None = None\n": (
            "    schema_version: Sequence | None = None\n    region: str | None = None\n"
        ),
        '            "last_event_hash": event.hash,\n': (
            '            "last_event_hash": event.hash,\n'
            '            "region": incident.region if event.region == "unknown" else event.region,\n'
        ),
        "        last_event_hash=event.hash,\n": (
            '        last_event_hash=event.hash,\n        region=None if event.region == "unknown" else event.region,\n'
        ),
    },
    "pipeline/domain/receipts.py": {
        "    result: Result\n    created_at: Time\n": (
            "    result: Result\n    created_at: Time\n"
            "    region: str | None = None\n    schema_version: Sequence | None = None\n"
        ),
    },
    "pipeline/services/commits.py": {
        "    guard = _guard_of(": (
            "    if version > 1:\n"
            '        told = {"region": "eu", "schema_version": version}\n'
            "        receipts = tuple(receipt.model_copy(update=told) for receipt in receipts)\n"
            "    guard = _guard_of("
        ),
    },
}


def copied(folder: Path) -> Path:
    """Return a copy of the tree as it is."""
    for name in files():
        if name.startswith(NEEDED):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def newer(folder: Path) -> Path:
    """Return a copy of the tree that reads, and may write, one version more."""
    copied(folder)
    for name, changes in CHANGES.items():
        text = (folder / name).read_text(encoding="utf-8")
        for before, after in changes.items():
            assert text.count(before) == 1, f"{name} has changed: mend what stands here for {before!r}"
            text = text.replace(before, after)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
