"""What tells of no incident's events: receipts of what began nothing, and correlation windows. Each stands alone."""

from pipeline.domain.errors import Corrupt
from pipeline.replay.lines import item_of
from pipeline.stores.items import read_receipt, read_window


def check_alone(line: bytes) -> None:
    """Check that an item of the idempotency table can be read and lies under its own key. Raises `Corrupt`."""
    item = item_of(line)
    try:
        key = item["pk"]["S"]
    except (KeyError, TypeError) as error:
        raise Corrupt(f"an item without a key: {error}") from None
    one = read_receipt(item) if "requestDigest" in item else read_window(item)
    if one.id != key:
        raise Corrupt(f"the item under {key} belongs under {one.id}")
