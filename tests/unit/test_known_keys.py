"""A key this process has met: its row is read where to look first, once, and is never believed."""

from pipeline.domain.ids import incident_id
from pipeline.domain.occurrences import TOGETHER_MAX
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, KnownKeys, View
from pipeline.services.ports import Commit, CommitResult, VersionMoved
from tests.support.batches import Batches, told
from tests.support.bodies import alarm_body, candidate_body
from tests.support.histories import INCIDENT_ID, incident_in
from tests.support.registry import ALARMS, OTHER_DETECTOR
from tests.support.world import World


async def test_a_second_batch_of_a_known_key_reads_its_row_once_and_commits_once() -> None:
    batches = Batches()
    await batches.take(candidate_body())
    for _ in range(3):
        assert told(await batches.take(*[candidate_body() for _ in range(10)])) == [Answer.JOINED] * 10
        assert batches.calls.calls == ["load", "commit"]


async def test_within_one_batch_the_row_is_not_read_at_all() -> None:
    batches, view = Batches(), View()
    await batches.take(candidate_body(), view=view)
    await batches.take(*[candidate_body() for _ in range(2 * TOGETHER_MAX)], view=view)
    assert batches.calls.calls == ["commit", "commit"]


async def test_a_known_incident_that_ended_elsewhere_is_not_resurrected() -> None:
    batches = Batches()
    await batches.take(candidate_body(observedAt="2026-01-31T02:00:00Z"))
    await batches.world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    late, new = candidate_body(observedAt="2026-01-31T02:30:00Z"), candidate_body(observedAt="2026-01-31T03:00:01Z")
    answers = await batches.take(late, new)
    assert sorted(told(answers)) == [Answer.CREATED, Answer.JOINED]
    assert batches.world.row(INCIDENT_ID)["state"] == "RESOLVED"
    second = batches.world.row(incident_id("checkout", "checkout-5xx", 2))
    assert (second["state"], second["metadata"]["predecessor"]) == ("OPEN", INCIDENT_ID)


async def test_what_begins_again_behind_a_known_incident_asks_nobody_first() -> None:
    batches = Batches()
    await batches.take(candidate_body(observedAt="2026-01-31T02:00:00Z"))
    await batches.world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    answers = await batches.take(*[candidate_body(observedAt=f"2026-01-31T03:00:0{n}Z") for n in (1, 2, 3)])
    assert sorted(told(answers)) == [Answer.CREATED, Answer.JOINED, Answer.JOINED]
    assert batches.calls.calls == ["load", "commit"]


async def test_a_recovery_of_a_known_key_with_nothing_open_is_nothing_open() -> None:
    batches = Batches()
    await batches.take(alarm_body("ALARM", event_id="one"), sender=ALARMS)
    (identity,) = batches.world.store.incidents
    await batches.world.walk(identity, "MITIGATING", "RESOLVED")
    assert told(await batches.take(alarm_body("OK", event_id="two"), sender=ALARMS)) == [Answer.NOTHING_OPEN]
    assert batches.world.row(identity)["version"] == 4


async def test_a_known_key_that_went_on_elsewhere_is_followed() -> None:
    """Another process began the next occurrence: what is known here is only where to look first."""
    batches = Batches()
    await batches.take(candidate_body(observedAt="2026-01-31T02:00:00Z"))
    await batches.world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    elsewhere = World(batches.calls.real)
    await elsewhere.offer(candidate_body(observedAt="2026-01-31T03:00:01Z"))
    second = incident_id("checkout", "checkout-5xx", 2)
    (answer,) = await batches.take(candidate_body(observedAt="2026-01-31T03:00:02Z"))
    assert isinstance(answer, Applied)
    assert answer.receipt.incident_id == second
    await batches.take(candidate_body(observedAt="2026-01-31T03:00:03Z"))
    assert batches.calls.calls == ["load", "commit"], "and remembered"


async def test_a_backlog_of_a_known_key_goes_where_the_key_went() -> None:
    batches = Batches()
    await batches.take(candidate_body(observedAt="2026-01-31T02:00:00Z"))
    await batches.world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    await World(batches.calls.real).offer(candidate_body(observedAt="2026-01-31T03:00:01Z"))
    (answer,) = await batches.take(candidate_body(observedAt="2026-01-31T02:30:00Z"))
    assert isinstance(answer, Applied)
    assert answer.receipt.incident_id == incident_id("checkout", "checkout-5xx", 2)


async def test_a_known_row_that_moves_between_read_and_write_is_joined_as_it_is_then() -> None:
    batches = Batches()
    await batches.take(candidate_body())
    real, moved = batches.calls.real.commit, iter([True])

    async def raced(commit: Commit) -> CommitResult:
        if next(moved, False):
            row = await batches.calls.real.load(INCIDENT_ID)
            await World(batches.calls.real).offer(candidate_body(severity="SEV1"), OTHER_DETECTOR)
            assert row is not None
            result = await real(commit)
            assert isinstance(result, VersionMoved)
            return result
        return await real(commit)

    batches.calls.real.commit = raced  # type: ignore[method-assign]
    (answer,) = await batches.take(candidate_body(), ids=["mine"])
    assert isinstance(answer, Applied)
    assert answer.attempts == 2
    assert batches.promotion["detections"] == 3
    assert batches.world.row(INCIDENT_ID)["severity"] == "SEV1"


def test_no_more_keys_are_known_than_fit_and_the_one_met_longest_ago_is_forgotten() -> None:
    known, row = KnownKeys(keys_max=2), incident_in(State.OPEN)
    for service in ("a", "b", "a", "c"):
        known.keep(row.model_copy(update={"service": service}))
    assert [known.of((service, "checkout-5xx")) for service in "abc"] == [INCIDENT_ID, None, INCIDENT_ID]
