"""The pin files: hashed, free of any registry's address, and agreeing with each other.

What is tested must be what is deployed: the functions' pins (runtime) are a strict subset of the development pins.
"""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "infra" / "requirements"
LOCKED = ("runtime", "dev", "engine", "sam")
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][\w.]*)(?P<marker> ; .+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(name: str) -> list[str]:
    """Return the logical lines of a pin file, continuations joined."""
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(name: str) -> set[tuple[str, str, str]]:
    """Return (package, version, marker) for each pin; raise on a line that is no pin."""
    found = set()
    for entry in entries(name):
        match = PIN.fullmatch(entry.split("--hash")[0].strip())
        assert match, f"{name}.txt: not a pin: {entry[:80]}"
        found.add((match["name"], match["version"], match["marker"] or ""))
    return found


@pytest.mark.parametrize("name", LOCKED)
def test_every_pin_is_exact_and_hashed(name: str) -> None:
    assert len(pins(name)) >= 10
    for entry in entries(name):
        options = re.findall(r"--\S+", entry)
        assert options, f"{name}.txt: {entry[:60]} has no hash"
        assert all(HASH.fullmatch(option) for option in options), f"{name}.txt: {entry[:60]} has another option"


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_no_pin_file_names_a_registry(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|trusted-host| @ ", text)


@pytest.mark.parametrize("name", LOCKED)
def test_pins_are_those_asked_for(name: str) -> None:
    locked = {package: version for package, version, _ in pins(name)}
    for line in (REQUIREMENTS / f"{name}.in").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith(("#", "-r ")):
            continue
        package, _, version = line.partition("==")
        package = re.sub(r"\[.*\]", "", package).lower()
        assert package in locked, f"{package} of {name}.in is not locked: make lock"
        assert locked[package].startswith(version.removesuffix("*")), f"{line} is stale: make lock"


def test_what_is_deployed_is_what_is_tested() -> None:
    assert pins("runtime") < pins("dev")


def test_functions_do_not_carry_boto3() -> None:
    assert not {"boto3", "s3transfer"} & {package for package, _, _ in pins("runtime")}
