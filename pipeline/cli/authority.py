"""`opx authority …`: who may do what under which authority, asked of the registry file; and a new sender's entry in it.

The file is what the next deploy takes; what a deployed stack holds now was built from an earlier one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from pipeline.cli.connection import open_at
from pipeline.cli.granting import Question, Verdict, judge
from pipeline.cli.registry_file import (
    WrittenRegistry,
    already_granted,
    diff,
    document_of,
    load,
    second_thoughts,
    with_entry,
    write,
)
from pipeline.cli.session import Invocation, run
from pipeline.cli.target import running_engine
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Screen, cell, safe
from pipeline.domain.authority import OPERATIONS, UNIQUE_ID, Claim, Entry, read_registry
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.errors import Refusal, Rejected, Unavailable
from pipeline.domain.transitions import AuthorityType
from pipeline.stores.clients import translated

LOCAL_ACCOUNT: Final = "000000000000"
FLAGS: Final = ("sessionIsPerson", "principalIsPerson", "assertsForOthers", "speaksForSenders")

authority = typer.Typer(no_args_is_help=True, help="Who may do what under which authority: ask, list, add.")

File = Annotated[
    Path | None,
    typer.Option(help="The registry; else that of $OPX_CONFIG, else the shipped one.", show_default=False),
]
SessionIsPerson = Annotated[
    bool, typer.Option("--session-is-person", help="A role: its session's name is a person's (single sign-on).")
]
PrincipalIsPerson = Annotated[bool, typer.Option("--principal-is-person", help="A user: it is one person's.")]
AssertsForOthers = Annotated[
    bool, typer.Option("--asserts-for-others", help="It may act for the person it names (a chat bot).")
]
Stage = Annotated[str, typer.Option(help="The stage it is asked for.")]


@authority.command()
def check(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="A unique id, with or without :session, or an ARN.")],
    operation: Annotated[str, typer.Argument(help="candidate, or a command's type: dismiss, change-state …")],
    service: Annotated[str | None, typer.Option(help="On this service; else on any.")] = None,
    stage: Stage = "prod",
    claimed: Annotated[
        AuthorityType | None, typer.Option("--as", help="The authority the body claims.", case_sensitive=False)
    ] = None,
    actor: Annotated[str | None, typer.Option(help="The actorId the body names.")] = None,
    file: File = None,
) -> None:
    """Say whether a sender may do something, which entry decides, and what to change if it may not. Exit code 0 or 1.

    Example: opx authority check AROAEXAMPLEID:dana@example.com dismiss --service checkout --as HUMAN
    """

    async def work(invocation: Invocation) -> int:
        _known_operation(operation)
        try:
            claim = Claim(authority_type=claimed, actor_id=actor) if claimed or actor else None
        except ValueError as error:
            raise CommandError("--actor is empty or can't be printed.", "opx authority check --help", REFUSED) from error
        question = Question(principal, operation, stage, service, claim)
        return _answer(invocation, question, judge(parse_document(load(file).text), question))

    run(context, work)


def _known_operation(operation: str) -> None:
    if operation not in OPERATIONS:
        message = f"{safe(operation)!r} is no operation. There are {', '.join(sorted(OPERATIONS))}"
        raise CommandError(f"{message}; detections and alarms are candidate.", "the same command with one of them", REFUSED)


def _answer(invocation: Invocation, question: Question, verdict: Verdict) -> int:
    screen, found = invocation.screen, verdict.found
    asked: Document = {"principal": question.signer, "operation": question.operation, "stage": question.stage}
    asked |= {"service": question.service} if question.service is not None else {}
    if isinstance(found, Refusal):
        if screen.as_json:
            told: Document = {"allowed": False, "code": found.code.value, "reason": found.detail, "change": verdict.change}
            screen.record(asked | told | {"remarks": list(verdict.remarks)})
            return REFUSED
        for remark in verdict.remarks:
            screen.notice(remark)
        raise CommandError(f"{found.code.value}: {found.detail}", verdict.change, REFUSED)
    context = found.context
    if screen.as_json:
        told = {"allowed": True, "entry": found.entry.id, "doors": list(verdict.doors), "actorId": context.actor_id}
        screen.record(asked | told | {"authorityType": context.authority_type.value, "remarks": list(verdict.remarks)})
        return DONE
    on = f" on {question.service}" if question.service is not None else ""
    screen.say(Text.assemble(("yes", "bold green"), cell(f": {question.operation}{on}, stage {question.stage}")))
    screen.say(Text.assemble(("as ", "dim"), cell(f"{context.authority_type} {context.actor_id}", "bold")))
    screen.say(Text.assemble(("by entry ", "dim"), cell(found.entry.id, "cyan"), cell(f", {' and '.join(verdict.doors)}")))
    for remark in verdict.remarks:
        screen.say(safe(remark), "dim")
    return DONE


@authority.command("list")
def list_entries(context: typer.Context, stage: Stage = "prod", file: File = None) -> None:
    """Show who may do what on a stage.

    Example: opx authority list --stage dev
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        registry = load(file)
        held = [entry for entry in registry.registry.entries if entry.holds_on(stage)]
        for entry in held if screen.as_json else ():
            screen.record(document_of(entry))
        columns = (
            Column("entry"),
            Column("principals", wrap=True),
            Column("as", wrap=True, floor=6),
            Column("operations", wrap=True, floor=17),
            Column("services", wrap=True, floor=8),
            Column("", wrap=True, floor=17),
        )
        screen.table(columns, [_row(entry) for entry in held], f"{registry.begins_as or registry.path} · {stage}")
        screen.say("Nobody else may do anything.", "dim")
        screen.next(f"{invocation.opx} authority check PRINCIPAL OPERATION --stage {stage}")
        return DONE

    run(context, work)


