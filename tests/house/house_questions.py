"""Two questions that test the house, answered by running them: `python tests/house/house_questions.py`.

Who may resolve an incident? What does adding a field to the envelope touch? Exits 1 where an answer is not "one place".
"""

import ast
import asyncio
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# Run as a script from anywhere, also from a copy of the tree: its own modules are meant, not installed ones.
sys.path.insert(0, str(ROOT))

from pipeline.domain.canonical import parse_document  # noqa: E402
from pipeline.domain.envelope import IncidentEvent, detail_of, event_hash  # noqa: E402
from tests.support.audit import audit  # noqa: E402
from tests.support.bodies import candidate_body  # noqa: E402
from tests.support.sources import CODE, TABLE, dotted, files, modules, state_comparisons, tree  # noqa: E402
from tests.support.world import World  # noqa: E402

ENVELOPE: Final = "pipeline/domain/envelope.py"
ANCHOR: Final = "    previous_hash: Digest\n"
FIELD: Final = "origin"
LINE: Final = f'    {FIELD}: str = "opx"\n'


def who_may_resolve() -> bool:
    """Print the one row that lets an incident be resolved, and where else states are compared (nowhere)."""
    print("1. Who may resolve an incident?")
    calls = [node for node in ast.walk(tree(TABLE)) if isinstance(node, ast.Call) and dotted(node.func) == "Transition"]
    rows = [call for call in calls if len(call.args) > 1 and dotted(call.args[1]) == "State.RESOLVED"]
    for row in rows:
        print(f"   {TABLE}:{row.lineno}: {ast.unparse(row)}")
    searched = [name for name in modules(*CODE) if name != TABLE]
    elsewhere = [found for name in searched for found in state_comparisons(name)]
    print(f"   Comparisons with a state in the other {len(searched)} code files: {len(elsewhere)}")
    for found in elsewhere:
        print(f"   {found}")
    return len(rows) == 1 and not elsewhere


def add_a_field() -> bool:
    """Print which files of a copy must change so that a new field of the envelope is stored, verified and published."""
    print("2. What does adding a field to the envelope touch?")
    with tempfile.TemporaryDirectory(prefix="opx-house-") as folder:
        copy = Path(folder)
        copied = [
            name for name in files() if name.startswith(("pipeline/", "tests/support/", "tests/house/", "tests/golden/"))
        ]
        for name in copied:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        envelope = copy / ENVELOPE
        before = envelope.read_text(encoding="utf-8")
        assert before.count(ANCHOR) == 1, f"{ENVELOPE} has changed: mend ANCHOR here"
        envelope.write_text(before.replace(ANCHOR, LINE + ANCHOR), encoding="utf-8")
        number = before[: before.index(ANCHOR)].count("\n") + 1
        print(f"   {ENVELOPE}:{number}: + {LINE.strip()}")
        result = subprocess.run(
            [sys.executable, "-B", str(copy / "tests/house/house_questions.py"), "--round-trip"],
            cwd=copy,
            env={"PATH": os.defpath, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        changed = [name for name in copied if not filecmp.cmp(ROOT / name, copy / name, shallow=False)]
    if result.returncode != 0:
        print(result.stderr)
        return False
    found = json.loads(result.stdout)
    for question, answer in found.items():
        print(f"   {question}: {answer}")
    print(f"   Code files changed: {len(changed)} ({', '.join(changed)})")
    return changed == [ENVELOPE] and found["on disk"] == found["on the bus"] == "opx"


def round_trip() -> dict[str, object]:
    """Take one candidate through decide, store, read and publish; say what became of the field. Runs in the copy."""
    world = World()
    asyncio.run(world.offer(candidate_body()))
    audit(world.store)
    stored = world.store.feed[0]
    event = IncidentEvent.from_document(stored)
    assert event.to_document() == stored
    golden = sorted((ROOT / "tests/golden/events").glob("*.v1.json"))
    old = [parse_document(path.read_bytes()) for path in golden]
    return {
        "on disk": stored.get(FIELD),
        "in the model read back": getattr(event, FIELD, None),
        "on the bus": json.loads(detail_of(stored)).get(FIELD),
        "hash verifies": event_hash(stored) == stored["hash"],
        "hash covers it": event_hash(stored | {FIELD: "x"}) != stored["hash"],
        "events stored before it": f"{sum(_still_good(document) for document in old)} of {len(old)} read and verify",
    }


def _still_good(document: dict[str, object]) -> bool:
    return FIELD not in document and event_hash(document) == document["hash"] and bool(IncidentEvent.from_document(document))


def main() -> int:
    if "--round-trip" in sys.argv:
        print(json.dumps(round_trip()))
        return 0
    answers = [who_may_resolve(), add_a_field()]
    return 0 if all(answers) else 1


if __name__ == "__main__":
    sys.exit(main())
