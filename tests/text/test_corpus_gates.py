"""What is wrong with a record is counted and named by file and row, then refused, repaired or dropped: text.md, 7.1."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from stages.common.plain_text import TextCut
from stages.common.records import SourceFile
from stages.text.corpus.gates import Gates, Policy
from stages.text.corpus.sources import local_files, records_of_files

ACTIONS = dict.fromkeys(("invalid_utf8", "surrogate", "nul", "missing_text", "wrong_type", "bad_record"), "refuse")
GOOD = b'{"text": "good"}\n'


def admit(files: list[SourceFile], cut: TextCut | None = None, **policy: object) -> tuple[list[str], Gates]:
    """Read `files` through the gates; options that name a kind of finding set its action."""
    actions = {kind: str(policy.pop(kind, action)) for kind, action in ACTIONS.items()}
    gates = Gates(Policy(actions=actions, **policy))
    rows = list(gates.documents(records_of_files(files, reader=None, cut=cut or TextCut())))
    gates.refuse()
    return [row["text"] or "" for row in rows], gates


def file(name: str, content: bytes | str) -> SourceFile:
    return SourceFile.of_bytes(name, content if isinstance(content, bytes) else content.encode())


BAD = [
    # id, file, content, kind, row, what repair gives
    ("invalid-utf8-jsonl", "a.jsonl", GOOD + b'{"text": "caf\xe9"}\n', "invalid_utf8", 2, "caf\ufffd"),
    ("invalid-utf8-text", "a.txt", b"one\ncaf\xe9\n", "invalid_utf8", 1, "one\ncaf\ufffd"),
    ("invalid-utf8-csv", "a.csv", b"text,n\ngood,1\ncaf\xe9,2\n", "invalid_utf8", 3, "caf\ufffd"),
    ("encoded-surrogate", "a.txt", b"x\xed\xa0\x80y\n", "invalid_utf8", 1, "x\ufffd\ufffd\ufffdy"),
    ("lone-surrogate", "a.jsonl", GOOD + b'{"text": "x\\ud800y"}\n', "surrogate", 2, "x\ufffdy"),
    ("lone-low-surrogate", "a.jsonl", GOOD + b'{"text": "x\\udc99y"}\n', "surrogate", 2, "x\ufffdy"),
    ("nul-text", "a.txt", b"a\0b\n", "nul", 1, "ab"),
    ("nul-jsonl", "a.jsonl", GOOD + b'{"text": "a\\u0000b"}\n', "nul", 2, "ab"),
    ("integer", "a.jsonl", GOOD + b'{"text": 7}\n', "wrong_type", 2, "7"),
    ("float", "a.jsonl", GOOD + b'{"text": 7.5}\n', "wrong_type", 2, "7.5"),
    ("list", "a.jsonl", GOOD + b'{"text": ["a", "b"]}\n', "wrong_type", 2, None),
    ("nested", "a.jsonl", GOOD + b'{"text": {"text": "deep"}}\n', "wrong_type", 2, None),
    ("null", "a.jsonl", GOOD + b'{"text": null}\n', "missing_text", 2, None),
    ("nan", "a.jsonl", GOOD + b'{"text": NaN}\n', "missing_text", 2, None),
    ("missing-column", "a.jsonl", GOOD + b'{"txt": "x"}\n', "missing_text", 2, None),
    ("wrong-column", "a.csv", b"body,n\ngood,1\n", "missing_text", 2, None),
    ("short-csv-row", "a.csv", b"n,text\n1,good\n2\n", "missing_text", 3, None),
    ("long-csv-row", "a.csv", b"text,n\ngood,1\nbad, very bad,2\n", "bad_record", 3, None),
    ("truncated-last-line", "a.jsonl", GOOD + b'{"text": "cut', "bad_record", 2, None),
    ("not-json", "a.jsonl", b"plain\n" + GOOD, "bad_record", 1, None),
    ("not-an-object", "a.jsonl", GOOD + b'["text"]\n', "bad_record", 2, None),
    ("deep-json", "a.jsonl", b"[" * 100_000 + b"\n" + GOOD, "bad_record", 1, None),
]


@pytest.mark.parametrize(("name", "content", "kind", "row", "repaired"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_a_bad_record_is_refused_by_file_and_row_or_repaired_or_dropped(name, content, kind, row, repaired):
    with pytest.raises(DataError, match=rf"1 x .*on_{kind}=[\s\S]*{name}, row {row}: "):
        admit([file(name, content)])
    texts, gates = admit([file(name, content)], **{kind: "drop"})
    assert set(texts) <= {"good"}
    assert gates.counts == {(kind, "drop"): 1}
    if repaired is not None:
        texts, gates = admit([file(name, content)], **{kind: "repair"})
        assert repaired in texts
        assert gates.counts == {(kind, "repair"): 1}


@pytest.mark.parametrize(
    ("content", "kind", "result"),
    [
        ("\ufefftext", "byte_order_mark", ["text"]),
        ("a\r\nb\rc", "carriage_return", ["a\nb\nc"]),
        ("e\u0301", "unicode_form", ["\u00e9"]),
    ],
    ids=["bom", "crlf", "nfd"],
)
def test_harmless_differences_are_repaired_and_counted(content, kind, result):
    texts, gates = admit([file("a.txt", content)])
    assert texts == result
    assert gates.counts == {(kind, "repair"): 1}


def test_hard_but_right_unicode_is_left_alone():
    text = "\u200b\u202eאב\u202c 👩\u200d👩\u200d👧 𠮷 \ufeffinside ﬁ Å"
    assert admit([file("a.txt", text)], nfc=False)[0] == [text]
    assert admit([file("a.jsonl", json.dumps({"text": "\ud83d\ude00 pair"}) + "\n")])[0] == ["😀 pair"]


def test_gzip_is_known_by_content_whatever_the_name():
    packed = gzip.compress(GOOD, mtime=0)
    assert admit([file("a.jsonl.gz", packed)])[0] == ["good"]
    texts, gates = admit([file("a.jsonl", packed)])
    assert texts == ["good"]
    assert gates.counts == {("gzip_name", "repair"): 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "utf sixteen".encode("utf-16"), "this is UTF-16; convert it: iconv"),
        ("a.jsonl.gz", gzip.compress(GOOD * 1000, mtime=0)[:-20], "gzip stream is broken or cut off"),
        ("a.jsonl.gz", GOOD, "the name says gzip, the content is not"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"7", "must hold a list of records"),
        ("a.csv", b"text,text\n1,2\n", "names a column twice"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_by_name(name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        admit([file(name, content)])
    assert name in str(caught.value)


def test_all_that_is_refused_is_told_at_once_with_counts_and_the_way_out():
    lines = b'{"text": null}\n' * 7 + b'{"text": 1}\n' + GOOD
    with pytest.raises(DataError, match="missing_text=drop") as caught:
        admit([file("a.jsonl", lines)])
    message = str(caught.value)
    assert "7 x no text" in message
    assert "1 x text that is not a string" in message
    assert message.count("row ") == 6  # five examples of the first kind, one of the second


def test_a_wrong_column_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="no column 'text' .did you mean 'texts'"):
        admit([file("a.jsonl", '{"texts": "x"}\n')])


def test_a_duplicate_file_is_read_once_and_named():
    texts, gates = admit([file("a.jsonl", GOOD), file("b.jsonl", GOOD)])
    assert texts == ["good"]
    assert gates.counts == {("duplicate_file", "drop"): 1}


def test_a_link_to_nothing_and_an_unreadable_file_are_named(tmp_path: Path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"link\.txt' is a link to nothing"):
        local_files((str(tmp_path / "link.txt"),))
    closed = tmp_path / "closed.txt"
    closed.write_text("secret")
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read everything (root)")
    with pytest.raises(DataError, match=r"closed\.txt' cannot be read"):
        local_files((str(closed),))


def test_a_file_that_fails_while_it_is_read_is_named():
    def fail() -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(DataError, match=r"closed\.txt: cannot be read: Permission denied"):
        admit([SourceFile("closed.txt", "0" * 64, fail)])


def test_one_huge_line_is_cut_into_documents_and_loses_nothing():
    texts, gates = admit([file("a.txt", "x" * 1_000_000)], max_characters=100_000)
    assert "".join(texts) == "x" * 1_000_000
    assert max(map(len, texts)) <= 100_000
    assert gates.counts["long_document", "repair"] == len(texts)
    spaced = "word " * 100_000
    texts, _ = admit([file("a.jsonl", json.dumps({"text": spaced}) + "\n")], max_characters=1000)
    assert "".join(texts) == spaced
    assert max(map(len, texts)) <= 1000
    assert all(text.endswith(" ") for text in texts)


def test_empty_and_short_documents_are_dropped_and_counted():
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("", " \n", "ab", "abcdef"))
    texts, gates = admit([file("a.jsonl", lines)], min_characters=3)
    assert texts == ["abcdef"]
    assert gates.counts == {("empty_document", "drop"): 2, ("short_document", "drop"): 1}


def test_parquet_gives_rows_and_finds_bad_bytes_with_their_row(tmp_path: Path):
    column = pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"caf\xe9", None], pa.binary()).buffers())
    pq.write_table(pa.table({"text": column, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    files = local_files((str(tmp_path),))
    with pytest.raises(DataError, match=r"a\.parquet, row 2: at character 3[\s\S]*a\.parquet, row 3: column 'text' is null"):
        admit(files)
    assert admit(files, invalid_utf8="repair", missing_text="drop")[0] == ["good", "caf\ufffd"]


def test_json_files_hold_lists_or_objects_of_records_or_bare_texts():
    assert admit([file("a.json", '[{"text": "a"}, {"text": "b"}, "c"]')])[0] == ["a", "b", "c"]
    texts, _ = admit([file("a.json", '{"k": {"text": "a"}, "l": "b"}')])
    assert texts == ["a", "b"]


def test_a_template_makes_the_text_and_cannot_leave_its_columns():
    record = file("a.jsonl", '{"title": "T", "steps": ["x", "y"]}\n')
    template = "{{ title }}\n{% for step in steps %}\n{{ loop.index }}. {{ step }}\n{% endfor %}"
    assert admit([record], template=template)[0] == ["T\n1. x\n2. y\n"]
    with pytest.raises(DataError, match="the template fails: 'name' is undefined"):
        admit([record], template="{{ name }}")
    with pytest.raises(DataError, match="the template fails: access to attribute '__class__'"):
        admit([record], template="{{ title.__class__.__mro__ }}")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("file", ["one\ntwo\n\nthree"]),
        ("paragraph", ["one\ntwo", "three"]),
        ("line", ["one", "two", "three"]),
        ("auto", ["one\ntwo\n\nthree"]),
    ],
)
def test_a_text_file_becomes_documents_as_told(mode, expected):
    assert admit([file("a.txt", "\none\ntwo\n\nthree\n")], TextCut(mode))[0] == expected


@pytest.mark.parametrize("seam", ["\n", "\r\n", "\n\n", ". "])
def test_a_long_text_is_cut_near_the_wanted_length_and_keeps_every_word(seam):
    text = seam.join(f"sentence number {i}" for i in range(4000))
    texts, _ = admit([file("a.txt", text)], TextCut("auto", characters=500))
    assert " ".join(texts).split() == text.split()
    assert all(400 < len(document) < 1100 for document in texts[:-1])
