"""Words and characters: what stands in a file reads the same for everybody, and names no machine but its reader's."""

import ast
import re

from tests.support.sources import files, functions, modules, text, tree

BINARY = (".png", ".ico", ".gz", ".zip")
TEXTS = [name for name in files() if not name.endswith(BINARY)]
PYTHON = modules("pipeline", "consumers", "infra", "tests")

# Put together here, so that this file doesn't hold what it looks for.
REGISTRIES = re.compile(
    "|".join(["pypi" + r"\.(org|python)", "python" + "hosted", "npm" + r"js\.", "crates" + r"\.io", "/sim" + "ple/"])
)
MACHINE = re.compile(
    "|".join([r"(?<![\w.])/" + place + "/" for place in ("ro" + "ot", "ho" + "me", "Us" + "ers", "wo" + "rk")])
)
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]))

# Letters and signs that prose uses on purpose; anything else outside ASCII must be meant, and stands in a test's data.
PROSE = set("äöüßÄÖÜéèêáàóñçÉ€—–→←≤≥≠×·…±µ°§“”„‘’‰│─├└┌┐┘┤┬┴┼►▼▲✓✗●○─━█▏▎▍▌▋▊▉⏎≈")
INVISIBLE = re.compile("[\u00a0\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def test_a_file_is_clean_utf8() -> None:
    wrong = []
    for name in TEXTS:
        content = text(name)
        wrong += [f"{name}: carriage return"] if "\r" in content else []
        wrong += [f"{name}: {found[0]!a}" for found in INVISIBLE.finditer(content)]
        wrong += [f"{name}: no line end at its end"] if content and not content.endswith("\n") else []
        wrong += [f"{name}: tab"] if "\t" in content and name.split("/")[-1] != "Makefile" else []
    assert wrong == []


def test_code_has_no_surprising_characters() -> None:
    code = [name for name in PYTHON if not name.startswith("tests/")]
    surprising = {name: {sign for sign in text(name) if not sign.isascii()} - PROSE for name in code}
    assert {name: signs for name, signs in surprising.items() if signs} == {}


def test_names_in_code_are_ascii() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name in PYTHON
        for node in ast.walk(tree(name))
        if (isinstance(node, ast.Name) and not node.id.isascii())
        or (isinstance(node, ast.Attribute) and not node.attr.isascii())
    ]
    assert wrong == []


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    wrong = [
        f"{name}: {found[0]}" for name in TEXTS for search in (REGISTRIES, MACHINE) for found in search.finditer(text(name))
    ]
    assert wrong == []


def test_nothing_is_left_for_later() -> None:
    assert [f"{name}: {found[0]}" for name in PYTHON for found in UNFINISHED.finditer(text(name))] == []


def test_the_searches_find_what_they_look_for() -> None:
    assert REGISTRIES.search("https://py" + "pi.org/x")
    assert MACHINE.search("open('/ro" + "ot/x')")
    assert not MACHINE.search("infra/wo" + "rk/x")
    assert UNFINISHED.search("# TO" + "DO: later")
    assert INVISIBLE.search("a\u200bb")


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "data", "misc", "common"}
    assert [name for name in PYTHON if name.split("/")[-1].removesuffix(".py") in empty] == []


def test_the_names_of_tests_are_sentences() -> None:
    short = [
        f"{name}:{function.lineno} {function.name}"
        for name in modules("tests")
        for function in functions(name)
        if function.name.startswith("test_") and len(function.name.split("_")) < 4
    ]
    assert short == []
