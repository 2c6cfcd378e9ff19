"""What replay does faster than the core, on values nobody thought of: it must come to the same."""

from typing import Any

import pytest
from hypothesis import given

from pipeline.domain.canonical import normalise
from pipeline.domain.envelope import event_hash
from pipeline.replay import lines
from pipeline.replay.lines import document_of, line_of
from pipeline.stores.items import from_item, to_item
from tests.property.test_canonical_properties import documents


@given(documents)
def test_the_fast_hash_is_the_cores_for_every_document(document: dict[str, Any]) -> None:
    event = dict(normalise(document))
    event["hash"] = event_hash(event)
    whole = dict(event)
    # Nobody is asked again: what comes back is the fast writer's own.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "event_hash", lambda _: "not the fast writer's")
        assert lines.hash_of(event) == event["hash"]
    assert event == whole, "it left the document as it was"


@given(documents)
def test_a_line_gives_back_every_document(document: dict[str, Any]) -> None:
    item = to_item(normalise(document))
    assert document_of(line_of(item)) == from_item(item) == normalise(document)
