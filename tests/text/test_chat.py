"""The terminal chat: whole characters, nothing that steers the terminal, and a way out."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import DataError
from stages.common.stream import neutralise, whole_characters
from stages.text.chat.conversation import WELCOME, Conversation, Settings
from stages.text.chat.loading import load
from tests.text.tiny_bases import byte_tokenizer, save_base, tiny_model

SETTINGS = Settings(seed=1, temperature=1.0, top_k=0, max_new_tokens=30)


def token_ids(text):
    return byte_tokenizer().encode(text)


@pytest.mark.parametrize("text", ["plain", "naïve café", "你好，世界", "👩‍👩‍👧 and 🇬🇷", "\n\ttabs\n"])
def test_characters_come_out_whole_and_all_of_them(text):
    ids = token_ids(text)
    assert len(ids) == len(text.encode())  # every token is one byte, so most characters arrive in parts
    pieces = list(whole_characters(byte_tokenizer().backend_tokenizer, ids))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_that_is_never_completed_does_not_vanish():
    ids = token_ids("a é")[:-1]
    assert "".join(whole_characters(byte_tokenizer().backend_tokenizer, ids)) == "a \ufffd"


def test_text_appears_as_soon_as_a_character_is_complete():
    seen = []

    def tokens():
        for token in token_ids("aé"):
            seen.append("token")
            yield token

    for piece in whole_characters(byte_tokenizer().backend_tokenizer, tokens()):
        seen += [piece]
    assert seen == ["token", "a", "token", "token", "é"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("one\rtwo\x08\x7f", "one␍two␈␡"),
        ("\x9b31m\x85", "\ufffd31m\ufffd"),
        ("\u202egnp.exe\u2066", "\ufffdgnp.exe\ufffd"),
        ("a\tb\nc", "a\tb\nc"),
        ("👩‍👩‍👧 é 你", "👩‍👩‍👧 é 你"),
    ],
)
def test_what_could_steer_the_terminal_is_shown_instead(raw, shown):
    assert neutralise(raw) == shown


def conversation(settings=SETTINGS):
    output = io.StringIO()
    return Conversation(tiny_model(), byte_tokenizer(), settings, output), output


def test_every_line_of_a_pipe_is_continued_and_the_end_of_input_leaves():
    chat, output = conversation()
    chat.run(io.StringIO("ROMEO\n\nlast line without end"), interactive=False)
    text = output.getvalue()
    assert text.startswith("ROMEO")
    assert "\nlast line without end" in text
    assert WELCOME not in text
    assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]


def test_a_terminal_is_told_once_what_the_model_does():
    chat, output = conversation()
    chat.run(io.StringIO("a\nb\n"), interactive=True)
    assert output.getvalue().count("This model continues text") == 1
    assert output.getvalue().count("> ") >= 3


def test_the_same_seed_gives_the_same_text_and_the_next_text_differs():
    (first, one), (second, two) = conversation(), conversation()
    for chat in (first, second):
        chat.run(io.StringIO("x\nx\n"), interactive=False)
    assert one.getvalue() == two.getvalue()
    solo, output = conversation()
    solo.continue_text("x")
    assert one.getvalue().startswith(output.getvalue())
    assert one.getvalue() != 2 * output.getvalue()


def test_a_text_ends_where_the_model_cannot_read_on():
    chat, output = conversation(Settings(seed=1, temperature=1.0, top_k=0, max_new_tokens=10_000))
    chat.continue_text("x" * 60)
    with pytest.raises(DataError, match="64 tokens, but the model reads 64"):
        chat.continue_text("x" * 64)
    chat.run(io.StringIO("x" * 64 + "\n"), interactive=True)
    assert "shorten it" in output.getvalue()


class Interrupting(io.StringIO):
    """A terminal whose user presses Ctrl-C during the first generated text, and types on."""

    def __init__(self) -> None:
        super().__init__()
        self.pressed = False

    def write(self, text):
        if not self.pressed and text not in (WELCOME, "> ", "x"):
            self.pressed = True
            raise KeyboardInterrupt
        return super().write(text)


def test_control_c_stops_the_text_and_the_next_one_leaves():
    output = Interrupting()
    chat = Conversation(tiny_model(), byte_tokenizer(), SETTINGS, output)
    chat.run(io.StringIO("x\n"), interactive=True)
    assert "(stopped)" in output.getvalue()

    class Pressed(io.StringIO):
        def readline(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat.run(Pressed(), interactive=True)


def test_a_folder_without_a_model_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no part of a model"):
        load(tmp_path)
    save_base(tmp_path / "model")
    with pytest.raises(DataError, match="has no adapter: it holds model"):
        load(tmp_path, part="adapter")
    assert load(tmp_path)[0].config.model_type == "qwen3"
    assert load(tmp_path / "model")[0].config.model_type == "qwen3"


@pytest.mark.slow
def test_the_program_continues_a_prompt_and_names_a_missing_folder(tmp_path):
    save_base(tmp_path / "model")
    command = [sys.executable, "-m", "stages.text.chat"]
    root = Path(__file__).resolve().parents[2]

    def run(*arguments, given=""):
        return subprocess.run([*command, *arguments], input=given, cwd=root, capture_output=True, text=True, check=False)

    done = run(str(tmp_path), "--prompt", "ROMEO", "--max-new-tokens", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ROMEO")
    piped = run(str(tmp_path), "--max-new-tokens", "5", given="ROMEO\n")
    assert piped.stdout == done.stdout
    missing = run(str(tmp_path / "none"))
    assert missing.returncode == 2
    assert missing.stderr.strip() == f"'{tmp_path / 'none'}' is no folder; give an artifact, such as runs/quickstart/finetune"
