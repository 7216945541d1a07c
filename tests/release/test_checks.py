"""What may not leave this machine: each fault is found, all of them at once, and nothing else is called one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.parser import parse
from pipeline.errors import StoreError
from stages.common.release.destination import alone
from stages.common.release.private import (
    findings,
    is_generated_text,
    override_without_paths,
    value_without_paths,
    without_paths,
)
from stages.release.publish.__main__ import _parser
from stages.release.publish.assemble import assemble
from stages.release.publish.checks import problems
from stages.release.space.__main__ import _parser as space_parser
from tests.release import toy_store as toy


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An assembled model; each test spoils a copy of its own."""
    root = tmp_path_factory.mktemp("store")
    return assemble(toy.pretrained(root, toy.corpus(root)), None, "me/toy", root / "out")


@pytest.fixture
def assembled(original, tmp_path):
    return replace(original, folder=Path(shutil.copytree(original.folder, tmp_path / "out")))


def test_a_clean_folder_has_no_problem_though_its_vocabulary_holds_a_mail_address(assembled):
    assert b"me@example.org" in (assembled.folder / "tokenizer.json").read_bytes()
    assert problems(assembled) == []


def test_a_corpus_may_hold_addresses_and_paths_of_others(tmp_path):
    assert problems(assemble(toy.corpus(tmp_path), None, "me/texts", tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("pytorch_model.bin", b"x", "pytorch_model.bin: files of this kind are not published"),
        ("training.pt", b"x", "training.pt: files of this kind"),
        ("modeling.py", b"import os", "modeling.py: files of this kind"),
        (".env", b"A=1", ".env: files of this kind"),
        ("weights.json", b"\x80\x04\x95", "weights.json begins like a pickle"),
        ("figures/plot.png", b"PK\x03\x04rest", "figures/plot.png begins like a pickle, an archive or a program"),
        ("extra.json", b'{"auto_map": {"AutoModel": "x.Y"}}', "extra.json: 'auto_map' would run code from the repository"),
        ("broken.json", b"{", "broken.json is no JSON"),
        ("notes.md", b"see me@example.org", "notes.md, line 1: a mail address"),
        ("notes.txt", b"ok\nhf_" + b"a" * 34, "notes.txt, line 2: a token of the Hub"),
        ("notes.yaml", b"path: /home/ada/x.txt", "notes.yaml, line 1: a path of a machine"),
    ],
)
def test_a_file_that_must_not_leave_is_named(assembled, name, content, found):
    (assembled.folder / name).parent.mkdir(exist_ok=True)
    (assembled.folder / name).write_bytes(content)
    assert any(line.startswith(found) for line in problems(assembled))


def test_all_faults_are_listed_at_once(assembled):
    folder = assembled.folder
    (folder / "model.safetensors").write_bytes(b"other")
    (folder / "LICENSE").unlink()
    (folder / "provenance" / "text.corpus-c0000001.json").unlink()
    (folder / "a.pkl").write_bytes(b"x")
    (folder / "link.json").symlink_to("/etc/passwd")
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\nno licence, /home/ada/x\n")
    lines = "\n".join(problems(assembled))
    for found in (
        "LICENSE is missing",
        "model.safetensors was changed",
        "provenance/ lacks the record of c0000001",
        "a.pkl: files of this kind",
        "link.json is a link",
        "README.md names no licence",
        "README.md, line 4: a path of a machine (/home/ada/x)",
    ):
        assert found in lines


def test_a_record_that_was_written_anew_by_hand_is_noticed(assembled):
    path = assembled.folder / "provenance" / "text.pretrain-b0000001.json"
    path.write_text(path.read_text().replace("1.5", "0.5"))
    assert any("was changed after it was written (its digest does not fit)" in line for line in problems(assembled))


