"""What is put into a repository: everything that proves where it came from, the same bytes each time, and nothing else."""

from __future__ import annotations

import io
import json
import re

import pyarrow.parquet as parquet
import pytest

from pipeline.errors import Damaged, InputError, RecipeError, StoreError
from stages.common.release.layout import Manifest, PublishedFile, differences, is_inside, load_provenance
from stages.release.publish.assemble import assemble
from stages.release.publish.shown import show_folder
from tests.release import toy_store as toy


@pytest.fixture
def model(tmp_path):
    return toy.pretrained(tmp_path, toy.corpus(tmp_path))


def test_the_same_artifact_gives_the_same_bytes(tmp_path, model):
    toy.note_run(tmp_path, model)
    first = toy.texts_of(assemble(model, None, "me/toy", tmp_path / "one").folder)
    assert toy.texts_of(assemble(model, "model", "me/toy", tmp_path / "two").folder) == first
    assert toy.texts_of(assemble(model, None, "me/toy", tmp_path / "one").folder) == first


def test_the_manifest_names_every_file_with_its_hash_and_notices_each_kind_of_change(tmp_path, model):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    manifest = Manifest.load(folder)
    assert manifest.files.keys() == toy.texts_of(folder).keys() - {"groundup.json"}
    assert differences(folder, manifest) == []
    (folder / "config.json").write_text("{}")
    (folder / "LICENSE").unlink()
    (folder / "more.json").write_text("{}")
    assert differences(folder, manifest) == ["LICENSE is missing", "more.json is not in groundup.json", "config.json was changed"]


def test_the_model_lies_at_the_root_as_the_libraries_want_it_and_the_stages_own_readme_stays_behind(tmp_path, model):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (model / "model" / name).read_bytes()
    assert "the stage's own words" not in (folder / "README.md").read_text()


def test_records_of_all_ancestors_and_evaluations_go_along(tmp_path, model):
    toy.evaluated(tmp_path, model, toy.corpus(tmp_path, "c0000002"))
    records = load_provenance(assemble(model, None, "me/toy", tmp_path / "out").folder)
    assert sorted(fingerprint[:8] for fingerprint in records) == ["70000001", "b0000001", "c0000001", "c0000002", "e0000001"]
    needed = {entry.fingerprint for record in records.values() for entries in record.inputs.values() for entry in entries}
    assert needed <= records.keys()


def test_of_two_evaluations_that_differ_in_their_code_only_the_newer_one_counts(tmp_path, model):
    data = toy.corpus(tmp_path)
    toy.evaluated(tmp_path, model, data, "e0000001", 1.25, code={"a.py": "1"})
    toy.evaluated(tmp_path, model, data, "e0000002", 1.75, code={"a.py": "2"})
    rows = json.loads((assemble(model, None, "me/toy", tmp_path / "out").folder / "metrics.json").read_bytes())
    assert [row["value"] for row in rows if row["name"] == "perplexity"] == [1.75]