def _row(entry: Entry) -> tuple[Text, ...]:
    document = document_of(entry)
    says = [flag for flag in FLAGS if document.get(flag)]
    lists = ("principals", "authorityTypes", "operations", "services")
    return (cell(entry.id, "cyan"), *(_lines(document[name]) for name in lists), _lines(says))


def _lines(items: Any) -> Text:
    return Text("\n").join([cell(item) for item in items])


@authority.command()
def add(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(metavar="ROLE_ARN", help="A role's or user's ARN; or a unique id.")],
    operations: Annotated[list[str], typer.Option(help="What it may do; repeatable, or with commas.")],
    services: Annotated[list[str], typer.Option(help="On which services; `*` stands for any text. As above.")],
    kinds: Annotated[
        list[AuthorityType] | None,
        typer.Option("--authority", help="SYSTEM (the default), HUMAN, or both.", case_sensitive=False),
    ] = None,
    stages: Annotated[list[str] | None, typer.Option("--stage", help="On these stages only; repeatable.")] = None,
    entry_id: Annotated[str | None, typer.Option("--id", help="The entry's name; else that of the role.")] = None,
    session_is_person: SessionIsPerson = False,
    principal_is_person: PrincipalIsPerson = False,
    asserts_for_others: AssertsForOthers = False,
    file: File = None,
) -> None:
    """Write a sender's entry into the registry: its unique id, asked of IAM with your own AWS credentials (--profile).

    Example: opx authority add arn:aws:iam::123456789012:role/checkout-monitor --operations candidate
    --services checkout --stage prod
    """

    async def work(invocation: Invocation) -> int:
        registry = load(file)
        for operation in _words(operations):
            _known_operation(operation)
        wanted: Document = {
            "stages": tuple(_words(stages)),
            "authorityTypes": tuple(kind.value for kind in kinds or (AuthorityType.SYSTEM,)),
            "operations": tuple(_words(operations)),
            "services": tuple(_words(services)),
            "sessionIsPerson": session_is_person,
            "principalIsPerson": principal_is_person,
            "assertsForOthers": asserts_for_others,
        }
        # Before IAM is asked: what would be refused for another reason needs no answer from there.
        _entry({"id": "x", "principals": ("AIDAX" if principal_is_person else "AROAX",)} | wanted, invocation)
        found = await resolve(principal, invocation)
        name = entry_id or re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-._")[:64]
        entry = _entry({"id": name, "principals": (found.unique_id,)} | wanted | {"note": found.note}, invocation)
        return _write(invocation, registry, entry, found.name)

    run(context, work)


def _words(values: list[str] | None) -> list[str]:
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]


def _entry(document: Document, invocation: Invocation) -> Entry:
    said = {name: value for name, value in document.items() if value not in ((), False, "")}
    try:
        return read_registry({"version": 1, "entries": (said,)}).entries[0]
    except Rejected as error:
        where = (error.refusal.field or "").removeprefix("entries.0").strip(".")
        message = f"{where}: {error.refusal.detail}" if where else error.refusal.detail
        raise CommandError(message, f"{invocation.opx} authority add --help", REFUSED) from error


