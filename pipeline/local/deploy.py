"""Deploys template.yaml into a running engine with the SAM CLI, and does only what is needed since the last time.

What was built and what was deployed is remembered by the digest of everything that went into it; a deployment counts
only for the very engine it went into. It must never reach an account: the SAM CLI runs sealed (see `environment`).
"""

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.session import Session

from infra.build import artifact
from pipeline.local import processes
from pipeline.local.engine import EngineError, RunningEngine, locked, tail
from pipeline.local.environment import (
    ACCESS_KEY_ID,
    DEPLOY_MARK,
    REGION,
    SECRET_ACCESS_KEY,
    for_sam,
)
from pipeline.local.paths import PROJECT_ROOT, PYTHON_MINOR, SAM, StateFolder
from pipeline.runtime import overlay
from pipeline.stores.clients import DEAF, translated

STACK = "OpxControlPlaneStack"
BUCKET = "opx-artifacts"
TEMPLATE = PROJECT_ROOT / "template.yaml"
CONFIG = PROJECT_ROOT / "samconfig.toml"
SAM_WITHIN_S = 300.0
# A fixed time for every file: the same content is the same archive, and then nothing is uploaded or updated.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

# Our own packages in the artifact.
OWN = ("pipeline", "consumers")

Report = Callable[[str], None]


def deploy(
    engine: RunningEngine,
    *,
    parameters: Mapping[str, str] | None = None,
    config: Path | None = None,
    report: Report = lambda step: None,
) -> dict[str, str]:
    """Deploy what changed since the last deployment into this engine; return the stack's outputs.

    `parameters` override those of samconfig.toml's `local`; `config` is the folder of one's own configuration, None what
    ships; `report` is told each step that takes a while. Raises `ConfigError` for a folder that can't be built.
    """
    if not SAM.exists():
        raise EngineError("The SAM CLI is not set up. Next: make setup")
    state = StateFolder.at(engine.state_dir)
    with locked(state.deploy_lock):
        wanted = deployment(engine, local_parameters(parameters or {}), config)
        before = read_json(state.deployed)
        if before.get("of") == wanted:
            return dict(before["outputs"])
        state.deployed.unlink(missing_ok=True)
        end_stray_deploys(state)
        build(engine, state, wanted["parameters"], report, config)
        report("deploying the stack")
        sam_deploy(engine, state, wanted["parameters"])
        outputs = stack_outputs(engine.endpoint_url)
        write_json(state.deployed, {"of": wanted, "outputs": outputs})
        return outputs


def read_outputs(engine: RunningEngine) -> dict[str, str] | None:
    """Return the outputs of what was last deployed into this engine, or None; asks nobody."""
    before = read_json(StateFolder(engine.state_dir).deployed)
    if before.get("of", {}).get("engine") != engine.identity:
        return None
    return dict(before["outputs"])


def local_parameters(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the template's parameters for this machine: samconfig's, this interpreter's, then `overrides`."""
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    pairs = config["local"]["deploy"]["parameters"]["parameter_overrides"]
    configured = dict(pair.split("=", 1) for pair in pairs)
    machine = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"
    # The engine runs the functions in its own interpreter, and that is this one: the environments are made together.
    return {**configured, "PythonRuntime": f"python{PYTHON_MINOR}", "Architecture": machine, **overrides}


def deployment(engine: RunningEngine, parameters: dict[str, str], config: Path | None = None) -> dict[str, Any]:
    """Return what a deployment is made of; equal ones need not be done again."""
    return {"engine": engine.identity, "inputs": build_digest([CONFIG], config), "parameters": parameters}


def build_digest(more: Sequence[Path] = (), config: Path | None = None) -> str:
    """Return the digest of all that `sam build` reads, of one's own configuration wherever it lies, and of `more`."""
    recipe = sorted((PROJECT_ROOT / "infra" / "build").glob("[!_]*"))
    files = [TEMPLATE, artifact.PINS, *(path for path in recipe if path.is_file()), *artifact.own_sources(), *more]
    digest = hashlib.sha256(PYTHON_MINOR.encode())
    for path in files:
        digest.update(f"{path.relative_to(PROJECT_ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for file in () if config is None else overlay.files(config, PROJECT_ROOT / "pipeline"):
        digest.update(f"{overlay.IN_PACKAGE}/{file.name}\0".encode())
        digest.update(hashlib.sha256(file.content).digest())
    return digest.hexdigest()


def build(
    engine: RunningEngine, state: StateFolder, parameters: Mapping[str, str], report: Report, config: Path | None = None
) -> None:
    """Run `sam build` unless what it built last was of the same inputs."""
    wanted = {"inputs": build_digest(config=config)}  # of the parameters only runtime and processor matter: this machine's
    if read_json(state.built) == wanted and packaged_template(state).exists():
        return
    state.built.unlink(missing_ok=True)
    report("building the functions")
    fill_build_cache(config)
    arguments = ["build", "--template-file", str(TEMPLATE), "--build-dir", str(state.build), "--no-cached"]
    run_sam(engine, state, [*arguments, *overriding(parameters)], config)
    package(state, wanted["inputs"])
    write_json(state.built, wanted)


def fill_build_cache(config: Path | None = None) -> None:
    """Fetch the functions' dependencies, with this person's pip settings; `sam build` then needs no network."""
    named = [f"{overlay.VARIABLE}={config}"] if config else []
    command = ["env", "-u", overlay.VARIABLE, f"OPX_PYTHON={PYTHON_MINOR}", "OPX_PLATFORM=host", *named]
    command += [sys.executable, "-m", artifact.__name__]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"The functions could not be built.\n{done.stderr.strip()}\nNext: opx up")


def package(state: StateFolder, inputs: str) -> None:
    """Point every function of the built template to one archive: our own code, and where its libraries lie.

    The engine unpacks an archive for every process it starts, fifty at once where fifty requests come at once. With the
    libraries in it that takes minutes; so here they are read from where they were built, and only from there: what is
    missing in the artifact is missing here, too. `inputs`: the digest of what was built, so that another is another archive.
    """
    text = (state.build / "template.yaml").read_text(encoding="utf-8")
    folders = re.findall(r"^ +CodeUri: (\w+)$", text, re.MULTILINE)
    if not folders:
        raise EngineError(f"{state.build}/template.yaml names no built function. Next: sam build")
    built, archive = state.build / folders[0], state.build / "artifact.zip"
    find_libraries = f"import sys\n\nsys.path.append({str(built)!r})  # {inputs}\n"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in sorted(path for own in OWN for path in (built / own).rglob("*") if path.is_file()):
            name = str(path.relative_to(built))
            # The handler's package is the first of ours to be imported; its compiled form is of the empty file.
            if name.startswith("consumers/__pycache__/__init__."):
                continue
            content = find_libraries.encode() if name == "consumers/__init__.py" else path.read_bytes()
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=1)
    one = re.sub(r"^( +CodeUri:) \w+$", rf"\1 {archive.name}", text, flags=re.MULTILINE)
    packaged_template(state).write_text(one, encoding="utf-8")


