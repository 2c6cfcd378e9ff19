"""What `opx authority check` answers: yes or no, which entry decides, and what exactly to change. Pure: asks nobody.

The answer is `domain.authority`'s own; here it is only put into words.
"""

import shlex
from dataclasses import dataclass, replace
from typing import Final

from pipeline.domain.authority import (
    ACCOUNT,
    UNIQUE_ID,
    Claim,
    Entry,
    Grant,
    Registry,
    Sender,
    covers_service,
    entry_names,
    grant,
    read_registry,
    sender_from_id,
)
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.transitions import AuthorityType

# Stands for whatever a role's session will be called.
ANY_SESSION: Final = "<session>"
QUEUES, API = "queues", "api"


@dataclass(frozen=True, slots=True)
class Question:
    """May `signer` do this on that stage? `signer` is as the person wrote it."""

    signer: str
    operation: str
    stage: str
    service: str | None = None
    claim: Claim | None = None

    @property
    def sender(self) -> Sender:
        return sender_of(self.signer)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `doors`: where it holds. `change`: what to do where it is no. `remarks`: what else to know."""

    found: Grant | Refusal
    doors: tuple[str, ...] = ()
    change: str = ""
    remarks: tuple[str, ...] = ()


def sender_of(text: str) -> Sender:
    """Return who signs: from a unique id (with or without session), an ARN, queue:NAME, or a `$name` of the registry.

    A role always signs with some session. An ARN tells no unique id, but for root, whose id is the account's.
    """
    if text.startswith("arn:"):
        return _sender_of_arn(text)
    if text.startswith("queue:"):
        return Sender(text)
    sender = sender_from_id(text)
    has_session = sender.session is not None or not text.startswith(("AROA", "$"))
    return sender if has_session else replace(sender, session=ANY_SESSION)


def _sender_of_arn(text: str) -> Sender:
    parts = (text.split(":", 5) + [""] * 6)[:6]
    kind, _, rest = parts[5].partition("/")
    if kind == "role":
        name = rest.rpartition("/")[2]
        signed = f"{parts[0]}:{parts[1]}:sts::{parts[4]}:assumed-role/{name}/{ANY_SESSION}"
        return Sender(text, ANY_SESSION, signed)
    if kind in ("assumed-role", "federated-user"):
        return Sender(text, rest.rpartition("/")[2], text)
    return Sender(parts[4] if kind == "root" else text, None, text)


def judge(document: Document, question: Question) -> Verdict:
    """Answer a question from a registry's document."""
    sender = question.sender
    # Asked for by its name in the registry, a role of the stack is taken as bound.
    bindings = {question.signer[1:]: question.signer} if question.signer.startswith("$") else {}
    registry = Registry.load(document, question.stage, bindings)
    found = grant(registry, sender, question.claim, question.operation, question.service)
    if isinstance(found, Refusal):
        return Verdict(found, (), _change(question, found, document, registry.of(sender)), _unseen(registry, sender))
    by_id = entry_names(found.entry, replace(sender, arn=None))
    if by_id:
        doors = (QUEUES,) if question.signer.startswith("queue:") else (QUEUES, API)
        return Verdict(found, doors, remarks=_remarks(found, question))
    only = (
        "Only at the API: SQS tells no ARN of a sender, so an ARN pattern never matches on the queues. For those name the "
        "unique id: opx authority add."
    )
    again = "A role or user that is deleted and made again under the same name matches the pattern, too."
    return Verdict(found, (API,), remarks=(only, again, *_remarks(found, question)))


def _remarks(found: Grant, question: Question) -> tuple[str, ...]:
    services = () if question.service is not None else (f"On these services: {', '.join(found.entry.services)}.",)
    named = ("Its session's name is taken as the person's.",)
    human = found.context.authority_type is AuthorityType.HUMAN and found.context.asserted_by is None
    return services + (named if human and found.entry.session_is_person else ())


