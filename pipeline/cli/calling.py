"""Opens the signed HTTP API of a command's target: with the person's own AWS credentials, or the local engine's dummy ones.

Also what its refusals mean at a terminal: each ends with the command that helps. What is asked is said elsewhere.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from pipeline.cli.target import Selection, Target, resolve
from pipeline.cli.telling import refusal_line, short
from pipeline.cli.terminal import REFUSED, CommandError
from pipeline.clients.answers import ApiRefused, ApiUnavailable, Problem
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.errors import MEANINGS, Code, HttpCode, Unavailable
from pipeline.domain.transitions import UNPROMOTED, AuthorityType
from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY


@dataclass(frozen=True, slots=True)
class Api:
    """A target's API. `is_local`: all who use it are one account, so that who acts has to be said."""

    operator: AsyncOperator
    is_local: bool


@asynccontextmanager
async def open_api(selection: Selection) -> AsyncIterator[Api]:
    """Find the target and open its API. Raises `Unavailable` without credentials, also where they end in between."""
    target = await resolve(selection)
    async with httpx.AsyncClient(trust_env=not target.is_local) as http:
        try:
            session = session_of(target)
            yield Api(AsyncOperator(target.api_url, http=http, region=target.region, session=session), target.is_local)
        except BotoCoreError as error:
            raise Unavailable(f"signing requests: {type(error).__name__}: {error}") from error


def session_of(target: Target) -> Session:
    """Return where credentials come from; at the local engine none of the person's settings are looked at."""
    if not target.is_local:
        return Session(profile=target.profile)
    session = Session()
    session.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    return session


def refused(error: ApiRefused, opx: str, command: str = "") -> CommandError:
    """Return what a refusal means to a person, with the next command; `command`: whose help is asked for otherwise."""
    problem = error.problem
    told = refusal_line(problem.code, (f"{problem.field}: " if problem.field else "") + problem.detail)
    if problem.code == Code.TRANSITION_ILLEGAL and problem.state:
        told += f" From {problem.state} it may become: {', '.join(problem.allowed_transitions) or 'nothing'}."
    if problem.code not in MEANINGS and problem.next:
        # Of our own refusals the next command says it; of what stands in between the API says it, such as a wrong clock.
        told += f" {problem.next}"
    said = {"code": problem.code, "status": problem.status, "incidentId": problem.incident_id, "state": problem.state}
    return CommandError(
        told, after_refusal(problem, opx, command), REFUSED, {k: v for k, v in said.items() if v is not None}
    )


def after_refusal(problem: Problem, opx: str, command: str = "") -> str:
    """Return the command that helps where one was refused."""
    again, incident = "the same command", problem.incident_id
    match problem.code:
        case Code.REASON_MISSING:
            return f"{again} with --reason TEXT"
        case Code.TRANSITION_AUTHORITY | Code.AUTHORITY_NOT_GRANTED | Code.AUTHORITY_UNCLEAR:
            needed = [kind.value for kind in AuthorityType if f"needs {kind}" in problem.detail]
            return f"{again} with --as {' or '.join(needed or AuthorityType)}"
        case Code.ACTOR_NOT_ASSERTABLE:
            return f"{again} without --actor"
        case Code.KEY_REUSED:
            return f"{again} without --key"
        case Code.LINK_TO_ITSELF:
            return f"{again} with another incident as the target"
        case Code.PRINCIPAL_UNKNOWN | Code.OPERATION_NOT_GRANTED:
            return f"{opx} authority add --help, and deploy"
        case Code.TRANSITION_ILLEGAL if incident is not None and problem.state in UNPROMOTED:
            one = short(incident)
            return f"{opx} promote {one} --reason TEXT, or {opx} dismiss {one} --reason TEXT"
        case Code.TRANSITION_ILLEGAL | Code.SEVERITY_FROZEN | Code.VERSION_STALE if incident is not None:
            return f"{opx} open {short(incident)}"
        case Code.INCIDENT_UNKNOWN:
            return f"{opx} list"
        case HttpCode.CORRUPT | HttpCode.INTERNAL | HttpCode.UNAVAILABLE:
            return f"{opx} status"
        case "not-signed" | "forbidden":
            return "aws sts get-caller-identity"
        case _:
            return f"{opx} {command} --help".replace("  ", " ")


def unanswered(error: ApiUnavailable, opx: str) -> CommandError:
    """Return what silence means: of a write, nobody knows before its receipt is asked for."""
    if error.key is None:
        return CommandError(f"The API did not answer in {error.attempts} attempts ({error.why}).", f"{opx} status")
    message = f"No answer in {error.attempts} attempts ({error.why}): whether it took effect is told by its receipt."
    return CommandError(f"{message} The same command with --key {error.key} is safe.", f"{opx} receipt {error.key}")