def test_an_artifact_whose_ancestor_is_gone_is_refused(tmp_path, model):
    (tmp_path / "artifacts" / "text.tokenizer").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"made from stages\.text\.tokenizer 70000001, which is not in this store"):
        assemble(model, None, "me/toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_whose_data_are_gone_is_left_out_and_said_and_keeps_no_model_here(tmp_path, model):
    toy.evaluated(tmp_path, model, toy.corpus(tmp_path, "c0000002"), "e0000002")
    toy.evaluated(tmp_path, model, toy.corpus(tmp_path), "e0000001", 1.75)
    (tmp_path / "artifacts" / "text.corpus" / "c0000002").rename(tmp_path / "elsewhere")
    assembled = assemble(model, None, "me/toy", tmp_path / "out")
    rows = json.loads((assembled.folder / "metrics.json").read_bytes())
    assert [row["value"] for row in rows if row["name"] == "perplexity"] == [1.75]
    assert "text.evaluate-e0000002.json" not in {path.name for path in (assembled.folder / "provenance").iterdir()}
    assert "`evaluate` (`e0000002`) measured it too, but what it measured on" in (assembled.folder / "README.md").read_text()
    output = io.StringIO()
    show_folder(assembled, output, whole_card=False)
    assert "left out: evaluate e0000002 measured it" in output.getvalue()


def test_a_damaged_artifact_is_refused(tmp_path, model):
    (model / "model" / "config.json").write_text("{}")
    with pytest.raises(Damaged, match=r"model/config\.json was changed"):
        assemble(model, None, "me/toy", tmp_path / "out")


def test_what_a_killed_assembly_left_behind_never_gets_in(tmp_path, model):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half.json").write_text("{")
    assert "half.json" not in toy.texts_of(assemble(model, None, "me/toy", tmp_path / "out").folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "out"]


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path, model):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    with pytest.raises(InputError, match="holds files that Groundup did not put there"):
        assemble(model, None, "me/toy", tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".git/HEAD", ".git/ is not in groundup.json"),
        (".gitattributes", ".gitattributes is not in groundup.json"),
        ("notes/mine.txt", "notes/ is not in groundup"),
        ("figures/mine.txt", "figures/mine.txt is not in groundup"),
        ("README.md", "README.md was changed"),
    ],
)
def test_a_clone_notes_and_edits_are_never_replaced(tmp_path, model, name, said):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(InputError, match=f"would lose that: {re.escape(said)}.* or give a new folder"):
        assemble(model, None, "me/toy", folder)
    assert (folder / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_link_in_the_folder_and_a_manifest_that_says_nothing_keep_it_too(tmp_path, model):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    (folder / "data").symlink_to(tmp_path)
    with pytest.raises(InputError, match="data is not in groundup"):
        assemble(model, None, "me/toy", folder)
    (folder / "groundup.json").write_text("[")
    with pytest.raises(InputError, match="cannot be compared with what was assembled in it"):
        assemble(model, None, "me/toy", folder)


def test_what_a_publish_that_was_killed_at_its_probe_left_is_replaced(tmp_path, model):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    (folder / "probe.json").write_text("{}")
    assert not (assemble(model, None, "me/toy", folder).folder / "probe.json").exists()


def test_the_artifact_itself_is_never_written_into(tmp_path, model):
    with pytest.raises(InputError, match="lies inside the artifact"):
        assemble(model, None, "me/toy", model / "published")
    assert not (model / "published").exists()


def test_nothing_that_names_the_machine_gets_in(tmp_path, model):
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    everything = b"".join(toy.texts_of(folder).values())
    assert toy.HOST.encode() not in everything
    assert str(tmp_path).encode() not in everything
    assert b"Toy CPU (2 cores)" in everything


def test_the_recipe_goes_along_without_the_paths_of_the_machine(tmp_path, model):
    toy.note_run(
        tmp_path,
        model,
        "files: /home/ada/poems.txt  # mine\n",
        "groundup run toy.yaml --only vae@seed=1 stages.c.files=/home/ada/p.txt a.b=1 --jobs=2",
    )
    folder = assemble(model, None, "me/toy", tmp_path / "out").folder
    assert (folder / "recipe.yaml").read_text() == "files: PATH  # mine\n"
    assert "groundup run recipe.yaml stages.c.files=PATH a.b=1 --only pretrain\n" in (folder / "README.md").read_text()


def test_a_part_must_be_chosen_where_there_are_several(tmp_path, model):
    tuned = toy.finetuned(tmp_path, model, toy.corpus(tmp_path, "c0000002"))
    with pytest.raises(RecipeError, match="--part is missing; finetune f0000001 has: --part adapter, --part merged"):
        assemble(tuned, None, "me/toy", tmp_path / "out")
    with pytest.raises(RecipeError, match="--part model: not in this artifact"):
        assemble(tuned, "model", "me/toy", tmp_path / "out")
    merged = assemble(tuned, "merged", "me/toy", tmp_path / "out")
    assert merged.manifest.part == "merged"
    assert "adapter_config.json" not in merged.manifest.files


def test_an_adapter_names_its_base_on_the_hub_or_is_refused(tmp_path, model):
    tuned = toy.finetuned(tmp_path, model, toy.corpus(tmp_path, "c0000002"))
    with pytest.raises(RecipeError, match=r"--base-repo is missing.*publish that first"):
        assemble(tuned, "adapter", "me/toy", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"--base-repo me/base: goes with an adapter .* not with part 'model'"):
        assemble(model, None, "me/toy", tmp_path / "out", base_repo="me/base")
    folder = assemble(tuned, "adapter", "me/toy", tmp_path / "out", base_repo="me/base@v1").folder
    config = json.loads((folder / "adapter_config.json").read_bytes())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("me/base", "v1", 4)
    assert (folder / "adapter_model.safetensors").read_bytes() == (tuned / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_corpus_becomes_parquet_files_with_every_row(tmp_path):
    data = toy.corpus(tmp_path)
    folder = assemble(data, None, "me/texts", tmp_path / "out").folder
    for split in ("train", "validation", "test"):
        (path,) = (folder / "data").glob(f"{split}-*.parquet")
        assert parquet.read_table(path).column("text").to_pylist()[4] == f"{split} 4: somebody@example.org wrote /home/ada/x"


def test_what_a_stage_measures_is_no_model_and_cannot_be_published(tmp_path, model):
    with pytest.raises(RecipeError, match=r"stages\.text\.evaluate makes 'evaluation', which is not published"):
        assemble(toy.evaluated(tmp_path, model, toy.corpus(tmp_path)), None, "me/toy", tmp_path / "out")


@pytest.mark.parametrize("repo", ["toy", "me/../toy", "a/b/c", "me/to y", "", "me/toy.git/x", "/toy", "me/"])
def test_a_name_that_the_hub_would_refuse_is_refused_here(tmp_path, model, repo):
    with pytest.raises(RecipeError, match="--repo"):
        assemble(model, None, repo, tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\x", "", ".", "a//b", "./a", "a\0b"])
def test_a_manifest_cannot_name_a_path_outside_its_folder(tmp_path, name):
    assert not is_inside(name)
    files = {name: PublishedFile(sha256="0" * 64, bytes=1)}
    Manifest(artifact="0" * 64, stage="stages.x", part="model", produces="causal_lm", files=files).save(tmp_path)
    with pytest.raises(Damaged, match="no relative path inside the repository"):
        Manifest.load(tmp_path)
