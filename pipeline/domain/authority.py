"""The authority gate: who is speaking, and what may they do. Proven by the signature, never by the body.

A registry (a versioned data file) maps signed principals to what they may use. Whatever it does not name is refused.
Who may take which *transition* is not here: see `transitions`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from pipeline.domain.base import Line, Model, Reason, SchemaVersion, Service, Slug, read
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.transitions import AuthorityType


class AuthorityContext(Model):
    """Who did it, under which authority: stored with every event. `assertedBy` is set where another spoke for the actor."""

    authority_type: Annotated[AuthorityType, Field(strict=False)]
    principal: Line
    actor_id: Line
    asserted_by: Line | None = None
    justification: Reason | None = None


class Claim(Model):
    """What a body says of its authority; only a claim, which the registry must allow. `"HUMAN"` is short for the object."""

    authority_type: Annotated[AuthorityType, Field(strict=False)] | None = None
    actor_id: Line | None = None
    justification: Reason | None = None


def _claim(value: Any) -> Any:
    return {"authorityType": value} if isinstance(value, str) else value


AuthorityClaim = Annotated[Claim, BeforeValidator(_claim)]


@dataclass(frozen=True, slots=True)
class Sender:
    """The signed identity of a message or request: the unique id without its session, and what else the door knows.

    `principal` is `AROA…`, `AIDA…`, an account id, or `queue:NAME` where the queue's own policy is the proof of origin.
    """

    principal: str
    session: str | None = None
    arn: str | None = None


def sender_from_id(sender_id: str, arn: str | None = None) -> Sender:
    """Split SQS's SenderId or API Gateway's caller at its colon: unique id, then session name."""
    principal, _, session = sender_id.partition(":")
    return Sender(principal, session or None, arn)


def _pinned(principal: str) -> str:
    if principal.startswith("arn:") and not re.fullmatch(r"[0-9]{12}", (principal.split(":") + [""] * 5)[4]):
        raise ValueError("an ARN pattern names its account in full")
    return principal


Principal = Annotated[Line, AfterValidator(_pinned)]


class Entry(Model):
    """One grant: these principals may use these authority types for these operations on these services."""

    id: Slug
    stages: tuple[Slug, ...] = ()
    principals: Annotated[tuple[Principal, ...], Field(min_length=1)]
    authority_types: Annotated[tuple[Annotated[AuthorityType, Field(strict=False)], ...], Field(min_length=1)]
    operations: Annotated[tuple[Line, ...], Field(min_length=1)]
    services: Annotated[tuple[Service, ...], Field(min_length=1)]
    asserts_for_others: bool = False
    session_is_person: bool = False
    speaks_for_senders: bool = False
    note: str = ""


class RegistryFile(Model):
    """The registry as written; `principals` may hold `$name`, bound to an id at deploy time."""

    version: SchemaVersion
    entries: tuple[Entry, ...]


_REGISTRY: Final = TypeAdapter(RegistryFile)


@dataclass(frozen=True, slots=True)
class Registry:
    """The grants in force on one stage."""

    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, document: Document, stage: str, bindings: dict[str, str]) -> "Registry":
        """Keep the entries of `stage`, with `$name` principals bound; an unbound one matches nobody."""
        kept = []
        for entry in read(_REGISTRY, document).entries:
            if entry.stages and stage not in entry.stages:
                continue
            bound = tuple(bindings.get(name[1:], "") if name.startswith("$") else name for name in entry.principals)
            principals = tuple(name for name in bound if name)
            if principals:
                kept.append(entry.model_copy(update={"principals": principals}))
        return cls(tuple(kept))

    def of(self, sender: Sender) -> tuple[Entry, ...]:
        """Return every entry that names this sender, by unique id or by ARN pattern."""
        return tuple(entry for entry in self.entries if any(_names(name, sender) for name in entry.principals))

    def believes(self, sender: Sender) -> bool:
        """True where this sender may redeliver another's message under that other's identity (the redrive role)."""
        return any(entry.speaks_for_senders for entry in self.of(sender))


def _names(pattern: str, sender: Sender) -> bool:
    if pattern.startswith("arn:"):
        return sender.arn is not None and _glob(pattern, ":/").fullmatch(sender.arn) is not None
    return pattern == sender.principal


@lru_cache(maxsize=256)
def _glob(pattern: str, stops: str) -> re.Pattern[str]:
    star = f"[^{re.escape(stops)}]*" if stops else ".*"
    return re.compile(star.join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


def _covers(patterns: tuple[str, ...], value: str) -> bool:
    return any(_glob(pattern, "").fullmatch(value) for pattern in patterns)


def authorize(
    registry: Registry, sender: Sender, claim: Claim | None, operation: str, service: str | None
) -> AuthorityContext | Refusal:
    """Return the authority under which `sender` acts, or why it may not.

    `service` None asks about the operation alone, before an incident is read; ask again once its service is known.
    Without a claim the sender's only authority type is meant; with several, the claim is required.
    """
    entries = registry.of(sender)
    if not entries:
        return Refusal(Code.PRINCIPAL_UNKNOWN, f"The principal {sender.principal!a} is not in the registry.")
    entries = tuple(
        entry
        for entry in entries
        if _covers(entry.operations, operation) and (service is None or _covers(entry.services, service))
    )
    if not entries:
        on = f" on service {ascii(service)[:80]}" if service is not None else ""
        return Refusal(Code.OPERATION_NOT_GRANTED, f"The registry does not grant {operation}{on}.")
    claim = claim or Claim()
    granted = {kind for entry in entries for kind in entry.authority_types}
    if claim.authority_type is None and len(granted) > 1:
        return Refusal(Code.AUTHORITY_UNCLEAR, "No authority is claimed.", "authority")
    authority_type = claim.authority_type or next(iter(granted))
    entries = tuple(entry for entry in entries if authority_type in entry.authority_types)
    if not entries:
        return Refusal(
            Code.AUTHORITY_NOT_GRANTED, f"{authority_type} is claimed, but not granted for {operation}.", "authority"
        )
    own = sender.session or sender.principal
    asserted = claim.actor_id is not None and claim.actor_id != own
    if asserted and not any(entry.asserts_for_others for entry in entries):
        return Refusal(Code.ACTOR_NOT_ASSERTABLE, "The actorId is not the signer's own.", "authority.actorId")
    return AuthorityContext(
        authority_type=authority_type,
        principal=sender.principal,
        actor_id=claim.actor_id if asserted and claim.actor_id else own,
        asserted_by=own if asserted else None,
        justification=claim.justification,
    )