def packaged_template(state: StateFolder) -> Path:
    return state.build / "packaged.yaml"


def sam_deploy(engine: RunningEngine, state: StateFolder, parameters: Mapping[str, str]) -> None:
    """Run `sam deploy` with samconfig's `local`, into a bucket of this engine."""
    make_bucket(engine.endpoint_url)
    arguments = ["deploy", "--template-file", str(packaged_template(state)), "--config-file", str(CONFIG)]
    arguments += ["--config-env", "local", "--stack-name", STACK, "--no-progressbar"]
    arguments += ["--no-resolve-s3", "--s3-bucket", BUCKET]  # the managed bucket would be a second stack
    run_sam(engine, state, [*arguments, *overriding(parameters)])


def overriding(parameters: Mapping[str, str]) -> list[str]:
    return ["--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())]


def run_sam(engine: RunningEngine, state: StateFolder, arguments: Sequence[str], config: Path | None = None) -> None:
    """Run the SAM CLI sealed and in a process group of its own; end the group if this call is interrupted."""
    state.home.mkdir(parents=True, exist_ok=True)
    forbid_version_check(state)
    with state.deploy_log.open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [str(SAM), *arguments],
            env=for_sam(state, engine.endpoint_url, PYTHON_MINOR, config),
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(SAM_WITHIN_S)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise EngineError(
                    f"sam {arguments[0]} took more than {SAM_WITHIN_S:.0f} s.{tail(state.deploy_log)}\n"
                    "Next: opx down, then opx up"
                ) from error
            raise
    if code != 0:
        raise EngineError(
            f"sam {arguments[0]} failed.{tail(state.deploy_log)}\n"
            f"Next: read {state.deploy_log}; if the stack is stuck: opx down, then opx up"
        )


def forbid_version_check(state: StateFolder) -> None:
    """Tell the SAM CLI that it has just looked for a newer version of itself: it would wait for the network."""
    remembered = state.home / ".aws-sam" / "metadata.json"
    remembered.parent.mkdir(parents=True, exist_ok=True)
    far_future_s = 4_000_000_000.0
    write_json(remembered, {"lastVersionCheck": far_future_s, "telemetryEnabled": False})


def end_stray_deploys(state: StateFolder) -> None:
    """End a SAM CLI that outlived the command which started it: two at a time would disturb each other."""
    left = processes.end_all(lambda: processes.marked(DEPLOY_MARK, str(state.root)), within_s=5.0)
    if left:
        raise EngineError(f"An earlier deployment would not end: {left}. Next: kill -9 {left[0]}")


def make_bucket(endpoint_url: str) -> None:
    """Make the bucket that the archive goes through; one that exists is fine."""
    with translated("making the bucket"):
        aws(endpoint_url, "s3").create_bucket(Bucket=BUCKET)


def stack_outputs(endpoint_url: str) -> dict[str, str]:
    """Return the deployed stack's outputs, as the engine tells them."""
    with translated("reading the stack"):
        stack = aws(endpoint_url, "cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}


def aws(endpoint_url: str, service: str) -> Any:
    """Return a client of the engine's `service`, deaf to what a person has set; botocore carries no types."""
    return Session(session_vars=DEAF).create_client(
        service,
        region_name=REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(proxies={}),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file remembers; nothing if it is missing or was cut off."""
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
    fresh.replace(path)