def _write(invocation: Invocation, registry: WrittenRegistry, entry: Entry, name: str) -> int:
    screen, file = invocation.screen, registry.path
    check_it = f"{invocation.opx} authority check {entry.principals[0]} {entry.operations[0]} --file {file}"
    same = already_granted(registry.registry, entry)
    if same is not None:
        raise CommandError(f"Entry {same.id} grants all of this already; nothing was written.", check_it, REFUSED)
    if registry.registry.entry(entry.id) is not None:
        message = f"There is an entry {entry.id} already; nothing was written."
        raise CommandError(message, f"the same command with --id, or edit {file}", REFUSED)
    text = with_entry(registry.text, entry)
    write(file, text)
    thoughts = second_thoughts(entry, registry.registry.entries, name)
    lines = diff("" if registry.begins_as else registry.text, text, file)
    if screen.as_json:
        screen.record({"file": str(file), "entry": document_of(entry), "diff": "\n".join(lines), "warnings": thoughts})
    else:
        _show(screen, lines)
        for thought in thoughts:
            screen.notice(f"Think twice: {thought}")
    stage = entry.stages[0] if entry.stages else "prod"
    deploy = "opx up" if stage == "local" else f"sam build --config-env {stage} && sam deploy --config-env {stage}"
    screen.next(f"{check_it} --stage {stage}", deploy)
    return DONE


def _show(screen: Screen, lines: list[str]) -> None:
    for line in lines:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        screen.say(Text(safe(line), style=style))


@dataclass(frozen=True, slots=True)
class Found:
    """A role or user: its unique id, its name, and its ARN for those who read the registry."""

    unique_id: str
    name: str
    note: str = ""


async def resolve(principal: str, invocation: Invocation) -> Found:
    """Return who an ARN stands for now, asked of IAM in the account that it names; a unique id is taken as it is."""
    if UNIQUE_ID.fullmatch(principal):
        return Found(principal, principal)
    form = r"arn:aws[a-z-]*:(?:iam|sts)::([0-9]{12}):(role|user|assumed-role)/(?:[!-~]+/)?([\w+=,.@-]+)"
    if "assumed-role" in principal:
        form = r"arn:aws[a-z-]*:sts::([0-9]{12}):(assumed-role)/([\w+=,.@-]+)/[^/]+"
    matched = re.fullmatch(form, principal, re.ASCII)
    if matched is None:
        message = f"{safe(principal)!r} is no ARN of a role or user, and no unique id."
        raise CommandError(message, f"{invocation.opx} authority add --help", REFUSED)
    account, kind, name = matched.groups()
    answer = await _ask(invocation, account, "user" if kind == "user" else "role", name)
    same_account = answer["Arn"].split(":")[4] == account
    if not same_account or (kind != "assumed-role" and answer["Arn"] != principal):
        message = f"Your credentials see {answer['Arn']}, not {principal}; nothing was written."
        raise CommandError(message, "the same command with --profile PROFILE of that account, or the right path", REFUSED)
    return Found(answer["RoleId"] if "RoleId" in answer else answer["UserId"], name, str(answer["Arn"]))


async def _ask(invocation: Invocation, account: str, kind: str, name: str) -> dict[str, Any]:
    selection = invocation.selection
    # The local engine has one account, which is nobody's in AWS.
    endpoint = running_engine(selection).endpoint_url if account == LOCAL_ACCOUNT else None
    async with open_at(("iam",), selection.region, endpoint, selection.profile) as clients:
        iam = clients.of("iam")
        try:
            with translated(f"asking IAM for the {kind} {name}"):
                if kind == "role":
                    return dict((await iam.get_role(RoleName=name))["Role"])
                return dict((await iam.get_user(UserName=name))["User"])
        except Unavailable as error:
            if "NoSuchEntity" in str(error):
                message = f"There is no {kind} {name} in the account that your credentials belong to."
                then = f"check the ARN; aws sts get-caller-identity should say {account}"
                raise CommandError(message, then, REFUSED) from error
            profile = f" --profile {selection.profile}" if selection.profile else ""
            then = (
                "opx up" if endpoint else f"aws sts get-caller-identity{profile}, or give the unique id instead of the ARN"
            )
            raise CommandError(str(error), then) from error
