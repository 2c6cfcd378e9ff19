"""Candidates that came together become few events: nothing of them is lost, each event stays within its limits."""

import random
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import EVENT_BYTES_MAX, EVIDENCE_MAX
from pipeline.domain.decisions import Gate
from pipeline.domain.envelope import size_of
from pipeline.domain.events import Correlation, Evidence, IncidentCreated, Link, Observation, ObservationKind, Report
from pipeline.domain.ids import candidate_id
from pipeline.domain.incidents import advance
from pipeline.domain.occurrences import EVENTS_MAX, TOGETHER_MAX, Reported, Ruling, decide_candidates
from pipeline.domain.transitions import Severity, State
from tests.support.clock import NOW
from tests.support.histories import HUMAN, INCIDENT_ID, POLICIES, SYSTEM, incident_in
from tests.support.reports import Key, attachments, controls, facts, line, names, reported, shuffled

FIRING, RECOVERY, _, DECLARATION = ObservationKind
SEV1, SEV2, SEV3, SEV4 = Severity
E, P, S, UP = "EvidenceAttached", "PromotionDecided", "SeverityChanged", "IncidentOpened"
OTHER = AuthorityContext(authority_type=SYSTEM.authority_type, principal="AROAOTHER", actor_id="monitor-8")


def joining(*batch: Reported, state: State = State.OPEN, gate: Gate | None = None, **given: Any) -> Ruling:
    return decide_candidates(batch, incident_in(state, **given), gate or Gate(POLICIES))


def seconds(number: float) -> Any:
    return NOW + timedelta(seconds=number)


# --- one observation of many --------------------------------------------------------------------------------------------

# What members of one batch saw, and what their one event says: all that is not named is absent.
FOLDED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one alone is as it was": (
        [{"at": 1, "age_s": 3, "first_observed_at": seconds(-9), "more_sources": ("z",)}],
        {"observed_at": seconds(1), "age_s": 3, "first_observed_at": seconds(-9), "more_sources": ("z",)},
    ),
    "at the same time from the same source": ([{}, {}], {"detections": 2}),
    "the highest confidence": (
        [{"confidence": Decimal("0.3")}, {"confidence": Decimal("0.9")}, {"confidence": Decimal("0.5")}],
        {"confidence": Decimal("0.9"), "detections": 3},
    ),
    "the sum of detections": ([{"detections": 4}, {"detections": 1}, {"detections": 5}], {"detections": 10}),
    "the newest time and the first": (
        [{"at": 5}, {"at": -7}, {"at": 3}],
        {"observed_at": seconds(5), "first_observed_at": seconds(-7), "detections": 3},
    ),
    "the first of one that was folded before": (
        [{"at": 5}, {"at": 3, "first_observed_at": seconds(-60), "detections": 6}],
        {"observed_at": seconds(5), "first_observed_at": seconds(-60), "detections": 7},
    ),
    "the newest's source, and the others in order": (
        [{"at": 1, "source": "b"}, {"at": 2, "source": "c"}, {"source": "d"}, {"source": "a"}, {"source": "c"}],
        {
            "observed_at": seconds(2),
            "source": "c",
            "more_sources": ("a", "b", "d"),
            "first_observed_at": NOW,
            "detections": 5,
        },
    ),
    "of several newest the last source by name": (
        [{"source": "b"}, {"source": "c"}, {"source": "a"}],
        {"source": "c", "more_sources": ("a", "b"), "detections": 3},
    ),
    "the sources of one that was folded before": (
        [{"source": "b"}, {"source": "c", "more_sources": ("b", "x")}],
        {"source": "c", "more_sources": ("b", "x"), "detections": 2},
    ),
    "the age of the freshest": ([{"age_s": 30}, {"age_s": 20}, {"age_s": 40}], {"age_s": 20, "detections": 3}),
    "no age where one has none": ([{"age_s": 30}, {}], {"detections": 2}),
    "all of it during maintenance": (
        [{"maintenance": "w-2", "age_s": 9}, {"maintenance": "w-1", "detections": 4, "age_s": 8}],
        {"maintenance": "w-1", "detections": 5, "age_s": 8},
    ),
    "of what was before the key's last ending the time alone": (
        [{"at": -9, "detections": 0, "age_s": 1}, {"at": -5, "confidence": Decimal("0.5"), "detections": 2, "age_s": 50}],
        {
            "observed_at": seconds(-5),
            "first_observed_at": seconds(-9),
            "confidence": Decimal("0.5"),
            "detections": 2,
            "age_s": 50,
        },
    ),
    "all of it before the key's last ending": ([{"detections": 0}, {"detections": 0}], {"detections": 0}),
}