def test_a_licence_that_nobody_stated_keeps_the_model_here(tmp_path):
    model = toy.pretrained(tmp_path, toy.corpus(tmp_path, own=True, name="poems", licence="not stated"))
    lines = problems(assemble(model, None, "me/toy", tmp_path / "out"))
    assert any("that of 'poems' is not stated" in line for line in lines)
    assert "README.md names no licence" in lines
    assert problems(assemble(model, None, "me/toy", tmp_path / "out", stated_license="mit")) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hf_abcdefghijklmnopqrstuvwx", "a token of the Hub"),
        ("ghp_" + "a1" * 18, "a token of GitHub"),
        ("github_pat_" + "a1" * 20, "a token of GitHub"),
        ("AKIAABCDEFGHIJKLMNOP", "a key of AWS"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("https://me:secret@example.org/x", "a password in an address"),
        ("sk-" + "a" * 30, "an API key"),
        ("ada.l+x@mail.example.co.uk", "a mail address"),
        ('"/home/ada/data"', "a path of a machine"),
        ("--store=/tmp/x", "a path of a machine"),
        ("~/secret/notes", "a path of a machine"),
        ("C:\\Users\\ada\\x", "a path of a machine"),
        ("file:///data/x", "a path of a machine"),
        ("/lustre/ada/client", "a path of a machine"),
        ("['/projects/acme/x']", "a path of a machine"),
        ("/data2/ada/x", "a path of a machine"),
        ("C:/Users/ada/x", "a path of a machine"),
        ("a:/home/ada/x", "a path of a machine"),
        ("cache:/lustre/ada/x", "a path of a machine"),
        ("~ada/x", "a path of a machine"),
        ("\\\\server\\share\\x", "a path of a machine"),
        ('"\\\\\\\\server\\\\share\\\\x"', "a path of a machine"),
        ("or/ada@example.org", "a mail address"),
    ],
)
def test_what_tells_too_much_is_found(text, what):
    assert any(found.startswith(what) for _, found in findings(f"first\n{text}", "me/toy"))


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/docs/hub/storage-limits",
        "https://example.org/home/ada/page",
        "and/or, 1/2, configs/quickstart.yaml, data/train-*.parquet",
        "stage vae@seed=0 and me/toy@v1.0",
        "hf_hub, sk-learn, AKIA, a/tmp/b",
        "</defs><g id='x'/>",
        "hub:owner/name@release.one, me/toy@v1.beta, me/toy@1.0.rc",
        "token/s/GPU, 3/4/5, (a+b)/c/d, {repo}/resolve/main, **/a/b, [x]/y/z, <br/>/a/b",
        "s/a/b/ and /\\d+/ and // and /api and a /b and ~1/2 and ~/",
        "http://www.w3.org/1999/xlink hf://datasets/a/b s3://bucket/a/b",
        "Apache License, Version 2.0, http://www.apache.org/licenses/ (the License); AS IS and/or",
        '"\\\\nYou are\\\\nhere" "\\\\nYou\\\\nare" \\d+\\w',
    ],
)
def test_what_is_harmless_is_not(text):
    assert list(findings(text, "me/toy")) == []


def test_the_secret_itself_is_never_repeated():
    token = "hf_" + "q" * 34
    assert all(token not in what for _, what in findings(f"x {token}", "me/toy"))


def test_the_names_of_user_and_machine_are_found_but_not_where_they_are_the_repositorys_own():
    code = """
import getpass, os, platform
from stages.common.release.private import findings
assert [what for _, what in findings("made by ada77 on box", "me/toy")] == ["the name of this user"]
assert list(findings("ada77/toy is by ada77", "ada77/toy")) == []
assert list(findings("ada777 is another", "me/toy")) == []
assert list(findings("to root", "me/toy")) == []
"""
    environment = {"PATH": "", "USER": "ada77", "LOGNAME": "ada77", "HOME": "/nonexistent/home"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_paths_are_taken_out_and_the_rest_stays():
    assert (
        without_paths("files: [/home/ada/a.txt, b/c.txt] # https://x.org/home/y")
        == "files: [PATH, b/c.txt] # https://x.org/home/y"
    )


def test_a_path_with_blanks_goes_as_a_whole_out_of_scalars_comments_and_overrides():
    text = (
        "a: /home/ada/My Documents/Acme/contract.txt  # mine\n"
        "b: ['/lustre/ada/My Texts/x', c/d.txt]  # as in /home/ada/My Documents/Acme/contract.txt\n"
        "text: |\n  look at\n  /home/ada/My Texts\nd: 1/2  # https://x.org/home/y\n"
    )
    assert (
        without_paths(text) == "a: PATH  # mine\nb: [PATH, c/d.txt]  # as in PATH\ntext: PATH\nd: 1/2  # https://x.org/home/y\n"
    )
    assert without_paths("a: '/home/ada/My Texts/x\nb: 1\n") == "a: 'PATH\nb: 1\n"  # no YAML
    assert override_without_paths("stages.c.files=/home/ada/My Texts/p.txt") == "stages.c.files=PATH"
    assert override_without_paths("a.b=1/2") == "a.b=1/2"
    assert value_without_paths({"files": ["/home/ada/My Texts/x", "b"], "n": 1}) == {"files": ["PATH", "b"], "n": 1}


def test_vocabularies_and_weights_are_not_ours_to_search():
    assert not is_generated_text("tokenizer.json")
    assert not is_generated_text("data/train-00000-of-00001.parquet")
    assert is_generated_text("provenance/text.corpus-c0000001.json")
    assert is_generated_text("LICENSE")


def test_two_publishers_never_work_on_one_folder(tmp_path):
    with alone(tmp_path / "out"):
        with pytest.raises(StoreError, match="another publish works on it"), alone(tmp_path / "out"):
            pass
        with alone(tmp_path / "other"):
            pass
    with alone(tmp_path / "out"):
        pass


def test_the_command_and_the_programs_know_the_same_options():
    programs = (_parser(), space_parser())
    ours = {option for one in programs for action in one._actions for option in action.option_strings} - {"-h", "--help"}
    given = ["publish", "runs/x", "--repo", "me/toy"]
    known = {f"--{name.replace('_', '-')}" for name in vars(parse(given))} - {"--artifact", "--command", "--store", "--space"}
    assert known == ours
