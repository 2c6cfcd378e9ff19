"""Order out of disorder: a shuffled and repeated stream yields each history exactly, in order, and gaps are told."""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.clients.answers import Event
from pipeline.clients.ordering import Gap, HeldTooMany, Ordered
from pipeline.clients.progress import FileProgress, MemoryProgress, Progress
from pipeline.clients.subscriber import read_event
from tests.support.histories import whole_life

HISTORY = [event.to_document() for event in whole_life()[0]]
START = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def event(incident: str, sequence: int, **fields: object) -> Event:
    return Event.of(
        HISTORY[0] | {"incidentId": incident, "sequence": sequence, "eventId": f"{incident}-{sequence}"} | fields
    )


class Tick:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Crashed(Exception):
    """The process ends here."""


def names(events: Iterable[Event]) -> list[tuple[str, int]]:
    return [(one.incident_id, one.sequence) for one in events]


@pytest.mark.parametrize("round_number", range(40))
def test_a_shuffled_and_repeated_stream_yields_each_history_once_in_order(round_number: int, rng: random.Random) -> None:
    lengths = {f"incident-{number}": rng.randint(1, 30) for number in range(rng.randint(1, 6))}
    stream = [event(name, sequence) for name, length in lengths.items() for sequence in range(1, length + 1)]
    stream += rng.choices(stream, k=rng.randint(0, len(stream)))
    rng.shuffle(stream)
    ordered = Ordered(MemoryProgress())
    seen = [one for came in stream for one in ordered.take(came)]
    for name, length in lengths.items():
        assert [one.sequence for one in seen if one.incident_id == name] == list(range(1, length + 1))
    assert ordered.gaps() == ()


@pytest.mark.parametrize("round_number", range(25))
def test_crashes_repeat_the_last_event_at_most_and_never_lose_or_reorder_one(
    round_number: int, rng: random.Random, tmp_path: Path
) -> None:
    length = 25
    stream = [event("incident", sequence) for sequence in range(1, length + 1)] * 2
    rng.shuffle(stream)
    handled: list[int] = []
    queue = list(stream)
    while queue:
        ordered = Ordered(FileProgress(tmp_path / "progress"))
        try:
            # What was held back when the process died is delivered again: nothing is deleted before it is done.
            for came in list(queue):
                for one in ordered.take(came):
                    handled.append(one.sequence)
                    if rng.random() < 0.08:
                        raise Crashed
            queue = []
        except Crashed:
            rng.shuffle(queue)
    assert list(dict.fromkeys(handled)) == list(range(1, length + 1))
    assert handled == sorted(handled)


def test_an_event_whose_handler_failed_comes_out_again() -> None:
    ordered = Ordered(MemoryProgress())
    turn = ordered.take(event("i", 1))
    assert next(turn).sequence == 1
    turn.close()  # type: ignore[attr-defined] # a generator: what Python does with it when its loop's body raises
    assert names(ordered.take(event("i", 2))) == [("i", 1), ("i", 2)]
    assert ordered.offer(event("i", 1)) is False
    assert names(ordered.drain("i")) == []


def test_gaps_are_told_with_the_time_since_they_are_missed() -> None:
    clock = Tick()
    ordered = Ordered(MemoryProgress(), clock=clock)
    assert names(ordered.take(event("i", 1))) == [("i", 1)]
    assert names(ordered.take(event("i", 7))) == []
    clock.now += timedelta(seconds=30)
    assert names(ordered.take(event("i", 4))) == []
    assert names(ordered.take(event("j", 2))) == []
    later = START + timedelta(seconds=30)
    assert ordered.gaps() == (Gap("i", 2, 3, START), Gap("i", 5, 6, START), Gap("j", 1, 1, later))
    clock.now += timedelta(seconds=30)
    assert names(ordered.take(event("i", 3))) == []
    assert names(ordered.take(event("i", 2))) == [("i", 2), ("i", 3), ("i", 4)]
    assert ordered.gaps("i") == (Gap("i", 5, 6, START),)
    assert ordered.gaps("nobody") == ()


class Stored:
    """A history as the API would answer it, so far."""

    def __init__(self, incident: str, length: int) -> None:
        self.whole = [event(incident, sequence) for sequence in range(1, length + 1)]
        self.asked: list[int] = []

    def events(self, incident_id: str, *, after: int = 0) -> Iterator[Event]:
        self.asked.append(after)
        yield from self.whole[after:]


def test_a_gap_is_filled_from_the_history() -> None:
    ordered = Ordered(MemoryProgress(), held_max_each=1)
    stored = Stored("i", 9)
    assert names(ordered.take(event("i", 6))) == []
    (gap,) = ordered.gaps()
    assert [sequence for _, sequence in names(ordered.fill(gap, stored))] == [1, 2, 3, 4, 5, 6]
    assert (ordered.gaps(), stored.asked) == ((), [0])
    assert names(ordered.take(event("i", 3))) == []


