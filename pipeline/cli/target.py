"""Decides what a command talks to: the local engine that runs on this machine, or a deployed stack. The one place that does.

A named stack always wins; without a name nothing outside this machine is ever asked.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.cli.connection import open_at
from pipeline.cli.terminal import CommandError
from pipeline.domain.errors import Unavailable
from pipeline.local.deploy import STACK, read_outputs
from pipeline.local.engine import RunningEngine, find_running
from pipeline.local.environment import REGION
from pipeline.local.paths import DEFAULT_STATE
from pipeline.stores.clients import translated

LOCAL: Final = "local engine"


@dataclass(frozen=True, slots=True)
class Selection:
    """What the person asked for, by options or environment."""

    stack: str | None = None
    profile: str | None = None
    region: str = REGION
    state_dir: Path = DEFAULT_STATE

    @property
    def flags(self) -> str:
        """Return the options that make another `opx` talk to the same target, with a space in front."""
        if self.stack is None:
            return "" if self.state_dir == DEFAULT_STATE else f" --state-dir {self.state_dir}"
        profile = f" --profile {self.profile}" if self.profile else ""
        region = f" --region {self.region}" if self.region != REGION else ""
        return f" --stack {self.stack}{profile}{region}"


@dataclass(frozen=True, slots=True)
class Target:
    """A stack that can be talked to: where it is, and what its outputs say. `endpoint_url` is set for the local engine."""

    name: str
    region: str
    state_dir: Path
    endpoint_url: str | None = None
    profile: str | None = None
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        return self.endpoint_url is not None

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what tells this target from every other one, also from one of the same name that came before it."""
        # A stream's ARN holds the moment its table was made.
        return (self.name, self.region, self.profile or "", self.output("EventsStreamArn"), self.state_dir.as_posix())

    @property
    def prefix(self) -> str:
        """Return what every name of the stack begins with."""
        return self.output("BusName").removesuffix("-bus")

    @property
    def api_url(self) -> str:
        """Return where the HTTP API answers; at the local engine a path of its own, as nothing resolves host names there."""
        if self.endpoint_url is None:
            return self.output("ApiUrl")
        return f"{self.endpoint_url}/restapis/{self.output('ApiId')}/{self.output('ApiStageName')}/_user_request_"

    def output(self, name: str) -> str:
        """Return a stack output; raise where the stack has none of that name."""
        value = self.outputs.get(name)
        if value is None:
            raise CommandError(f"The stack {self.name} has no output {name}: is it opx, and current?", "opx status")
        return value

    @classmethod
    def of_engine(cls, engine: RunningEngine, outputs: dict[str, str]) -> "Target":
        return cls(LOCAL, REGION, engine.state_dir, endpoint_url=engine.endpoint_url, outputs=outputs)


def running_engine(selection: Selection) -> RunningEngine:
    """Return the running local engine; raise where there is none."""
    engine = find_running(selection.state_dir)
    if engine is None:
        raise CommandError("No local engine is running, and no stack was named (--stack NAME or OPX_STACK).", "opx up")
    return engine


def local_target(selection: Selection) -> Target:
    """Return the running engine as a target; raise where nothing runs or nothing is deployed into it."""
    engine = running_engine(selection)
    outputs = read_outputs(engine)
    if outputs is None:
        raise CommandError("The local engine runs, but nothing is deployed into it.", "opx up")
    return Target.of_engine(engine, outputs)


async def resolve(selection: Selection) -> Target:
    """Return the target that the options mean."""
    if selection.stack is None:
        return local_target(selection)
    async with open_at(("cloudformation",), selection.region, None, selection.profile) as clients:
        try:
            with translated(f"reading the stack {selection.stack}"):
                answer = await clients.of("cloudformation").describe_stacks(StackName=selection.stack)
        except Unavailable as error:
            if "does not exist" not in str(error):
                raise
            message = f"There is no stack {selection.stack} in {selection.region}."
            raise CommandError(message, f"opx --stack {STACK} --region REGION --profile PROFILE status") from error
    outputs = {item["OutputKey"]: item["OutputValue"] for item in answer["Stacks"][0].get("Outputs", ())}
    return Target(selection.stack, selection.region, selection.state_dir, profile=selection.profile, outputs=outputs)
