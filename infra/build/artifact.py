"""Builds the one artifact that every function runs: `python -m infra.build.artifact [DESTINATION]`. Standard library only.

Dependencies, code and the configuration that OPX_CONFIG names are built once each under .opx/build-cache, named by the
digest of what they are made from, and hard-linked into each destination. It must never take anything that is not pinned
with a hash, nor anything a function does not run: no tests, no command line, no local engine, no service models but
those in use, no file of a configuration that no function would read.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from pipeline.runtime import overlay

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".opx" / "build-cache"
PINS = ROOT / "infra" / "requirements" / "runtime.txt"

# What of our own does not run in a function.
NOT_DEPLOYED = ("pipeline/cli", "pipeline/local", "pipeline/clients", "pipeline/replay")
# botocore carries 400 service models; reading their folder listing alone costs start-up time.
SERVICE_MODELS = frozenset({"dynamodb", "events", "lambda", "sqs", "ssm", "sts"})
# What the event handler needs of Powertools' utilities; the others are never imported, and some would want boto3.
POWERTOOLS_UTILITIES = frozenset({"data_classes", "jmespath_utils", "metadata", "typing"})
# Found by import, never by name: metadata, stubs, sources of compiled modules, scripts, tests.
DEAD_WEIGHT = ("*.dist-info", "*-stubs", "bin", "tests", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "examples-1.json*")
# glibc of the oldest image each runtime runs on: Amazon Linux 2 (2.26) up to 3.11, 2023 (2.34) from 3.12.
WHEEL_TAGS = ("manylinux_2_17_{}", "manylinux2014_{}")
WHEEL_TAGS_2023 = ("manylinux_2_34_{}", "manylinux_2_28_{}")
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
# The code that a function reads its configuration with; exits with what is wrong, if anything.
READ_AS_A_FUNCTION = (
    "import pathlib, sys; from pipeline.runtime import shipped; sys.exit(shipped.problem(pathlib.Path(sys.argv[1])))"
)


class Target(NamedTuple):
    """What the artifact must run on: a Python minor version, and x86_64, arm64 or host (this machine)."""

    python: str
    platform: str


def main(destination: Path | None) -> None:
    """Build what is missing and put the whole artifact into `destination`, if one is named."""
    target, own = read_target(), own_config()
    CACHE.mkdir(parents=True, exist_ok=True)
    with only_one_build():
        parts = [dependencies(target), code(target)]
        if own is not None:
            check(own, parts[0])
            parts.append(configuration(own))
        if destination is None:
            return
        shutil.rmtree(destination, ignore_errors=True)
        for part in parts:
            shutil.copytree(part, destination, copy_function=link, dirs_exist_ok=True)


def read_target() -> Target:
    """Return the target that the environment names, else the template's defaults."""
    template = (ROOT / "template.yaml").read_text(encoding="utf-8")
    python = os.environ.get("OPX_PYTHON") or default_of(template, "PythonRuntime").removeprefix("python")
    platform = os.environ.get("OPX_PLATFORM") or default_of(template, "Architecture")
    if platform not in (*MACHINES, "host") or not re.fullmatch(r"3\.\d+", python):
        fail(f"can't build for Python {python!r} on {platform!r}: check OPX_PYTHON and OPX_PLATFORM")
    if platform == "host" and python != own_minor():
        fail(f"building for this machine needs Python {python}, but this is {own_minor()}: unset OPX_PYTHON")
    return Target(python, platform)


def own_config() -> Path | None:
    """Return the folder of one's own configuration that the environment names; a relative one lies below the project."""
    named = os.environ.get(overlay.VARIABLE)
    if not named:
        return None
    config_files(ROOT / named)  # what is wrong with its form is said at once
    return ROOT / named


def config_files(folder: Path) -> tuple[overlay.File, ...]:
    """Return the files of one's own configuration; end the build where they can't be taken."""
    try:
        return overlay.files(folder, ROOT / "pipeline")
    except overlay.ConfigError as error:
        fail(f"the configuration {folder} can't be built.\n{error}")


def check(folder: Path, libraries: Path) -> None:
    """Have the configuration read as the functions will; end the build where they could not start with it.

    It needs the functions' libraries: this interpreter's, or those just installed where they are for this interpreter.
    """
    environment = os.environ if find_spec("pydantic") else {**os.environ, "PYTHONPATH": str(libraries)}
    able = subprocess.run([sys.executable, "-c", "import pydantic"], env=environment, capture_output=True, check=False)
    if able.returncode != 0:
        print(
            "this Python can't load the functions' libraries: they will check the configuration as they start",
            file=sys.stderr,
        )
        return
    command = [sys.executable, "-c", READ_AS_A_FUNCTION, str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"the configuration {folder} can't be built.\n{done.stderr.strip()}")


