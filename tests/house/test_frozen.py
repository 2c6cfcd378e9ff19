"""What is frozen: the state machine, the core schemas, the names of events, and every released policy file."""

import pytest

from pipeline.domain.canonical import digest, parse_document
from pipeline.domain.transitions import EventType
from tests.house.frozen import SCHEMAS, schema_digest, transitions_digest
from tests.support.histories import POLICY_FILES

REVIEW = (
    "{what} has changed. It is frozen: every stored history was made under it. An architectural review is required: "
    "record the decision in ARCHITECTURE.md's decision log, see that old events are still read (a golden file, "
    "`upcast`), and only then write the new digest here: {found}"
)

TRANSITIONS_DIGEST = "e237fd7f0e395a2fe026649d15e8eb6b9bf0998d5137dbdf3982440b7848f439"
SCHEMA_DIGESTS = {
    "Incident": "9b676f592496413dc19b1195d08958a71a60fbfb1632fd30cbec3e1554211633",
    "IncidentEvent": "ddd4cd1a4792ffdb6700b7cb9e97a571db27338cdde1e58c76ca02c5d7eb98e8",
    "facts": "79a7ca2d90448ea60b70c189be2bf1cf0a705a5fe1098e07c8f8f63232676a35",
    "IdempotencyRecord": "1d3bc9c150f9e8268e2cccf5a5e7acd0a1c6892a76a89271c4214f28971a0db3",
    "AuthorityContext": "e1bd1b48f77bcf1a22e217ecc5dd833c8f802c3c92fe26000cdfab2d641d4156",
}
EVENT_TYPES = [
    "IncidentCreated",
    "PromotionDecided",
    "IncidentOpened",
    "MitigationStarted",
    "IncidentResolved",
    "IncidentClosed",
    "IncidentCancelled",
    "IncidentArchived",
    "EvidenceAttached",
    "SeverityChanged",
    "NoteAdded",
    "IncidentLinked",
]
# A released policy is never changed and never removed; a new version is a new file and a new line.
POLICY_DIGESTS = {
    "declared.v1.json": "880bc0620aa09f18a2df78acf32b35ef0132060c403fab2db4a0de0852d9603e",
    "default.v1.json": "2e002157e911990c4c7ffbc49863529004312938f1c1b52b02d656d3bf7bb0cb",
    "default.v2.json": "93f0b271293d75aa678ef72601958b5ad4cba6bffa5afa32f1aec4429c478a28",
    "dismissed.v1.json": "3e3f5be3a3dee4594893d7a5fac3f6a796fa4f1e5a4aeefa3ff1bd87e4ea4051",
    "dismissed.v2.json": "19e86636bb1e1e1544ccab444558a785fe7fd400590ea08acd90740ae2925588",
}


def test_the_state_machine_is_the_reviewed_one() -> None:
    found = transitions_digest()
    assert found == TRANSITIONS_DIGEST, REVIEW.format(what="The state machine (pipeline/domain/transitions.py)", found=found)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_core_schema_is_the_reviewed_one(name: str) -> None:
    found = schema_digest(name)
    assert found == SCHEMA_DIGESTS[name], REVIEW.format(what=f"The schema {name}", found=found)


def test_event_types_keep_their_names_and_their_order() -> None:
    found = [kind.value for kind in EventType]
    assert found == EVENT_TYPES, REVIEW.format(what="The list of event types", found=found)


def test_a_released_policy_file_is_never_changed_or_removed() -> None:
    found = {path.name: digest(parse_document(path.read_bytes())) for path in POLICY_FILES}
    assert found == POLICY_DIGESTS, (
        "A released policy file was changed or removed, or a new one is not listed. Recorded decisions name the digest of "
        "their policy and must recompute for ever: restore the file and release a new version beside it."
    )


def test_the_message_of_a_broken_freeze_asks_for_a_review() -> None:
    assert "architectural review is required" in REVIEW.format(what="x", found="y")
