"""What no event speaks of in the idempotency table: receipts that name no incident, and correlation windows.

Nothing else says what is in them. So it is told where they can't be read or lie under another key than their own; no more.
"""

from pipeline.domain.errors import Corrupt
from pipeline.replay.lines import exact_document_of
from pipeline.stores.items import read_receipt, read_window, to_item


def check_alone(line: bytes) -> None:
    """Check an item of the idempotency table. Raises `Corrupt`, or `Unavailable` where newer code wrote it."""
    document = exact_document_of(line)
    read = read_receipt if "requestDigest" in document else read_window
    one, key = read(to_item(document)), document.get("pk")
    if one.id != key:
        raise Corrupt(f"the item under {str(key)[:80]} belongs under {one.id}")
