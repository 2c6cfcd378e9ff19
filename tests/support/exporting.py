"""A store written out as DynamoDB would export its tables: gzipped DynamoDB-JSON with both manifests, in no useful order."""

import gzip
import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import md5
from pathlib import Path

from pipeline.domain.base import read
from pipeline.domain.correlation import WINDOW
from pipeline.domain.incidents import INCIDENT
from pipeline.domain.receipts import RECEIPT
from pipeline.replay.lines import line_of
from pipeline.stores.items import Item, incident_item, pointer_item, receipt_item, to_item, window_item
from pipeline.stores.memory import MemoryStore

EXPORTED_AT = "2026-02-01T00:00:00.000Z"
Tables = dict[str, list[Item]]


def tables_of(store: MemoryStore) -> Tables:
    """Return what the three tables would hold, by the end of their names."""
    rows = [incident_item(read(INCIDENT, row)) for row in store.incidents.values()]
    receipts = [receipt_item(read(RECEIPT, one)) for one in store.receipts.values()]
    return {
        "incident-events": [to_item(event) for history in store.events.values() for event in history.values()],
        "incidents": rows + [pointer_item(pointer) for pointer in store.pointers.values()],
        "idempotency": receipts + [window_item(read(WINDOW, one)) for one in store.windows.values()],
    }


def export(tables: Tables, folder: Path, *, files: int = 2, seed: int = 7, exported_at: str = EXPORTED_AT) -> Path:
    """Write tables as exports under `folder`, each cut into so many files; return the folder."""
    for name, items in tables.items():
        shuffled = list(items)
        random.Random(seed).shuffle(shuffled)
        parts = (shuffled[number::files] for number in range(files))
        write_export(folder, name, parts, exported_at)
    return folder


def write_export(folder: Path, table: str, parts: Iterable[Iterable[Item]], exported_at: str = EXPORTED_AT) -> Path:
    """Write one table's export, a file for each part; nothing of it is held in memory."""
    at = folder / table / "AWSDynamoDB" / "01700000000000-0a1b2c3d"
    (at / "data").mkdir(parents=True)
    manifest, total = [], 0
    for number, items in enumerate(parts):
        name = f"part{number:04d}.json.gz"
        count = 0
        with gzip.GzipFile(at / "data" / name, "wb", compresslevel=1, mtime=0) as file:
            for item in items:
                file.write(line_of(item) + b"\n")
                count += 1
        checksum = b64encode(md5((at / "data" / name).read_bytes(), usedforsecurity=False).digest()).decode()
        key = f"AWSDynamoDB/01700000000000-0a1b2c3d/data/{name}"
        manifest.append({"itemCount": count, "md5Checksum": checksum, "etag": "-", "dataFileS3Key": key})
        total += count
    (at / "manifest-files.json").write_text("".join(json.dumps(one) + "\n" for one in manifest), encoding="utf-8")
    summary = {
        "version": "2023-08-01",
        "exportArn": f"arn:aws:dynamodb:us-east-1:123456789012:table/opx-{table}/export/01700000000000-0a1b2c3d",
        "tableArn": f"arn:aws:dynamodb:us-east-1:123456789012:table/opx-{table}",
        "exportTime": exported_at,
        "itemCount": total,
        "outputFormat": "DYNAMODB_JSON",
        "exportType": "FULL_EXPORT",
    }
    (at / "manifest-summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return at


Damage = Callable[[Tables], None]
