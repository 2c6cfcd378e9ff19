"""Sizes and shapes: a file over 400 lines or a function over 60 is two things; a door fits on a screen."""

import ast

from tests.support.sources import TABLE, broad_excepts, dotted, functions, modules, state_comparisons, text, tree

CODE = modules("pipeline", "consumers")
ALL = modules("pipeline", "consumers", "infra", "tests")
LINES_MAX, FUNCTION_LINES_MAX, DOOR_LINES_MAX, DOCSTRING_LINES_MAX = 400, 60, 120, 14


def test_a_file_is_one_thing() -> None:
    sizes = {name: len(text(name).splitlines()) for name in ALL}
    assert {name: size for name, size in sizes.items() if size > LINES_MAX} == {}


def test_a_door_fits_on_a_screen() -> None:
    sizes = {name: len(text(name).splitlines()) for name in modules("consumers")}
    assert {name: size for name, size in sizes.items() if size > DOOR_LINES_MAX} == {}


def test_a_function_is_one_thing() -> None:
    sizes = {
        f"{name}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for name in ALL
        for function in functions(name)
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def test_a_module_says_what_it_is_for_and_a_folder_nothing() -> None:
    named = [name for name in ALL if not name.endswith("__init__.py")]
    described = {name: (ast.get_docstring(tree(name)) or "").splitlines() for name in named}
    assert [name for name, lines in described.items() if not lines or len(lines) > DOCSTRING_LINES_MAX] == []
    assert [name for name in set(ALL) - set(named) if text(name)] == []


def test_states_are_compared_in_the_table_alone() -> None:
    assert [found for name in CODE if name != TABLE for found in state_comparisons(name)] == []


def test_the_search_for_comparisons_finds_one_where_there_is_one() -> None:
    assert list(state_comparisons("tests/support/world.py")) == []
    assert list(state_comparisons("tests/unit/test_intake.py")) != []


def test_only_a_door_and_the_terminals_main_catch_everything() -> None:
    elsewhere = [name for name in CODE if not name.startswith("consumers/") and name != "pipeline/cli/main.py"]
    assert [found for name in elsewhere for found in broad_excepts(name)] == []


def test_no_error_is_dropped() -> None:
    silent = [
        f"{name}:{node.lineno}"
        for name in ALL
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body)
    ]
    assert silent == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    marks = {"skip", "skipif", "xfail", "importorskip"}
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name in modules("tests")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in marks
        # What AWS ships for one system only can't run on another; there is no other reason to leave a test out.
        if not (node.args and ast.unparse(node.args[0]).startswith("sys.platform"))
    ]
    assert found == []