@pytest.mark.parametrize(("members", "then"), FOLDED.values(), ids=FOLDED.keys())
def test_many_observations_of_a_batch_are_one(members: list[dict[str, Any]], then: dict[str, Any]) -> None:
    batch = [reported(f"r{number}", **fields) for number, fields in enumerate(members)]
    ruling = joining(*batch)
    known: dict[str, Any] = {"kind": FIRING, "source": "monitor", "observed_at": NOW, "confidence": Decimal(1)}
    assert [found.observation for found in attachments(ruling)] == [Observation(**(known | then))]
    assert line(ruling) == E


def test_what_was_seen_during_maintenance_is_an_event_of_its_own_and_adds_nothing_to_the_others() -> None:
    held = controls(maintenance=[("*", NOW + timedelta(seconds=5), NOW + timedelta(seconds=60))])
    batch = [reported("a", at=9, detections=9), reported("b", confidence=Decimal("0.5"), detections=2), reported("c", at=7)]
    ruling = decide_candidates(batch, incident_in(State.OPEN), Gate(POLICIES, held))
    counting, apart = attachments(ruling)
    assert counting.observation is not None
    assert apart.observation is not None
    assert (counting.observation.detections, counting.observation.observed_at) == (2, NOW)
    assert (apart.observation.detections, apart.observation.maintenance) == (10, "w-0")


def test_a_batch_in_any_order_is_decided_the_same() -> None:
    batch = [
        reported("a", at=3, source="x", severity=SEV1),
        reported("b", at=1, by=OTHER, confidence=Decimal("0.9")),
        reported("c", RECOVERY, at=2),
        reported("d", at=1, title="other words"),
    ]
    for holder in (None, incident_in(State.PENDING), incident_in(State.OPEN), incident_in(State.RESOLVED)):
        rulings = [decide_candidates(order, holder, Gate(POLICIES)) for order in permutations(batch)]
        assert all(ruling == rulings[0] for ruling in rulings)


# --- words and evidence -------------------------------------------------------------------------------------------------


def test_different_words_are_kept_each_once_and_in_order_and_the_incidents_own_not_at_all() -> None:
    batch = [
        reported("a", at=1),
        reported("b", at=2, title="carts are empty"),
        reported("c", at=3, description="at the edge", links=(Link(rel="dashboard", href="https://h"),)),
        reported("d", at=4, title="carts are empty"),
        reported("e", at=5, severity=SEV3, tags={"region": "eu"}),
    ]
    (found,) = attachments(joining(*batch))
    assert found.report == Report(title="carts are empty")
    assert found.more_reports == (
        Report(description="at the edge", links=(Link(rel="dashboard", href="https://h"),)),
        Report(severity=SEV3, tags={"region": "eu"}),
    )
    assert (found.severity, found.title) == (SEV2, "5xx above 5 %"), "the summary is the incident's"


def test_one_report_alone_is_a_report_and_none_is_nothing() -> None:
    (found,) = attachments(joining(reported("a"), reported("b", title="carts are empty")))
    assert (found.report, found.more_reports) == (Report(title="carts are empty"), None)
    (silent,) = attachments(joining(reported("a"), reported("b")))
    assert (silent.report, silent.more_reports) == (None, None)


def items(name: str, count: int, note: str | None = None) -> tuple[Evidence, ...]:
    return tuple(Evidence(kind="log", ref=f"{name}-{number}", note=note) for number in range(count))