def _unseen(registry: Registry, sender: Sender) -> tuple[str, ...]:
    if sender.arn is not None:
        ids = [entry.id for entry in registry.entries if any(UNIQUE_ID.fullmatch(name) for name in entry.principals)]
        about = "Entries that name unique ids can't be judged by an ARN; ask with the unique id (aws iam get-role, get-user)"
    else:
        ids = [entry.id for entry in registry.entries if any(name.startswith("arn:") for name in entry.principals)]
        about = "Entries with ARN patterns count at the API alone, and can't be judged by a unique id; ask with the ARN"
    return (f"{about}: {', '.join(ids)}.",) if ids else ()


def _change(question: Question, refusal: Refusal, document: Document, known: tuple[Entry, ...]) -> str:
    match refusal.code:
        case Code.PRINCIPAL_UNKNOWN:
            return _make_known(question, document)
        case Code.OPERATION_NOT_GRANTED:
            return _widen(question, known)
        case Code.AUTHORITY_UNCLEAR:
            return 'Say "authority": "HUMAN" or "SYSTEM" in the body (here: --as).'
        case Code.ACTOR_NOT_ASSERTABLE:
            return f'Leave out actorId; or, if it may speak for any person, set "assertsForOthers": true in {_ids(known)}.'
        case _:
            return _authority(question, known)


def _make_known(question: Question, document: Document) -> str:
    sender = question.sender
    entries = read_registry(document).entries
    elsewhere = [entry for entry in entries if entry_names(entry, sender) and not entry.holds_on(question.stage)]
    if elsewhere:
        stages = sorted({stage for entry in elsewhere for stage in entry.stages})
        return f'It is known on {", ".join(stages)} only: add "{question.stage}" to the `stages` of {_ids(elsewhere)}.'
    if sender.session is not None and ACCOUNT.match(sender.principal):
        return "A federated user's name is chosen freely and grants nothing: let it assume a role, and add that."
    if sender.arn is None and not UNIQUE_ID.fullmatch(sender.principal) and not ACCOUNT.fullmatch(sender.principal):
        return "Nobody signs like that. `aws sts get-caller-identity` shows a signer's own unique id: UserId."
    kind = question.claim.authority_type if question.claim and question.claim.authority_type else AuthorityType.SYSTEM
    who = question.signer if sender.arn is not None else sender.principal
    service = question.service or "SERVICE"
    words = ["opx", "authority", "add", who, "--operations", question.operation, "--services", service]
    words += ["--authority", kind.value, "--stage", question.stage]
    words += ["--session-is-person"] if kind is AuthorityType.HUMAN and sender.session is not None else []
    words += ["--principal-is-person"] if kind is AuthorityType.HUMAN and sender.session is None else []
    return shlex.join(words)


def _widen(question: Question, known: tuple[Entry, ...]) -> str:
    able = [entry for entry in known if question.operation in entry.operations]
    if able:
        return f'Add "{question.service}" to the `services` of {_ids(able)}.'
    service = question.service
    here = [entry for entry in known if service is None or covers_service(entry, service)]
    if here:
        return f'Add "{question.operation}" to the `operations` of {_ids(here)}.'
    return f"{_ids(known)} is about other operations and other services: give it an entry of its own for these."


def _authority(question: Question, known: tuple[Entry, ...]) -> str:
    wanted = question.claim.authority_type if question.claim and question.claim.authority_type else AuthorityType.HUMAN
    service = question.service
    fitting = [
        entry
        for entry in known
        if question.operation in entry.operations and (service is None or covers_service(entry, service))
    ]
    having = [entry for entry in fitting if wanted in entry.authority_types]
    if not having and wanted is AuthorityType.SYSTEM:
        return f'Claim HUMAN; or add "SYSTEM" to the `authorityTypes` of {_ids(fitting)}.'
    flag = "sessionIsPerson" if question.sender.session is not None else "principalIsPerson"
    if not having:
        return (
            f'Claim SYSTEM; or, if this is a person, add "HUMAN" to `authorityTypes` and "{flag}": true to {_ids(fitting)}.'
        )
    if any(entry.asserts_for_others for entry in having):
        return "Name the person who acts in authority.actorId (here: --actor)."
    return f'Claim SYSTEM; or, for a person, set "{flag}": true in {_ids(having)}.'


def _ids(entries: list[Entry] | tuple[Entry, ...]) -> str:
    return " or ".join(f"entry {entry.id}" for entry in entries)
