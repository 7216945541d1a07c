"""The table of mutations still applies: each text stands once in its file, and each test is there."""

from __future__ import annotations

from tests.mutations import MUTATIONS, ROOT


def test_every_mutation_finds_its_text_and_its_test() -> None:
    sources = {file: (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else "" for file in files()}
    wrong = [
        f"{m.guard}: its text stands {sources[m.file].count(m.old)} times" for m in MUTATIONS if sources[m.file].count(m.old) != 1
    ]
    for mutation in MUTATIONS:
        file, name = mutation.test.split("::")
        if f"\ndef {name.partition('[')[0]}(" not in sources[file]:
            wrong.append(f"{mutation.guard}: no test {mutation.test}")
    assert wrong == []


def files() -> set[str]:
    return {m.file for m in MUTATIONS} | {m.test.partition("::")[0] for m in MUTATIONS}


def test_no_guard_stands_in_the_table_twice() -> None:
    guards = [m.guard for m in MUTATIONS]
    assert len(guards) == len(set(guards)) > 250