def test_evidence_stands_in_the_order_of_observation() -> None:
    batch = [
        reported("c", at=1, evidence=items("third", 1)),
        reported("a", at=0, evidence=items("first", 2)),
        reported("b", at=0, evidence=items("second", 1)),
        reported("d", at=2),
    ]
    (found,) = attachments(joining(*batch))
    assert found.evidence is not None
    assert [item.ref for item in found.evidence] == ["first-0", "first-1", "second-0", "third-0"]


def test_policies_other_than_the_incidents_are_named_once_and_a_recoverys_is_not() -> None:
    batch = [reported("a", policy_id="dismissed"), reported("b", policy_id="declared"), reported("c"), reported("d")]
    (found,) = attachments(joining(*batch, reported("e", policy_id="declared")))
    assert found.policies == ("declared", "default", "dismissed"), "the incident's own too, where it is not alone"
    (recovered,) = attachments(joining(reported("a", RECOVERY, policy_id="declared")))
    assert recovered.policies is None


# --- one event for each reporter and kind -------------------------------------------------------------------------------


def test_each_reporter_has_an_event_and_the_latest_observation_stands_last() -> None:
    batch = [
        reported("a", at=5),
        reported("b", at=1, by=OTHER),
        reported("c", at=3, by=OTHER),
        reported("d", at=2, by=HUMAN),
        reported("e", at=4, by=HUMAN),
    ]
    ruling = joining(*batch)
    found = attachments(ruling)
    assert line(ruling) == f"{E} {E} {E}"
    assert [change.actor for change in ruling.decision.changes] == [OTHER, HUMAN, SYSTEM]  # type: ignore[union-attr]
    assert [one.observation.detections for one in found if one.observation] == [2, 2, 1]


@pytest.mark.parametrize(("firing", "recovery", "last"), [(1, 2, RECOVERY), (2, 1, FIRING)])
def test_recovery_and_firing_are_told_apart_and_what_was_seen_last_is_what_was_seen_last(
    firing: float, recovery: float, last: ObservationKind
) -> None:
    given = incident_in(State.OPEN)
    ruling = joining(reported("a", at=firing), reported("b", RECOVERY, at=recovery, severity=SEV1))
    assert line(ruling) == f"{E} {E}", "the severity of a recovery says nothing"
    assert advance(given, INCIDENT_ID, ruling.decision.changes, NOW)[1].metadata.evidence.last_observation is last  # type: ignore[union-attr]


def test_windows_of_a_rule_are_told_apart() -> None:
    def window(number: int) -> Correlation:
        start = NOW + timedelta(hours=number)
        identity = candidate_id("bursts", 1, {"service": "checkout"}, start)
        return Correlation(
            rule_id="bursts",
            rule_version=1,
            rule_digest="d" * 64,
            candidate_id=identity,
            window_start=start,
            window_end=start + timedelta(hours=1),
            detections=3,
        )

    batch = [reported(str(number), at=number, correlation=window(number % 2)) for number in range(4)]
    found = attachments(joining(*batch, reported("x", at=9)))
    assert [one.correlation for one in found] == [window(0), window(1), None]
    assert [one.observation.detections for one in found if one.observation] == [2, 2, 1]


def test_severity_is_raised_once_by_the_worst_and_the_newest_trouble_is_judged() -> None:
    batch = [
        reported("a", at=1, severity=SEV2, by=HUMAN),
        reported("b", at=2, severity=SEV1, by=HUMAN, confidence=Decimal("0.1")),
        reported("c", at=3, severity=SEV3, by=OTHER, confidence=Decimal("0.2")),
        reported("d", RECOVERY, at=4, by=SYSTEM),
    ]
    ruling = joining(*batch, state=State.PENDING, severity=SEV4)
    assert line(ruling) == f"{E} {E} {E} {S} {UP}"
    *_, raised, opened = facts(ruling)
    assert (raised.metadata.severity, opened.metadata.severity) == (SEV1, SEV1)
    *_, shift, _ = ruling.decision.changes  # type: ignore[union-attr]
    assert shift.actor == HUMAN
    seen = opened.metadata.decision.inputs  # type: ignore[union-attr]
    assert (seen.severity, seen.detections, seen.confidence, seen.newest_observed_at) == (SEV1, 4, Decimal(1), seconds(3))
    assert seen.authority_type == OTHER.authority_type


