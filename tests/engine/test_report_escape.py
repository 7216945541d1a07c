"""Text out of data never becomes structure: whatever stands in any field, the page has the same elements.

The claim is tested on the parsed page: a report in which every text is hostile must parse to the very tags, attributes and
Markdown blocks of the report in which every text is a plain word.
"""

import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.report.escape import element, fenced, to_html, to_markdown, visible
from pipeline.report.markdown import table
from tests.engine.report_samples import HOSTILE, hostile_report

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXTS = st.text(st.characters(codec=None), max_size=60) | st.text("<>\"'&-=#|`*_[]()\\!~.1 \n\t\r:/w\u202e", max_size=40)
ATTACKS = [
    HOSTILE,
    "</script><script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "]]>--><!-- -->",
    "&lt;b&gt; &#60;b>",
    "a\\",
    "\ud800",
    "www.example.org https://example.org",
    "    code",
    "1. one",
    "1) one",
    "===",
    "- x",
    "+ x",
    "> x",
    "``` x",
    "~~~",
    "|",
    "a\n\n---\n\nb",
    "<a@b.c>",
    "[a]: b",
    "&copy;",
    "\\|",
]


class Tags(HTMLParser):
    """Remembers elements with the names of their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.tags.append(("comment",))


def blocks(markdown: str) -> list[str]:
    """Return the structure of a document: its tokens, those inside lines as well, without their text."""
    tokens = MARKDOWN.parse(markdown)
    return [one.type for token in tokens for one in [token, *(token.children or [])]]


@given(TEXTS)
def test_any_text_in_html_is_text(text):
    page = Tags(element("p", text, title=text))
    assert page.tags == [("p", "title"), ("/p",)]
    assert page.text == visible(text)


@pytest.mark.parametrize("text", ATTACKS)
def test_known_attacks_in_html_are_text(text):
    assert Tags(to_html(text)).tags == []
    assert Tags(to_html(text)).text == visible(text)


@given(TEXTS)
def test_any_text_in_markdown_is_one_paragraph_of_text(text):
    line = to_markdown(text)
    assert blocks(line) in ([], ["paragraph_open", "inline", "text", "paragraph_close"])
    shown = "".join(child.content for token in MARKDOWN.parse(line) for child in token.children or [])
    assert shown == " ".join(visible(text).split())


@pytest.mark.parametrize("text", ATTACKS)
def test_known_attacks_in_markdown_are_text(text):
    assert set(blocks(to_markdown(text))) <= {"paragraph_open", "inline", "text", "paragraph_close"}


@given(TEXTS, TEXTS)
def test_any_text_in_a_table_stays_in_its_cell(first, second):
    rows = MARKDOWN.parse(table(["a", first], [[second, first], [first, second]]))
    kinds = [token.type for token in rows]
    assert kinds[0] == "table_open"
    assert kinds[-1] == "table_close"
    assert kinds.count("tr_open") == 3
    assert kinds.count("th_open") == 2
    assert kinds.count("td_open") == 4
    assert {child.type for token in rows for child in token.children or []} <= {"text"}


@given(TEXTS | st.lists(st.sampled_from(["```", "````", "~~~", "x", "", " ```"]), max_size=6).map("\n".join))
def test_any_text_in_a_fence_stays_in_it(text):
    (token,) = MARKDOWN.parse(fenced(text, "text"))
    assert token.type == "fence"
    assert token.content.split("\n") == [*re.split(r"\n", visible(text).replace("\r", "\n")), ""]


def test_numbers_and_common_signs_in_markdown_stay_legible():
    for text in ("4.012", "1,234", "3 min 05 s", "a.txt", "x - y", "50 % + 1", "-", "–"):
        assert to_markdown(text) in (text, f"\\{text}")
    assert to_markdown("4.012 byte/token") == "4.012 byte/token"


def test_direction_marks_and_controls_are_shown_by_name():
    assert visible("a\u202eb\x00c\x1b\x7f\x85\ud800\r\nd\te") == "a⟨U+202E⟩b␀c␛␡⟨U+0085⟩⟨U+D800⟩\nd\te"


def test_letters_of_all_scripts_and_joined_emoji_stay_as_they_are():
    text = "مرحبا שלום 中文 ไทย 🧬 👩‍👩‍👧 é"
    assert visible(text) == text


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    page, markdown = hostile_report(tmp_path_factory.mktemp("plain"), "word")
    return Tags(page).tags, blocks(markdown)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\n@"), max_size=40))  # a blank line ends a paragraph, @ a name
@example(HOSTILE)
def test_a_report_has_the_same_elements_whatever_its_texts_say(plain, text):
    with tempfile.TemporaryDirectory() as folder:
        page, markdown = hostile_report(Path(folder), f"w{text}w")
    assert Tags(page).tags == plain[0]
    assert blocks(markdown) == plain[1]
    page.encode()
    markdown.encode()


def test_a_hostile_document_is_shown_and_not_obeyed(tmp_path):
    page, markdown = hostile_report(tmp_path, HOSTILE)
    assert "<script" not in page
    assert "<script" not in re.sub(r"(?ms)^(`{3,}).*?^\1$", "", markdown)
    assert "<script>alert(1)</script>\n---\n# h" in Tags(page).text
    assert "\u202e" not in page + markdown
    assert "\x00" not in page + markdown
