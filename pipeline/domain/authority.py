"""The authority gate: who is speaking, and what may they do. Proven by the signature, never by the body.

A registry (a versioned data file) maps signed principals to what they may use. Whatever it does not name is refused, and a
registry that holds anything unknown is not read at all. Who may take which *transition* is not here: see `transitions`.

HUMAN is believed only where the entry says where the person's name stands, and it stands there:

- `sessionIsPerson`: in the signed session name (single sign-on). Whoever may assume a role chooses that name, so the role's
  trust policy must pin it; single sign-on does.
- `principalIsPerson`: in the signer itself, which then has no session: one person's IAM user, or the local engine's account.
- `assertsForOthers`: in the body's actorId, said by a principal that is trusted to say so; both are stored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

from pipeline.domain.base import LINE, Line, Model, Reason, SchemaVersion, Service, Slug, any_covers, read
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.transitions import AuthorityType

# What can be asked for; a registry that grants anything else is refused. Detections and native alarms are `candidate`, too.
COMMAND_OPERATIONS: Final = frozenset(
    {
        "declare",
        "change-state",
        "attach-evidence",
        "change-severity",
        "add-note",
        "request-promotion",
        "dismiss",
        "link",
    }
)
CANDIDATE_OPERATION: Final = "candidate"
REDRIVE_OPERATION: Final = "redrive"
AUDIT_OPERATION: Final = "audit"
# Incidents and their events, by the HTTP API.
READ_OPERATION: Final = "read"
OPERATIONS: Final = COMMAND_OPERATIONS | {CANDIDATE_OPERATION, REDRIVE_OPERATION, AUDIT_OPERATION, READ_OPERATION}

UNIQUE_ID: Final = re.compile(r"A(?:ROA|IDA)[A-Z0-9]+")
ACCOUNT: Final = re.compile(r"[0-9]{12}")
_BOUND: Final = re.compile(r"\$[A-Za-z][A-Za-z0-9]*")
_QUEUE: Final = re.compile(r"queue:[A-Za-z0-9][A-Za-z0-9_-]*")
# As signers show themselves: a role only by one of its sessions, and without its path.
_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:(?:iam::[0-9]{12}:(?:root|user/[^:\s]+)"
    r"|sts::[0-9]{12}:(?:assumed-role/[^:/\s]+/[^:/\s]+|federated-user/[^:/\s]+))"
)


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

    @property
    def signed_id(self) -> str:
        """The identity as it was signed: unique id and session."""
        named = self.session is None or self.principal.endswith(f":{self.session}")
        return self.principal if named else f"{self.principal}:{self.session}"


def sender_from_id(sender_id: str, arn: str | None = None) -> Sender:
    """Split SQS's SenderId or API Gateway's caller at its first colon: unique id, then session name. Takes any text."""
    principal, _, session = sender_id.partition(":")
    # Federated users sign as their account with a name of their broker's: each is a principal, or they would share receipts.
    return Sender(sender_id if session and ACCOUNT.fullmatch(principal) else principal, session or None, arn)


def sender_from_identity(identity: Mapping[str, Any]) -> Sender:
    """Return the signer of a REST request (API Gateway's `requestContext.identity` under AWS_IAM), as SQS would name it.

    Beside the unique id this door knows the signer's ARN. Raises `Rejected` where nothing was signed.
    """
    return identified(signer_of(identity))


def signer_of(identity: Mapping[str, Any]) -> Sender:
    """Return whoever `sender_from_identity` would, also where nothing was signed: not to be acted for unchecked."""
    caller, arn = identity.get("caller"), identity.get("userArn")
    return sender_from_id(caller if isinstance(caller, str) else "", arn if isinstance(arn, str) else None)


def identified(sender: Sender) -> Sender:
    """Return `sender`; raise `Rejected` where its identity is none: empty, without unique id, or not printable."""
    try:
        for name in (sender.principal, sender.session or sender.principal):
            read(LINE, name)
    except Rejected:
        detail = f"The signed identity {sender.signed_id[:200]!a} names nobody."
        raise Rejected(Refusal(Code.PRINCIPAL_UNKNOWN, detail)) from None
    return sender


def _principal(text: str) -> str:
    if any(form.fullmatch(text) for form in (UNIQUE_ID, ACCOUNT, _BOUND, _QUEUE)):
        return text
    if text.startswith("arn:"):
        return _arn_pattern(text)
    if text.startswith(("AKIA", "ASIA")):
        raise ValueError("an access key is no principal: `aws sts get-caller-identity` shows the unique id (UserId)")
    if text.startswith(("AROA", "AIDA")) and ":" in text:
        raise ValueError("a principal is the unique id without its session: leave out the colon and what follows")
    raise ValueError("a principal is a unique id (AROA…, AIDA…), an account id, queue:NAME or an ARN pattern")


def _arn_pattern(text: str) -> str:
    parts = text.split(":", 5)
    if len(parts) < 6 or not ACCOUNT.fullmatch(parts[4]):
        raise ValueError("an ARN pattern names its account in full")
    if parts[2] == "iam" and parts[5].startswith("role/"):
        raise ValueError(
            "a role signs as arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION; better name its unique id: opx authority add"
        )
    if not _ARN.fullmatch(text):
        raise ValueError(
            "an ARN pattern is one of iam root, iam user/NAME, sts assumed-role/NAME/SESSION, sts federated-user/NAME"
        )
    return text


def _operation(text: str) -> str:
    if text not in OPERATIONS:
        raise ValueError(f"{text[:40]!a} is no operation; there are {', '.join(sorted(OPERATIONS))}")
    return text


Principal = Annotated[Line, AfterValidator(_principal)]
Operation = Annotated[str, AfterValidator(_operation)]


class Entry(Model):
    """One grant: these principals may use these authority types for these operations on these services.

    Without `stages` it holds on every stage. An account id means that account's root, never all who are in it.
    """

    id: Slug
    stages: Annotated[tuple[Slug, ...], Field(min_length=1)] = ()
    principals: Annotated[tuple[Principal, ...], Field(min_length=1)]
    authority_types: Annotated[tuple[Annotated[AuthorityType, Field(strict=False)], ...], Field(min_length=1)]
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)]
    services: Annotated[tuple[Service, ...], Field(min_length=1)]
    asserts_for_others: bool = False
    session_is_person: bool = False
    principal_is_person: bool = False
    speaks_for_senders: bool = False
    note: str = ""

    def holds_on(self, stage: str) -> bool:
        return not self.stages or stage in self.stages

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        somebody = self.session_is_person or self.principal_is_person or self.asserts_for_others
        if AuthorityType.HUMAN in self.authority_types and not somebody:
            raise ValueError(
                "HUMAN needs to know where the person's name stands: sessionIsPerson, principalIsPerson or assertsForOthers"
            )
        if self.principal_is_person and any(name.startswith(("AROA", "queue:", "$")) for name in self.principals):
            raise ValueError("principalIsPerson is for users and accounts: of a role only the session can be a person")
        sessionless = any(re.match(r"AIDA|queue:|[0-9]|arn:[^:]*:iam:", name) for name in self.principals)
        if self.session_is_person and sessionless:
            raise ValueError("sessionIsPerson is for roles: a user or account has no session, say principalIsPerson")
        if AUDIT_OPERATION in self.operations and self.services != ("*",):
            raise ValueError('audit is of receipts, which have no service: it goes with services ["*"] alone')
        # Whoever speaks for senders can be anybody, so it must be a role of the stack itself, known only once deployed.
        own = all(name.startswith("$") for name in self.principals) and self.operations == (REDRIVE_OPERATION,)
        if self.speaks_for_senders and not own:
            raise ValueError("speaksForSenders is for the stack's own redrive role and the operation redrive alone")
        return self


class RegistryFile(Model):
    """The registry as written; `principals` may hold `$name`, bound to an id at deploy time."""

    version: SchemaVersion
    entries: tuple[Entry, ...]

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        ids = [entry.id for entry in self.entries]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"two entries have the id {twice[0]!a}")
        return self

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == name), None)


_REGISTRY: Final = TypeAdapter(RegistryFile)


def read_registry(document: Document) -> RegistryFile:
    """Return the registry as written; raise `Rejected` naming what is wrong in it."""
    return read(_REGISTRY, document)


@dataclass(frozen=True, slots=True)
class Registry:
    """The grants in force on one stage."""

    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, document: Document, stage: str, bindings: Mapping[str, str]) -> "Registry":
        """Keep the entries of `stage`, with `$name` principals bound; an unbound one matches nobody."""
        kept = []
        for entry in read_registry(document).entries:
            if not entry.holds_on(stage):
                continue
            bound = tuple(bindings.get(name[1:], "") if name.startswith("$") else name for name in entry.principals)
            principals = tuple(name for name in bound if name)
            if principals:
                kept.append(entry.model_copy(update={"principals": principals}))
        return cls(tuple(kept))

    def of(self, sender: Sender) -> tuple[Entry, ...]:
        """Return every entry that names this sender, by unique id or by ARN pattern."""
        return tuple(entry for entry in self.entries if entry_names(entry, sender))

    def believes(self, sender: Sender) -> bool:
        """True where this sender may redeliver another's message under that other's identity (the redrive role)."""
        return any(entry.speaks_for_senders for entry in self.of(sender))


def entry_names(entry: Entry, sender: Sender) -> bool:
    """True where one of the entry's principals is this sender."""
    return any(_names(name, sender) for name in entry.principals)


def _names(pattern: str, sender: Sender) -> bool:
    if pattern.startswith("arn:"):
        return sender.arn is not None and _arn(pattern).fullmatch(sender.arn) is not None
    # A federated user signs as ACCOUNT:NAME, with a name that its broker chose: that is not the account.
    if sender.session is not None and ACCOUNT.fullmatch(pattern):
        return False
    return pattern == sender.principal


@lru_cache(maxsize=256)
def _arn(pattern: str) -> re.Pattern[str]:
    """In an ARN a star crosses neither `:` nor `/`."""
    return re.compile("[^:/]*".join(re.escape(part) for part in pattern.split("*")))


def covers_service(entry: Entry, service: str) -> bool:
    """True where the entry grants something on this service."""
    return any_covers(entry.services, service)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sender may act under, and the entry that says so."""

    context: AuthorityContext
    entry: Entry


def authorize(
    registry: Registry, sender: Sender, claim: Claim | None, operation: str, service: str | None
) -> AuthorityContext | Refusal:
    """Return the authority under which `sender` acts, or why it may not.

    `service` None asks about the operation alone, before an incident is read; ask again once its service is known.
    Without a claim the sender's only authority type is meant; with several, the claim is required.
    """
    found = grant(registry, sender, claim, operation, service)
    return found.context if isinstance(found, Grant) else found


def granting(registry: Registry, sender: Sender, operation: str, service: str | None) -> tuple[Entry, ...] | Refusal:
    """Return the entries that let `sender` do this at all, under whichever authority; or why none does."""
    entries = known(registry, sender)
    if isinstance(entries, Refusal):
        return entries
    entries = tuple(
        entry for entry in entries if operation in entry.operations and (service is None or covers_service(entry, service))
    )
    if not entries:
        # Not by name: it may be an incident's, of which this sender is to learn nothing.
        on = " on this service" if service is not None else ""
        return Refusal(Code.OPERATION_NOT_GRANTED, f"The registry does not grant {operation}{on}.")
    return entries


def known(registry: Registry, sender: Sender) -> tuple[Entry, ...] | Refusal:
    """Return the entries that name `sender`, or the refusal of a stranger."""
    entries = registry.of(sender)
    return entries or Refusal(Code.PRINCIPAL_UNKNOWN, f"The principal {sender.principal!a} is not in the registry.")


def grant(registry: Registry, sender: Sender, claim: Claim | None, operation: str, service: str | None) -> Grant | Refusal:
    """Return what `authorize` does, with the entry that decides: the first one that allows all that was asked."""
    entries = granting(registry, sender, operation, service)
    if isinstance(entries, Refusal):
        return entries
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
    another = claim.actor_id if claim.actor_id not in (None, own, sender.principal, sender.signed_id) else None
    deciding = next((entry for entry in entries if _allows(entry, sender, authority_type, another)), None)
    if deciding is None and another is not None:
        return Refusal(Code.ACTOR_NOT_ASSERTABLE, "The actorId is not the signer's own.", "authority.actorId")
    if deciding is None:
        return Refusal(Code.AUTHORITY_NOT_GRANTED, _nobody(entries, sender), "authority")
    context = AuthorityContext(
        authority_type=authority_type,
        principal=sender.principal,
        actor_id=another or own,
        asserted_by=own if another is not None else None,
        justification=claim.justification,
    )
    return Grant(context, deciding)


def _allows(entry: Entry, sender: Sender, authority_type: AuthorityType, another: str | None) -> bool:
    if another is not None:
        return entry.asserts_for_others
    if authority_type is AuthorityType.SYSTEM:
        return True
    return entry.session_is_person if sender.session is not None else entry.principal_is_person


def _nobody(entries: tuple[Entry, ...], sender: Sender) -> str:
    if any(entry.asserts_for_others for entry in entries):
        return "HUMAN means a person, and none is named: say who acts in authority.actorId."
    where, flag = ("session name", "sessionIsPerson") if sender.session is not None else ("principal", "principalIsPerson")
    return f"HUMAN means a person, and no entry says that this {where} is one: claim SYSTEM, or have {flag} set."