# --- limits -------------------------------------------------------------------------------------------------------------


def settled(batch: list[Reported], state: State | None = State.OPEN) -> list[list[str]]:
    """Decide on a batch until none is left; return who was decided on together."""
    holder, waiting, rounds = incident_in(state) if state else None, batch, []
    while waiting:
        ruling = decide_candidates(waiting, holder, Gate(POLICIES))
        changes = ruling.decision.changes  # type: ignore[union-attr]
        events, holder = advance(holder, INCIDENT_ID, changes, NOW)
        assert all(size_of(event) <= EVENT_BYTES_MAX for event in events)
        rounds.append(names(ruling))
        waiting = [one for one in waiting if one.id not in rounds[-1]]
    assert sorted(name for names in rounds for name in names) == sorted(one.id for one in batch)
    return rounds


def sizes(rounds: list[list[str]]) -> list[int]:
    return [len(names) for names in rounds]


@pytest.mark.parametrize("state", [State.OPEN, State.PENDING, State.RESOLVED, None])
def test_one_transaction_settles_ninety_and_the_rest_follows(state: State | None) -> None:
    batch = [reported(f"r{number:04}", at=-1) for number in range(2 * TOGETHER_MAX + 1)]
    assert sizes(settled(batch, state)) == [TOGETHER_MAX, TOGETHER_MAX, 1]


def test_one_event_holds_a_hundred_pieces_of_evidence() -> None:
    assert sizes(settled([reported(f"r{n}", at=n, evidence=items(str(n), 25)) for n in range(9)])) == [4, 4, 1]
    assert sizes(settled([reported(f"r{n}", at=n, evidence=items(str(n), EVIDENCE_MAX)) for n in range(3)])) == [1, 1, 1]
    by_two = [reported(f"r{n}", at=n, by=(SYSTEM, OTHER)[n % 2], evidence=items(str(n), 50)) for n in range(6)]
    assert sizes(settled(by_two)) == [4, 2], "of each event"


def test_an_event_stays_below_its_limit_however_long_its_parts() -> None:
    wide = "\\" * 256  # two bytes each as JSON
    batch = [
        reported(
            f"r{number:02}",
            at=number,
            source=f"{wide[:-2]}{number:02}",
            title=f"{number:03}{'é' * 500}",
            description="😀" * 1000,
            evidence=items(str(number), 10, note="\\" * 512),
        )
        for number in range(40)
    ]
    rounds = settled(batch)
    assert max(sizes(rounds)) < 5
    usual = [reported(f"r{number:02}", at=number, source="s" * 128) for number in range(TOGETHER_MAX)]
    assert sizes(settled(usual)) == [TOGETHER_MAX], "and usual ones fit all together"


def test_one_that_is_too_large_by_itself_is_decided_on_alone() -> None:
    large = reported("large", evidence=items("x", 95, note="n" * 500))
    assert settled([large, reported("small", at=1)]) == [["large"], ["small"]]


def test_a_transaction_holds_four_folded_events() -> None:
    reporters = [
        AuthorityContext(authority_type=SYSTEM.authority_type, principal="AROAPOOL", actor_id=f"m-{number}")
        for number in range(EVENTS_MAX + 2)
    ]
    batch = [reported(f"r{n:02}", at=n, by=reporters[n % len(reporters)]) for n in range(18)]
    rounds = settled(batch)
    assert sizes(rounds)[0] == EVENTS_MAX, "in order: none overtakes"
    assert rounds[0] == [f"r{n:02}" for n in range(EVENTS_MAX)]


