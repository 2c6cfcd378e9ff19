"""Who may know whom. Arrows point down only: consumers, cli → runtime → api → services, stores → domain."""

import ast
import sys

import pytest

from tests.support.sources import CODE, dotted, imports, modules, tree

# A room and what of ours it may import. The first matching prefix is the module's room.
ROOMS: dict[str, tuple[str, ...]] = {
    "pipeline/domain/": ("pipeline.domain",),
    "pipeline/services/": ("pipeline.domain", "pipeline.services"),
    "pipeline/stores/": ("pipeline.domain", "pipeline.services.ports", "pipeline.stores"),
    "pipeline/api/": ("pipeline.domain", "pipeline.services", "pipeline.api"),
    "pipeline/runtime/": ("pipeline.domain", "pipeline.services", "pipeline.stores", "pipeline.api", "pipeline.runtime"),
    "pipeline/replay/": (
        "pipeline.domain",
        "pipeline.services.ports",
        "pipeline.stores",
        "pipeline.runtime",
        "pipeline.replay",
    ),
    "pipeline/clients/": ("pipeline.domain", "pipeline.clients"),
    "pipeline/local/": (
        "pipeline.domain",
        "pipeline.services",
        "pipeline.stores",
        "pipeline.runtime",
        "pipeline.clients",
        "pipeline.local",
        "infra.build",
    ),
    "pipeline/cli/": ("pipeline",),
    "consumers/": ("pipeline.domain", "pipeline.services", "pipeline.api", "pipeline.runtime", "consumers"),
    "pipeline/": (),
}
THIRD_PARTY: dict[str, set[str]] = {
    "pipeline/domain/": {"pydantic", "pydantic_core"},
    "pipeline/services/": {"tenacity"},
    "pipeline/api/": {"pydantic"},
    "consumers/": {"aws_lambda_powertools"},
}
MODULES = modules(*CODE)
OURS = ("pipeline", "consumers", "infra", "tests")


def room(name: str) -> str:
    return next(prefix for prefix in ROOMS if name.startswith(prefix))


def within(imported: str, allowed: tuple[str, ...]) -> bool:
    return any(imported == one or imported.startswith(f"{one}.") for one in allowed)


def test_a_room_knows_only_the_rooms_below_it() -> None:
    wrong = []
    for name in MODULES:
        allowed = ROOMS[room(name)]
        # `from pipeline.services import ports` names the folder first: that alone is no knowledge of what is in it.
        folders = {one.rpartition(".")[0] for one in allowed}
        wrong += [
            f"{name}:{line} imports {imported}"
            for line, imported in imports(name)
            if imported.split(".")[0] in OURS and not within(imported, allowed) and imported not in folders
        ]
    assert wrong == []


def test_core_services_and_doors_depend_on_few_libraries() -> None:
    wrong = [
        f"{name}:{line} imports {imported}"
        for name in MODULES
        if room(name) in THIRD_PARTY
        for line, imported in imports(name)
        if imported.split(".")[0] not in THIRD_PARTY[room(name)] | sys.stdlib_module_names | set(OURS)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("aiobotocore", ("pipeline/stores/clients.py",)),
        ("botocore", ("pipeline/stores/", "pipeline/clients/", "pipeline/local/", "pipeline/cli/")),
        ("boto3", ()),
        ("orjson", ("pipeline/replay/",)),
        ("msgspec", ("pipeline/replay/",)),
        ("typer", ("pipeline/cli/",)),
        ("rich", ("pipeline/cli/", "pipeline/local/")),
    ],
)
def test_a_library_is_known_in_its_room_only(library: str, rooms: tuple[str, ...]) -> None:
    importers = {name for name in MODULES for _, imported in imports(name) if imported.split(".")[0] == library}
    assert {name for name in importers if not name.startswith(rooms or ("nowhere",))} == set()


# What would make the core depend on when, where and in which process it runs.
BANNED_MODULES = {
    "random",
    "secrets",
    "os",
    "logging",
    "time",
    "asyncio",
    "threading",
    "subprocess",
    "socket",
    "tempfile",
    "pathlib",
}
BANNED_CALLS = {
    "now",
    "utcnow",
    "today",
    "uuid1",
    "uuid4",
    "getenv",
    "urandom",
    "hash",
    "id",
    "open",
    "print",
    "input",
    "getLogger",
}


def test_the_core_has_no_clock_chance_environment_or_io() -> None:
    core = [name for name in MODULES if room(name) == "pipeline/domain/"]
    wrong = [
        f"{name}:{line} imports {imported}"
        for name in core
        for line, imported in imports(name)
        if imported.split(".")[0] in BANNED_MODULES
    ]
    for name in core:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                wrong.append(f"{name}:{node.lineno} is asynchronous")
            if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in BANNED_CALLS:
                wrong.append(f"{name}:{node.lineno} calls {dotted(node.func)}")
    assert len(core) > 10
    assert wrong == []


def test_only_the_settings_read_the_environment() -> None:
    allowed = ("pipeline/runtime/settings.py", "pipeline/local/", "pipeline/cli/")
    readers = {
        name
        for name in MODULES
        for node in ast.walk(tree(name))
        if dotted(node) in ("os.environ", "os.getenv", "os.environb")
        or (
            isinstance(node, ast.ImportFrom) and node.module == "os" and {"environ", "getenv"} & {a.name for a in node.names}
        )
    }
    assert {name for name in readers if not name.startswith(allowed)} == set()


def test_services_and_stores_take_time_from_their_clock() -> None:
    rooms = ("pipeline/services/", "pipeline/stores/")
    wrong = [
        f"{name}:{node.lineno}: {dotted(node.func)}"
        for name in MODULES
        if name.startswith(rooms)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
        and dotted(node.func) in ("datetime.now", "datetime.utcnow", "time.time", "asyncio.sleep")
    ]
    assert wrong == []


def test_every_module_has_a_room() -> None:
    assert len(MODULES) > 20
    homeless = [name for name in MODULES if room(name) == "pipeline/" and not name.endswith("__init__.py")]
    assert homeless == []