def test_a_gap_can_be_given_up() -> None:
    ordered = Ordered(MemoryProgress())
    assert names(ordered.take(event("i", 40))) == []
    (gap,) = ordered.gaps()
    assert names(ordered.give_up(gap)) == [("i", 40)]
    assert names(ordered.take(event("i", 12))) == []
    assert names(ordered.take(event("i", 41))) == [("i", 41)]


def test_what_is_held_back_is_bounded_and_the_next_is_always_taken() -> None:
    ordered = Ordered(MemoryProgress(), held_max_each=3, held_max=4, clock=Tick())
    for sequence in (9, 5, 7):
        assert names(ordered.take(event("i", sequence))) == []
    with pytest.raises(HeldTooMany, match="no room for event 3") as caught:
        ordered.take(event("i", 3))
    assert caught.value.gap == Gap("i", 1, 2, START)
    assert names(ordered.take(event("j", 2))) == []
    with pytest.raises(HeldTooMany) as caught:
        ordered.take(event("k", 2))
    assert caught.value.gap == Gap("k", 1, 1, START)
    # Repetitions cost nothing, and what opens the way is let in.
    assert names(ordered.take(event("i", 9))) == []
    assert names(ordered.take(event("j", 1))) == [("j", 1), ("j", 2)]
    assert names(ordered.take(event("k", 2))) == []


def test_where_handlers_fail_for_long_there_is_no_gap_to_name() -> None:
    ordered = Ordered(MemoryProgress(), held_max_each=2)
    for sequence in (1, 2):
        ordered.offer(event("i", sequence))
    with pytest.raises(HeldTooMany) as caught:
        ordered.take(event("i", 3))
    assert caught.value.gap is None
    assert names(ordered.drain("i")) == [("i", 1), ("i", 2)]
    assert names(ordered.take(event("i", 3))) == [("i", 3)]


def test_a_replayed_event_is_told_and_counts_once() -> None:
    ordered = Ordered(MemoryProgress())
    first, again = read_event(HISTORY[0]), read_event(HISTORY[0] | {"replayed": True})
    assert (first.replayed, again.replayed) == (False, True)
    assert list(ordered.take(first)) == [first]
    assert list(ordered.take(again)) == []
    # A subscriber that has lost what it knew takes the replay as it would have taken the first.
    assert list(Ordered(MemoryProgress()).take(again)) == [again]


def both(path: Path) -> list[Progress]:
    return [MemoryProgress(), FileProgress(path)]


def test_progress_moves_forward_only(tmp_path: Path) -> None:
    for progress in both(tmp_path / "progress"):
        assert progress.position("i") == 0
        progress.advance("i", 3)
        progress.advance("i", 2)
        progress.advance("j", 1)
        assert (progress.position("i"), progress.position("j")) == (3, 1)


def test_memory_forgets_the_incident_that_has_not_moved_for_longest() -> None:
    progress = MemoryProgress(incidents_max=2)
    for incident in ("i", "j", "i", "k"):
        progress.advance(incident, progress.position(incident) + 1)
    assert [progress.position(incident) for incident in "ijk"] == [2, 0, 1]
    with pytest.raises(ValueError, match="at least 1"):
        MemoryProgress(incidents_max=0)


def test_what_was_forgotten_comes_again_from_the_history() -> None:
    progress = MemoryProgress(incidents_max=1)
    ordered = Ordered(progress)
    assert names(ordered.take(event("i", 1))) == [("i", 1)]
    assert names(ordered.take(event("j", 1))) == [("j", 1)]
    assert names(ordered.take(event("i", 2))) == []
    (gap,) = ordered.gaps()
    assert names(ordered.fill(gap, Stored("i", 2))) == [("i", 1), ("i", 2)]


def test_a_file_forgets_no_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.clients.progress._LINES_MIN", 20)
    progress = FileProgress(tmp_path / "progress")
    for number in range(300):
        progress.advance(f"i{number}", 1)
    again = FileProgress(tmp_path / "progress")
    assert sum(again.position(f"i{number}") for number in range(300)) == 300


def test_a_file_is_read_again_and_a_line_cut_off_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    progress = FileProgress(path)
    for sequence in (1, 2, 3):
        progress.advance("i", sequence)
    with path.open("a", encoding="utf-8") as file:
        file.write("i 12")
    again = FileProgress(path)
    assert again.position("i") == 3
    again.advance("i", 4)
    assert FileProgress(path).position("i") == 4
    assert path.read_text("utf-8") == "i 4\n"


def test_a_file_does_not_grow_with_the_number_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.clients.progress._LINES_MIN", 20)
    path = tmp_path / "progress"
    progress = FileProgress(path)
    for sequence in range(1, 200):
        progress.advance("i", sequence)
        assert len(path.read_text("utf-8").splitlines()) <= 21
    assert FileProgress(path).position("i") == 199
