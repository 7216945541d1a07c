"""A base of somebody else: its licence and its origin go with all that is made from it, and nobody speaks for its owner."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from pipeline.errors import Damaged
from stages.common.lora import BaseIdentity
from stages.common.release.foreign import foreign_bases
from stages.common.release.layout import CARD
from stages.release.publish.assemble import assemble
from stages.release.publish.checks import problems
from stages.release.space.assembly import assemble as assemble_space
from stages.release.space.kinds import App
from stages.text.finetune.base import Base, license_in, open_base
from stages.text.finetune.config import Config
from stages.text.finetune.report import _base_license
from tests.harness import make_context
from tests.release import toy_store as toy
from tests.text.tiny_bases import save_base

COMMIT = "ab" * 20
UNSTATED = "licence: that of the base google/gemma@abab"


@pytest.fixture
def corpus(tmp_path):
    return toy.corpus(tmp_path, licence="cc-by-4.0")


def tuned(root, data, licence, **more):
    identity = {"name": "google/gemma", "tensors_sha256": "ee" * 32, "revision": COMMIT, "license": licence} | more
    return toy.finetuned(root, None, data, identity=identity)


def made(tmp_path, artifact, **options):
    return assemble(artifact, "merged", "me/toy", tmp_path / "out", **options)


def test_the_bases_own_licence_is_carried_on_not_the_combined_one(tmp_path, corpus):
    assembled = made(tmp_path, tuned(tmp_path, corpus, "gemma"))
    data = ModelCard((assembled.folder / CARD).read_text()).data
    assert (data["license"], data["license_name"]) == ("other", "cc-by-4.0-and-gemma")
    assert not any("licence" in line for line in problems(assembled))
    assert f"Not made here, and under the terms in its own repository: base google/gemma@{COMMIT}." in assembled.licence.text()


@pytest.mark.parametrize("licence", [None, "not stated", "other", "mit and other", "unknown"])
def test_a_base_without_a_licence_is_refused_and_license_does_not_speak_for_its_owner(tmp_path, corpus, licence):
    model = tuned(tmp_path, corpus, licence)
    for stated in (None, "mit"):
        (line,) = [line for line in problems(made(tmp_path, model, stated_license=stated)) if line.startswith("licence")]
        assert line.startswith(UNSTATED)
        assert "--license speaks for your own data only" in line
        assert "README.md (license: NAME)" in line


def test_license_still_fills_in_for_own_data_beside_a_base_that_has_one(tmp_path):
    poems = toy.corpus(tmp_path, own=True, name="poems", licence="not stated")
    found = made(tmp_path, tuned(tmp_path, poems, "apache-2.0"), stated_license="mit").licence
    assert (found.name, found.assumed) == ("apache-2.0-and-mit", ("poems",))


def test_a_second_fine_tuning_keeps_licence_and_origin_of_the_base_of_the_first(tmp_path, corpus):
    second = toy.finetuned(tmp_path, tuned(tmp_path, corpus, "gemma"), corpus, "f0000002")
    assembled = made(tmp_path, second)
    assert assembled.licence.by_data[f"base google/gemma@{COMMIT}"] == "gemma"
    assert f"fine-tuned with Groundup from `google/gemma@{COMMIT}`" in (assembled.folder / CARD).read_text()


def test_the_card_says_whose_model_it_was_and_what_is_not_known_of_it(tmp_path, corpus):
    text = (made(tmp_path, tuned(tmp_path, corpus, "gemma")).folder / CARD).read_text()
    assert f"A language model, fine-tuned with Groundup from `google/gemma@{COMMIT}`: " in text
    assert "from the ground up" not in text
    told = f"The base, `google/gemma@{COMMIT}` (licence: gemma), was trained before that: its training data are not known here."
    assert told in text


def test_of_a_base_that_groundup_published_the_card_says_where_its_records_are(tmp_path, corpus):
    text = (made(tmp_path, tuned(tmp_path, corpus, "mit", artifact="cd" * 32)).folder / CARD).read_text()
    assert "its records are in `provenance/`." in text
    assert "not known here" not in text


def test_a_model_of_this_store_is_still_made_from_the_ground_up(tmp_path, corpus):
    model = toy.finetuned(tmp_path, toy.pretrained(tmp_path, corpus), corpus)
    text = (made(tmp_path, model).folder / CARD).read_text()
    assert "made from the ground up with Groundup" in text
    assert "The base, " not in text


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_space_says_whose_model_it_was(tmp_path, corpus, rounds):
    model = tuned(tmp_path, corpus, "gemma")
    if rounds == 2:
        model = toy.finetuned(tmp_path, model, corpus, "f0000002")
    app = App({}, {}, model.path / "merged", "continues text")
    folder = assemble_space(model, app, repo="me/app", model_repo="me/toy", revision=COMMIT, destination=tmp_path / "space")
    assert f"It was fine-tuned with Groundup from `google/gemma@{COMMIT}`" in (folder / CARD).read_text()
    assert "from the ground up" not in (folder / CARD).read_text()


def test_a_word_about_the_base_that_cannot_be_read_is_damage(tmp_path, corpus):
    model = toy.finetuned(tmp_path, None, corpus, identity={"name": None, "revision": None})
    (model / "adapter" / "groundup_base.json").write_text("[]")
    with pytest.raises(Damaged, match="cannot be read"):
        foreign_bases([model])


@pytest.mark.parametrize(("head", "found"), [("license: other\nlicense_name: gemma", "gemma"), ("tags: [x]", "not stated")])
def test_the_stage_notes_the_licence_of_the_base_itself_beside_the_adapter(tmp_path, head, found):
    folder = save_base(tmp_path / "base")
    (folder / "README.md").write_text(f"---\n{head}\n---\n# a model\n")
    base = open_base(Config.parse({"base": str(folder)}, where="finetune"), make_context(tmp_path / "out"))
    assert (base.license, base.identity.license) == (found, found)


def test_no_licence_is_invented_for_a_base_from_elsewhere_out_of_the_text_it_is_measured_on(tmp_path, corpus):
    base = Base(tmp_path, BaseIdentity("google/gemma", "ee" * 32, revision=COMMIT), "not stated")
    elsewhere = make_context(tmp_path / "out", inputs={"old_corpus": [corpus]})
    here = make_context(tmp_path / "out2", inputs={"old_corpus": [corpus], "base": [toy.pretrained(tmp_path, corpus)]})
    assert _base_license(elsewhere, base) == "not stated"
    assert _base_license(here, base) == "cc-by-4.0"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("license: mit", "mit"),
        ("license: other\nlicense_name: gemma", "gemma"),
        ("license: [mit, apache-2.0]", "mit and apache-2.0"),
        ("license: other", "other"),
        ("tags: [x]", "not stated"),
        ("license: [", "not stated"),
    ],
)
def test_what_the_card_of_a_base_states(tmp_path, head, found):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# a model\n")
    assert license_in(tmp_path / "README.md") == found
    assert license_in(tmp_path / "none.md") == "not stated"
