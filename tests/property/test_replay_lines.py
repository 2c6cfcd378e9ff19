"""What replay does faster than the core, on values nobody thought of: it must come to the same."""

from typing import Any

from hypothesis import given

from pipeline.domain.canonical import normalise
from pipeline.domain.envelope import event_hash
from pipeline.replay.lines import document_of, line_of, quick_hash
from pipeline.stores.items import from_item, to_item
from tests.property.test_canonical_properties import documents


@given(documents)
def test_the_fast_hash_is_the_cores_for_every_document(document: dict[str, Any]) -> None:
    canonical = normalise(document)
    assert quick_hash(canonical) == event_hash(canonical)
    assert canonical == normalise(document), "it left the document as it was"


@given(documents)
def test_a_line_gives_back_every_document(document: dict[str, Any]) -> None:
    item = to_item(normalise(document))
    assert document_of(line_of(item)) == from_item(item) == normalise(document)