def test_a_transaction_never_has_more_items_than_the_store_takes(rng: random.Random) -> None:
    """A hundred: a receipt each, the events, row, pointer, window and guard."""
    reporters = [SYSTEM, OTHER, HUMAN]
    batch = [
        reported(f"r{n}", (FIRING, RECOVERY)[n % 2], by=reporters[n % 3], severity=SEV1 if n % 5 else SEV4, at=n % 7)
        for n in range(300)
    ]
    for holder in (None, incident_in(State.PENDING, severity=SEV4), incident_in(State.OPEN)):
        waiting = shuffled(batch, rng)
        ruling = decide_candidates(waiting, holder, Gate(POLICIES))
        while line(ruling) == "NOTHING_OPEN":
            waiting = [one for one in waiting if one not in ruling.about]
            ruling = decide_candidates(waiting, holder, Gate(POLICIES))
        assert len(ruling.about) + len(facts(ruling)) + 4 <= 100


# --- beginning together -------------------------------------------------------------------------------------------------


def test_what_begins_together_is_begun_by_the_most_severe_and_of_these_the_earliest() -> None:
    batch = [
        reported("a", at=0, severity=SEV3),
        reported("b", at=3, severity=SEV1, title="later"),
        reported("c", at=2, severity=SEV1, title="first"),
        reported("d", at=1, severity=SEV2),
    ]
    ruling = decide_candidates(batch, None, Gate(POLICIES))
    assert line(ruling) == f"IncidentCreated {E} {UP} #1"
    created = facts(ruling)[0]
    assert isinstance(created, IncidentCreated)
    assert (created.metadata.title, created.metadata.severity) == ("first", SEV1)
    assert names(ruling)[0] == "c", "the first is the one that is told that it began"
    assert sorted(names(ruling)) == ["a", "b", "c", "d"]
    (found,) = attachments(ruling)
    assert found.observation is not None
    assert found.observation.detections == 3


def test_what_begins_together_is_judged_together() -> None:
    unsure = [reported(str(n), at=n, confidence=Decimal("0.1")) for n in range(3)]
    assert line(decide_candidates(unsure, None, Gate(POLICIES))) == f"IncidentCreated {E} {P} #1"
    sure = [*unsure, reported("sure", at=9)]
    ruling = decide_candidates(sure, None, Gate(POLICIES))
    assert line(ruling) == f"IncidentCreated {E} {UP} #1"
    seen = facts(ruling)[-1].metadata.decision.inputs  # type: ignore[union-attr]
    assert (seen.detections, seen.newest_observed_at, seen.confidence) == (4, seconds(9), Decimal(1))


def test_the_gate_sees_what_the_fold_of_its_events_adds_up_to(rng: random.Random) -> None:
    """Whatever the batch: the inputs of a decision are the accumulation of the row it is stored with."""
    window = controls(maintenance=[("checkout", seconds(2), seconds(4))])
    for _ in range(200):
        batch = [
            reported(
                f"r{n}",
                rng.choice((FIRING, FIRING, RECOVERY, DECLARATION)),
                at=rng.randrange(6),
                by=rng.choice((SYSTEM, OTHER, HUMAN)),
                confidence=Decimal(rng.randrange(8)) / 10,
                severity=rng.choice((SEV3, SEV4)),
                age_s=rng.choice((None, 5, 50)),
                policy_id=rng.choice(("default", "dismissed")),
            )
            for n in range(rng.randrange(1, 8))
        ]
        key = Key(rng.choice((None, incident_in(State.PENDING, severity=SEV4))), Gate(POLICIES, window))
        for one in [batch] if rng.random() < 0.5 else [[item] for item in batch]:
            ruling = decide_candidates(one, key.holder, key.gate)
            key.take(*one)
            last = facts(ruling)[-1].metadata if line(ruling).endswith((P, f"{P} #1")) else None
            if last is not None and len(ruling.about) == len(one) and key.holder is not None:
                seen, row = last.decision.inputs, key.holder.metadata.promotion  # type: ignore[union-attr]
                assert (seen.confidence, seen.detections) == (row.confidence, row.detections)
                assert (seen.newest_observed_at, seen.age_s) == (row.newest_observed_at, row.age_s)
                assert seen.maintenance == (row.maintenance if row.detections == 0 else None)
