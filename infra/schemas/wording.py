"""What schemas and OpenAPI document say in words, and their examples. Facts are not here: those come from the code."""

from typing import Any, Final

ABOUT: Final = """\
Declare incidents, read them, and take them through their states. Every request is signed (SigV4, service `execute-api`);
who may do what is said by the authority registry of the deployment.

**Retries.** Send an `Idempotency-Key` with every write, and the same one with every retry: the first answer comes again,
with `Idempotent-Replayed: true`. Retry 429, 500, 503, 504 and broken connections, and no other 4xx.

**Versions.** `ETag` of an incident is its `controlVersion`. Sent as `If-Match`, a write is refused with 412 where somebody
else was faster. Evidence, notes and links do not change it.

**Refusals** are problem documents (RFC 9457): match on `code`, which is stable; `next` says what to do.

**Sizes.** A body has at most 256 KB, and is nested at most 16 deep. Numbers: |n| ≤ 2^53-1. Unknown fields and query
parameters are refused. Readers must ignore fields they do not know.

In a body, `type`, `incidentId`, `idempotencyKey` and `expectedVersion` of the same command on the queue may stand as well,
if they say what path and headers say.
"""

# Of fields that senders write, and of those that carry a unit.
FIELDS: Final = {
    "type": "Which command or message it is.",
    "schemaVersion": "The version of this form; 1 is the only one.",
    "idempotencyKey": "The sender's own key of this request: the same with every retry, another for every request.",
    "incidentId": "The incident's id.",
    "expectedVersion": "The `controlVersion` that the incident must have; refused as stale otherwise.",
    "authority": "Under which authority this is asked; the registry must allow it. Absent: the sender's only one.",
    "authorityType": "HUMAN or SYSTEM.",
    "actorId": "Who acts, where the sender may speak for others. Absent: the signer.",
    "justification": "Why; counts as the reason.",
    "reason": "Why; needed to resolve, close, cancel, dismiss, and to ask for promotion. At most 2048 characters.",
    "service": "The service in trouble, as the deployment names its services. At most 256 characters.",
    "severity": "How bad it is.",
    "title": "What is wrong, in one line of at most 512 characters.",
    "description": "More about it; at most 4096 characters.",
    "dedupKey": "What makes two reports the same trouble: an open incident of the service and this key is joined.",
    "evidence": "What shows it; at most 100 at once.",
    "links": "Where to look further; at most 20.",
    "metadata": "Data of the sender's own.",
    "newState": "The state to go to; it must be one of the incident's allowed transitions.",
    "note": "What there is to say.",
    "relation": "How the incident belongs to the target.",
    "target": "The id of the other incident; not looked up.",
    "kind": "What sort of thing it is.",
    "ref": "Where it is to be found, such as a link or an id.",
    "rel": "What the link is to the incident, such as runbook or dashboard.",
    "href": "An http or https link of at most 2048 characters.",
    "observedAt": "When it was seen.",
    "confidence": "How sure the sender is.",
    "source": "Who saw it. Absent: the signed principal.",
    "policyId": "Which promotion policy judges it. Absent: the default one.",
    "signalType": "What sort of observation it is; rules match on it.",
    "resource": "What exactly was observed.",
    "attributes": "What rules match and group by, beside the named fields.",
    "ageS": "In seconds.",
}

PARAMETERS: Final = {
    "state": "Only incidents in this state.",
    "service": "Only incidents of this service.",
    "severity": "Only incidents of this severity.",
    "from": "Only incidents created at this time or later.",
    "to": "Only incidents created before this time.",
    "limit": "The most that one answer holds. It may hold fewer and yet have a `nextCursor`.",
    "cursor": "`nextCursor` of the answer before, with the same filters; its absence there is the end.",
    "version": "The incident as it was after its event of this sequence. Not together with `at`.",
    "at": "The incident as it was at this time, which is past. Not together with `version`.",
    "after": "Only events behind this sequence. Not together with `cursor`.",
    "principal": "Whose receipt it is, where that is not the sender; needs the operation `audit`.",
    "dryRun": "Only tell what it would do: the events or the refusal. Nothing is written.",
    "id": "The incident's id.",
    "key": "The idempotency key of a command, or the id of a queue message that had none.",
    "Idempotency-Key": "A key of the sender's own, kept for ever: the same with every retry, another for every request.",
    "If-Match": "The ETag that the incident must still have, or `*`. Without an Idempotency-Key it makes a retry safe, too.",
}

HEADERS: Final = {
    "Opx-Request-Id": "The request's id, as it stands in the logs.",
    "ETag": "The incident's `controlVersion`, in quotes: send it as If-Match.",
    "Location": "The incident, relative to this request's address.",
    "Idempotent-Replayed": "This is the first answer to the same request, again.",
    "Retry-After": "After how many seconds to send the same request again.",
}

STATUSES: Final = {
    200: "Done.",
    201: "A new incident.",
    400: "The request is malformed; `field` names where.",
    403: "Not signed as needed, or not granted.",
    404: "There is no such thing.",
    409: "The incident's state does not allow it.",
    412: "The incident has changed: If-Match is stale.",
    413: "The body is larger than the gateway takes.",
    422: "The key stands for another request.",
    429: "Too many requests at once.",
    500: "A defect, or storage that contradicts itself.",
    503: "Something that this needs does not answer: the write may have taken effect, the same key makes sure.",
    504: "The gateway got no answer in time: the write may have taken effect, the same key makes sure.",
}

INCIDENT_ID: Final = "5f0c1a52-6f6c-5f0e-9c7a-0d9d3a1f7b11"
OTHER_ID: Final = "0b7b9d2e-3a4f-5b6c-8d7e-9f0a1b2c3d4e"

# What a sender may send as it stands, by the route's name.
BODIES: Final[dict[str, dict[str, Any]]] = {
    "declare": {
        "service": "checkout",
        "severity": "SEV2",
        "title": "Carts are empty",
        "description": "Every cart shows no items since the last deployment.",
        "authority": "HUMAN",
        "dedupKey": "carts-empty",
        "links": [{"rel": "runbook", "href": "https://runbooks.example.com/carts"}],
    },
    "changeState": {"newState": "RESOLVED", "authority": "HUMAN", "reason": "Rolled back; carts are full again."},
    "attachEvidence": {
        "evidence": [{"kind": "dashboard", "ref": "https://graphs.example.com/d/7", "observedAt": "2026-01-31T03:00:00Z"}]
    },
    "addNote": {"note": "The payment provider has confirmed the outage."},
    "changeSeverity": {"severity": "SEV1", "reason": "All regions are affected."},
    "requestPromotion": {"reason": "Customers are calling."},
    "dismiss": {"reason": "A load test."},
    "linkIncident": {"relation": "caused-by", "target": OTHER_ID},
}
