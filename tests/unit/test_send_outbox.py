"""A file's lines become messages a queue can take; what it can't take is named by line, and the rest goes on."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.outbox import (
    BATCH_BYTES_MAX,
    BATCH_ENTRIES_MAX,
    MESSAGE_BYTES_MAX,
    Line,
    Outgoing,
    Queue,
    Unsendable,
    address,
    addressed,
    batched,
    read_lines,
    shuffled,
)
from pipeline.local.paths import PROJECT_ROOT


def lines(content: bytes) -> list[Line | Unsendable]:
    return list(read_lines(io.BytesIO(content)))


def test_empty_lines_are_no_messages_and_numbers_are_the_files() -> None:
    assert lines(b"a\n\n  \r\nb\r\nc") == [Line(1, "a"), Line(4, "b"), Line(5, "c")]
    assert lines(b"") == []


def test_a_byte_order_mark_is_no_part_of_the_first_message() -> None:
    assert lines(b'\xef\xbb\xbf{"a":1}\n') == [Line(1, '{"a":1}')]


def test_invalid_json_is_sent_as_it_is() -> None:
    assert lines(b'{"cut off\n{}\n') == [Line(1, '{"cut off'), Line(2, "{}")]


@pytest.mark.parametrize(
    ("raw", "why"), [(b"\xff\xfe", "not UTF-8"), (b"a\x00b", "U+0000"), (b"a\x1bb", "U+001B"), (b"a\xef\xbf\xbf", "U+FFFF")]
)
def test_what_no_queue_carries_is_named_and_the_rest_goes_on(raw: bytes, why: str) -> None:
    found = lines(b"{}\n" + raw + b"\n{}\n")
    assert [type(item) for item in found] == [Line, Unsendable, Line]
    assert isinstance(found[1], Unsendable)
    assert found[1].number == 2
    assert why in found[1].why


@pytest.mark.parametrize(("size", "fits"), [(MESSAGE_BYTES_MAX, True), (MESSAGE_BYTES_MAX + 1, False), (3_000_000, False)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_the_limit_counts_the_message_and_not_its_line_end(size: int, fits: bool, end: bytes) -> None:
    found = lines(b"x" * size + end)
    assert [isinstance(item, Line) for item in found] == [fits]
    assert [item.number for item in lines(b"x" * size + b"\nnext\n")] == [1, 2]


def test_the_limit_is_the_queues_own() -> None:
    template = (PROJECT_ROOT / "template.yaml").read_text("utf-8")
    assert template.count(f"MaximumMessageSize: {MESSAGE_BYTES_MAX}\n") == 4


@given(st.lists(st.one_of(st.integers(1, MESSAGE_BYTES_MAX), st.none()), max_size=60))
def test_batches_keep_order_and_limits_and_lose_nothing(sizes: list[int | None]) -> None:
    items = [Unsendable(n, "") if size is None else Outgoing(n, "", size) for n, size in enumerate(sizes)]
    batches = list(batched(items))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        messages = [item for item in batch if isinstance(item, Outgoing)]
        assert len(messages) <= BATCH_ENTRIES_MAX
        assert len(messages) == 1 or sum(item.size for item in messages) <= BATCH_BYTES_MAX


def test_batches_are_as_full_as_they_can_be() -> None:
    batches = list(batched(Outgoing(n, "", 100) for n in range(95)))
    assert [len(batch) for batch in batches] == [10] * 9 + [5]


def test_a_shuffle_depends_on_its_seed_alone() -> None:
    items: list[Line | Unsendable] = [Line(n, str(n)) for n in range(50)]
    assert shuffled(items, 7) == shuffled(items, 7)
    assert shuffled(items, 7) != shuffled(items, 8)
    assert sorted(shuffled(items, 7), key=lambda item: item.number) == items


def sent_as(document: object, queue: Queue) -> Outgoing:
    return address(Line(1, document if isinstance(document, str) else json.dumps(document)), queue)


def test_candidates_are_grouped_by_service_and_need_no_group() -> None:
    assert sent_as({"service": "checkout"}, Queue.CANDIDATES).group == "checkout"
    assert sent_as("not JSON", Queue.CANDIDATES).group is None
    assert sent_as({"service": 5}, Queue.CANDIDATES).group is None
    assert sent_as({"detail-type": "x", "detail": {"alarmName": "cpu"}}, Queue.ALARMS).group == "cpu"


@pytest.mark.parametrize(
    ("description", "group"),
    [
        ('{"service": "ledger", "severity": "SEV2"}', "ledger"),
        ("words", "cpu"),
        ('{"severity": "SEV2"}', "cpu"),
        (None, "cpu"),
    ],
)
def test_an_alarm_is_grouped_by_the_service_it_is_mapped_to(description: object, group: str) -> None:
    detail = {"alarmName": "cpu", "configuration": {"description": description}}
    for queue in (Queue.ALARMS, Queue.CANDIDATES):
        assert sent_as({"detail-type": "x", "detail": detail}, queue).group == group


@pytest.mark.parametrize(("labels", "group"), [({"service": "ledger"}, "ledger"), ({}, None), ([], None), (None, None)])
def test_an_alertmanager_notification_is_grouped_by_the_service_its_alerts_share(labels: object, group: str | None) -> None:
    assert sent_as({"version": "4", "groupKey": "{}:{}", "commonLabels": labels}, Queue.ALERTMANAGER).group == group
    assert sent_as({"service": "checkout"}, Queue.CANDIDATES).deduplication is None


@pytest.mark.parametrize("service", ["Zahlungen für alle", "x" * 300, "a b"])
def test_a_service_that_is_no_group_name_still_has_one_group(service: str) -> None:
    group = sent_as({"service": service}, Queue.CANDIDATES).group
    assert group == sent_as({"service": service, "title": "other"}, Queue.CANDIDATES).group
    assert group is not None
    assert len(group) == 32


def test_commands_are_ordered_by_incident() -> None:
    one = sent_as({"type": "add-note", "incidentId": "i-1", "note": "a", "idempotencyKey": "k1"}, Queue.COMMANDS)
    other = sent_as({"type": "add-note", "incidentId": "i-1", "note": "b", "idempotencyKey": "k2"}, Queue.COMMANDS)
    assert one.group == other.group == "i-1"


def test_declarations_of_one_key_are_ordered_and_others_are_not() -> None:
    def group(**fields: str) -> str | None:
        return sent_as({"type": "declare", "service": "s", **fields}, Queue.COMMANDS).group

    assert group(dedupKey="k", title="a") == group(dedupKey="k", title="b")
    assert group(dedupKey="k") != group(dedupKey="l")
    assert group(title="a") != group(title="b")


def test_a_reused_key_with_another_body_is_another_message_and_a_copy_is_not() -> None:
    def deduplication(**fields: str) -> str | None:
        return sent_as({"type": "add-note", "incidentId": "i", **fields}, Queue.COMMANDS).deduplication

    assert deduplication(idempotencyKey="k", note="a") == deduplication(idempotencyKey="k", note="a")
    assert deduplication(idempotencyKey="k", note="a") != deduplication(idempotencyKey="k", note="b")
    assert deduplication(note="a") != deduplication(note="a")


def test_bodies_are_changed_before_they_are_addressed() -> None:
    items = list(addressed([Line(1, '{"service": "a"}'), Unsendable(2, "x")], Queue.CANDIDATES, lambda body: body * 2))
    assert items == [Outgoing(1, '{"service": "a"}{"service": "a"}', 32, group=None), Unsendable(2, "x")]