def configuration(folder: Path) -> Path:
    """Return the folder with one's own configuration where the functions look for it."""
    files = config_files(folder)

    def copy(at: Path) -> None:
        for file in files:
            path = at / "pipeline" / overlay.IN_PACKAGE / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)

    return cached("config", tuple(part for file in files for part in (file.name.encode(), file.content)), copy)


def dependencies(target: Target) -> Path:
    """Return the folder of the pinned, pruned and compiled dependencies for `target`."""
    recipe = Path(__file__).read_bytes()
    return cached("deps", (PINS.read_bytes(), recipe, repr(target).encode()), lambda at: install(target, at))


def code(target: Target) -> Path:
    """Return the folder of our own deployed packages, compiled for `target`."""
    sources = own_sources()
    content = b"".join(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0" for path in sources)

    def copy(at: Path) -> None:
        for path in sources:
            (at / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, at / path.relative_to(ROOT))
        compile_all(target, at)

    return cached("code", (content, repr(target).encode()), copy)


def own_sources() -> list[Path]:
    """Return the files of ours that functions run, in a stable order."""
    skipped = tuple(ROOT / name for name in NOT_DEPLOYED)
    return sorted(
        path
        for package in ("pipeline", "consumers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not any(path.is_relative_to(folder) for folder in skipped)
    )


def install(target: Target, at: Path) -> None:
    """Install the pinned dependencies for `target` into `at`, pruned and compiled."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--target", str(at)]
    if target.platform != "host":
        tags = WHEEL_TAGS if target.python == "3.11" else (*WHEEL_TAGS_2023, *WHEEL_TAGS)
        command += [f"--platform={tag.format(MACHINES[target.platform])}" for tag in tags]
        command += [f"--python-version={target.python}", "--implementation=cp"]
    if subprocess.run([*command, "-r", str(PINS)], check=False).returncode != 0:
        fail("pip could not install infra/requirements/runtime.txt: check the network, then build again")
    prune(at)
    compile_all(target, at)


def prune(at: Path) -> None:
    """Remove what no function reads."""
    for model in (at / "botocore" / "data").iterdir():
        if model.is_dir() and model.name not in SERVICE_MODELS:
            shutil.rmtree(model)
    for utility in (at / "aws_lambda_powertools" / "utilities").iterdir():
        if utility.is_dir() and utility.name not in POWERTOOLS_UTILITIES:
            shutil.rmtree(utility)
    for pattern in DEAD_WEIGHT:
        for path in sorted(at.rglob(pattern), reverse=True):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def compile_all(target: Target, at: Path) -> None:
    """Compile `at` so that the interpreter needs no source to trust the result: saves a stat and a read a module."""
    interpreter = interpreter_of(target.python)
    if interpreter is None:
        note = f"no python{target.python} here to compile with: the artifact works, but starts slower"
        print(note, file=sys.stderr)
        return
    command = [interpreter, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(at)]
    done = subprocess.run([*command, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"could not compile:\n{done.stdout.strip()}")


def interpreter_of(python: str) -> str | None:
    """Return an interpreter of that minor version that really runs, or None."""
    if python == own_minor():
        return sys.executable
    candidate = shutil.which(f"python{python}")
    if candidate is None or subprocess.run([candidate, "-c", ""], capture_output=True).returncode != 0:
        return None
    return candidate


def cached(kind: str, made_from: tuple[bytes, ...], build: Callable[[Path], None]) -> Path:
    """Return the folder named by the digest of `made_from`; build it, whole or not at all, if it is missing."""
    digest = hashlib.sha256()
    for part in made_from:
        digest.update(len(part).to_bytes(8, "big") + part)
    folder = CACHE / f"{kind}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=CACHE) as scratch:
            fresh = Path(scratch) / kind
            fresh.mkdir()
            build(fresh)
            fresh.rename(folder)
    os.utime(folder)
    forget_old(kind)
    return folder


def forget_old(kind: str) -> None:
    """Keep the four last used of a kind: enough to go back and forth between branches and targets."""
    by_use = sorted(CACHE.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in by_use[4:]:
        shutil.rmtree(folder)


def link(source: str, destination: str) -> str:
    """Hard-link, or copy where the file system can't."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)
    return destination


@contextmanager
def only_one_build() -> Iterator[None]:
    """Wait for other builds: SAM builds the functions side by side."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def default_of(template: str, parameter: str) -> str:
    """Return a parameter's default from the template's text; no YAML reader is at hand here."""
    found = re.search(rf"^  {parameter}:\n(?:    .*\n)*?    Default: (\S+)", template, re.MULTILINE)
    if not found:
        fail(f"template.yaml has no default for {parameter}: set OPX_PYTHON and OPX_PLATFORM")
    return found[1]


def own_minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def fail(message: str) -> NoReturn:
    sys.exit(f"artifact: {message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
