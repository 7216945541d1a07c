"""`groundup pull`: what comes is checked and pinned, what must not come is refused with all reasons, nothing is executed."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact import FileEntry
from pipeline.cli.parser import parse
from pipeline.durable import write_json
from pipeline.errors import DataError
from stages.common.release.contents import RemoteFile, choose_plain, choose_published, refusal
from stages.common.release.fetch import hub_errors, inconsistencies
from stages.common.release.layout import MANIFEST, Manifest, differences, provenance_name
from stages.common.release.model_checks import _code_keys, base_problems, model_problems
from stages.common.release.origin import provenance_problems
from stages.common.release.probe import PROBE_IMAGES
from stages.release.pull.__main__ import main as pull_main
from tests.hub.server import HubServer
from tests.release.published import close, plain_model, published, put, record_of, rewrite, save_record

PLENTY = 2**40


def pull(hub: HubServer, where: Path, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in the folder `where`; importing the libraries anew takes a second."""
    where.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pipeline", "pull", *words]
    return subprocess.run(
        command, cwd=where, env=hub.environment(token), capture_output=True, text=True, timeout=120, check=False
    )


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# ---- over HTTP


def test_a_published_model_comes_whole_by_commit_and_the_words_say_what_is_proved(desk, tmp_path):
    folder, record = published(tmp_path / "made")
    commit = put(desk.hub, "ada/model", folder)
    done = desk.pull(tmp_path / "here", "ada/model")
    assert done.returncode == 0, done.stderr
    target = tmp_path / "here" / "pulled" / f"ada--model-{commit[:8]}"
    assert inconsistencies(target, Manifest.load(target)) == []
    assert {path.name for path in target.iterdir()} == {path.name for path in folder.iterdir()}
    for words in (f"hub:ada/model@{commit}", "not signed", "3, consistent", record.fingerprint[:8], "nothing that came was run"):
        assert words in done.stdout
    assert desk.hub.faults.count("/resolve/main/") == 0  # a branch may move between two requests
    again = desk.pull(tmp_path / "here", f"ada/model@{commit}")
    assert again.returncode == 0, again.stderr
    assert desk.hub.faults.count("GET /ada/model/resolve/.*safetensors") == 1


def test_a_plain_hub_model_is_called_so_and_its_pickle_and_code_stay_away(desk, tmp_path):
    folder = plain_model(tmp_path / "made")
    put(desk.hub, "ada/plain", folder, extra={"pytorch_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit\n"})
    done = desk.pull(tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "here" / "mine").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert "plain Hub model" in done.stdout
    assert "left out  modeling.py: is code" in done.stdout
    assert desk.hub.faults.count("pytorch_model|modeling") == 0


def test_a_repository_with_a_stranger_and_a_path_out_of_it_is_refused_before_a_weight_is_fetched(desk, tmp_path):
    folder, _ = published(tmp_path / "made")
    put(desk.hub, "ada/odd", folder, extra={"../../escape.json": b"{}", "extra.pkl": b"\x80\x04."})
    done = desk.pull(tmp_path / "here", "ada/odd")
    assert done.returncode == 2
    assert "'../../escape.json' is not in groundup.json and is no plain relative path" in done.stderr
    assert "'extra.pkl' is not in groundup.json and may be a pickle" in done.stderr
    assert visible(tmp_path / "here" / "pulled") == []
    assert not (tmp_path / "escape.json").exists()
    assert desk.hub.faults.count("safetensors") == 0


@pytest.mark.slow
def test_what_others_added_and_nobody_loads_is_left_out_and_what_would_be_loaded_is_refused(desk, tmp_path):
    folder, _ = published(tmp_path / "made")
    put(desk.hub, "ada/model", folder, extra={"cat.jpg": b"cat", "notes.txt": b"x", ".gitignore": b"x"})
    done = desk.pull(tmp_path / "here", "ada/model", "--output", "mine")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "here" / "mine").iterdir()} == {path.name for path in folder.iterdir()}
    for name in ("cat.jpg", "notes.txt", ".gitignore"):
        assert f"left out  {name}: is not in groundup.json" in done.stdout
    assert desk.pull(tmp_path / "here", "ada/model", "--output", "mine").returncode == 0
    loaded = [
        "adapter_config.json",
        "extra.safetensors",
        "a.safetensors.bak",
        "tokenizer.model",
        "chat_template.txt",
        "vocab.txt",
    ]
    put(desk.hub, "ada/odd", folder, extra=dict.fromkeys([*loaded, "x.py", "more/x.bin", "more/data.parquet"], b"x"))
    done = desk.pull(tmp_path / "here", "ada/odd")
    assert done.returncode == 2
    for name in (*loaded, "x.py", "more/x.bin", "more/data.parquet"):
        assert f"'{name}' is not in groundup.json" in done.stderr


@pytest.mark.slow  # the client tries again several times, with pauses
def test_a_transfer_that_was_cut_goes_on_and_no_folder_appears_before_it_is_done(hub, tmp_path):
    folder = plain_model(tmp_path / "made")
    put(hub, "ada/plain", folder, extra={"extra.txt": b"x" * 500_000})
    hub.faults.add("GET /ada/plain/resolve/.*extra.txt", cut=200_000, times=99)
    done = pull(hub, tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert visible(tmp_path / "here") == []
    hub.faults.clear()
    done = pull(hub, tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "mine" / "extra.txt").read_bytes() == b"x" * 500_000
    assert hub.faults.count("GET /ada/plain/resolve/.*model.safetensors") == 0  # that one had come


@pytest.mark.slow
def test_a_published_data_set_comes_whole_and_another_is_refused(desk, tmp_path):
    made = tmp_path / "made"
    (made / "data").mkdir(parents=True)
    (made / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    record = record_of("stages.text.corpus", "corpus", {}, {})
    save_record(made, record)
    put(desk.hub, "ada/texts", close(made, record, part="data"), kind="dataset")
    done = desk.pull(tmp_path / "here", "datasets/ada/texts", "--output", "mine")
    assert done.returncode == 0, done.stderr
    assert "a data set published by Groundup" in done.stdout
    assert "files: mine/data" in done.stdout
    assert differences(tmp_path / "here" / "mine", Manifest.load(made)) == []
    again = desk.pull(tmp_path / "here", "datasets/ada/texts", "--output", "mine")
    assert again.returncode == 0, again.stderr
    put(desk.hub, "ada/plain", plain_model(tmp_path / "plain"), kind="dataset")
    refused = desk.pull(tmp_path / "here", "datasets/ada/plain")
    assert "it is a dataset that Groundup did not publish" in refused.stderr
    put(desk.hub, "ada/mixed", published(tmp_path / "model")[0], kind="dataset")
    refused = desk.pull(tmp_path / "here", "datasets/ada/mixed")
    assert "its groundup.json is that of a model, the repository is a dataset" in refused.stderr


def test_bytes_that_are_not_those_the_hub_lists_make_no_folder_and_are_fetched_again(desk, tmp_path):
    folder = plain_model(tmp_path / "made")
    put(desk.hub, "ada/plain", folder)
    weights = (folder / "model.safetensors").read_bytes()
    stored = desk.hub.state.large(hashlib.sha256(weights).hexdigest())
    stored.write_bytes(bytes([*weights[:-1], weights[-1] ^ 1]))
    done = desk.pull(tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 2
    assert "model.safetensors does not have the sha256 that the Hub lists" in done.stderr
    assert visible(tmp_path / "here") == []
    stored.write_bytes(weights)
    assert desk.pull(tmp_path / "here", "ada/plain", "--output", "mine").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ada/nothing"], "no such repository, or it is private"),
        (["ada/plain@v9"], "no such revision"),
        (["../etc/passwd"], "write owner/name"),
        (["ada/plain", "--output", "/proc/nowhere"], "cannot be written"),
        (["ada/plain", "--output", "/"], "--output / is the root of this machine"),
        (["ada/plain", "--output", "."], "'.' is there and is not ada/plain"),
        (["ada/plain", "--max-gib", "1e-9"], "raise --max-gib"),
        (["ada/private"], "no such repository, or it is private"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(desk, tmp_path, words, said):
    put(desk.hub, "ada/plain", plain_model(tmp_path / "made"))
    put(desk.hub, "ada/private", tmp_path / "made", private=True)
    done = desk.pull(tmp_path / "here", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_hub_is_waited_for(desk, tmp_path):
    put(desk.hub, "ada/plain", plain_model(tmp_path / "made"))
    desk.hub.faults.add("GET /api/models/ada/plain/revision/main", status=429, retry_after=0)
    done = desk.pull(tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 0, done.stderr
    assert "status 429; trying again in" in done.stderr


def test_no_signed_address_is_shown():
    with pytest.raises(DataError) as caught, hub_errors("ada/x", "main"):
        raise OSError("cut off: https://store.example/lfs/1?X-Amz-Signature=abc&b=1")
    assert "https://store.example/lfs/1?..." in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.slow
def test_a_hostile_repository_is_refused_in_words(desk, tmp_path):
    deep = b"[" * 5000
    folder, record = published(tmp_path / "made")
    put(desk.hub, "ada/manifest", folder, extra={MANIFEST: deep})
    (folder / provenance_name(record)).write_bytes(deep)
    put(desk.hub, "ada/record", close(folder, record))
    for repo, said in (("ada/manifest", f"{MANIFEST} cannot be read"), ("ada/record", f"{provenance_name(record)} is no JSON")):
        done = desk.pull(tmp_path / "here", repo)
        assert (done.returncode in (1, 2), said in done.stderr) == (True, True), done.stderr
    put(desk.hub, "ada/odd", plain_model(tmp_path / "plain", architectures=1))
    done = desk.pull(tmp_path / "here", "ada/odd")
    assert (done.returncode, "a plain Hub model" in done.stdout, "in a recipe" in done.stdout) == (0, True, False), done.stderr


def test_code_is_found_however_deep_it_lies(tmp_path):
    folder = plain_model(tmp_path / "made")
    (folder / "deep.json").write_text("[" * 980 + '{"auto_map": {"a": "b"}}' + "]" * 980)
    assert any("deep.json" in line for line in model_problems(folder, own=False))
    found = value = {"auto_map": {"a": "b"}}
    for _ in range(5000):
        found = [found]
    assert list(_code_keys(found)) == ["auto_map"]
    while found is not value:  # taken apart level by level
        [found] = found


def test_a_full_disk_is_named(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")

    monkeypatch.setattr("stages.release.pull.pulling.pull", full)
    assert pull_main(["ada/plain", "--output", str(tmp_path / "x")]) == 1
    assert "No space left on device: 'model.safetensors'; what came is kept" in capsys.readouterr().err


def test_a_shell_leaves_the_home_folder_to_us():
    assert parse(["pull", "ada/x", "--output=~/x"]).output == Path.home() / "x"


def test_a_folder_that_holds_something_else_is_not_touched(desk, tmp_path):
    put(desk.hub, "ada/plain", plain_model(tmp_path / "made"))
    mine = tmp_path / "here" / "mine"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    done = desk.pull(tmp_path / "here", "ada/plain", "--output", "mine")
    assert done.returncode == 2
    assert "is there and is not ada/plain" in done.stderr
    assert visible(mine) == ["thesis.txt"]


def test_a_private_model_comes_with_a_token_that_is_never_shown(desk, tmp_path):
    put(desk.hub, "ada/private", plain_model(tmp_path / "made"), private=True)
    done = desk.pull(tmp_path / "here", "ada/private", token="hf_ada")
    assert done.returncode == 0, done.stderr
    assert "hf_ada" not in done.stdout + done.stderr


# ---- names, types and sizes


@pytest.mark.parametrize(
    "name",
    [
        "../a.json",
        "/etc/a.json",
        "a/../../b.json",
        "a\\b.json",
        ".git/config.json",
        "a//b.json",
        "a\n.json",
        "x/./y.json",
        "\u202e.json",
    ],
)
def test_a_name_that_could_leave_its_folder_or_hide_is_refused(name):
    assert refusal(name) is not None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "pickle"),
        ("a.pt", "pickle"),
        ("b.PKL", "pickle"),
        ("c.ckpt", "pickle"),
        ("modeling.py", "is code"),
        ("run.sh", "is code"),
        ("a.exe", "is code"),
        ("page.html", "is code"),
        ("x", "not fetched"),
    ],
)
def test_pickles_code_and_unknown_types_are_never_fetched(name, why):
    assert why in str(refusal(name))


@pytest.mark.parametrize(
    "name", ["config.json", "model-00001-of-00002.safetensors", "LICENSE", "figures/loss.svg", "a b.json", "chat_template.jinja"]
)
def test_data_of_known_types_may_come(name):
    assert refusal(name) is None


def test_a_model_that_has_pickled_weights_only_is_refused():
    choice = choose_plain({"pytorch_model.bin": RemoteFile(9), "config.json": RemoteFile(2)}, max_bytes=PLENTY)
    assert ["no safetensors" in line for line in choice.problems] == [True]


def test_sizes_are_judged_before_the_transfer(tmp_path):
    folder, _ = published(tmp_path / "made")
    manifest = Manifest.load(folder)
    files = {name: RemoteFile(entry.bytes) for name, entry in manifest.files.items()}
    assert choose_published(files, manifest, max_bytes=PLENTY).problems == ()
    assert "raise --max-gib" in choose_published(files, manifest, max_bytes=10).problems[0]
    assert (
        "has 7 bytes on the Hub"
        in choose_published(files | {"config.json": RemoteFile(7)}, manifest, max_bytes=PLENTY).problems[0]
    )
    huge = {"config.json": RemoteFile(2**30), "model.safetensors": RemoteFile(2**30)}
    assert ["config.json" in line for line in choose_plain(huge, max_bytes=PLENTY).problems] == [True]


# ---- records


def test_records_that_hang_together_have_no_problem(tmp_path):
    folder, _ = published(tmp_path / "made")
    assert inconsistencies(folder, Manifest.load(folder)) == []


def test_weights_exchanged_after_training_are_found_even_with_a_new_manifest(tmp_path):
    folder, record = published(tmp_path / "made")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x00")
    close(folder, record)
    assert provenance_problems(folder, Manifest.load(folder)) == [
        "model.safetensors is not the file that the artifact's record names"
    ]


def test_weights_of_unknown_origin_are_found(tmp_path):
    folder, record = published(tmp_path / "made")
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    close(folder, record)
    assert "other.safetensors is in no record" in provenance_problems(folder, Manifest.load(folder))[0]
    (folder / "other.safetensors").rename(folder / PROBE_IMAGES)  # images, which publishing puts there: no weights
    close(folder, record)
    assert provenance_problems(folder, Manifest.load(folder)) == []


def test_a_record_that_was_changed_is_found_with_and_without_a_new_digest(tmp_path):
    folder, record = published(tmp_path / "made")
    path = folder / provenance_name(record)
    rewrite(path, {"identity": record.identity | {"config": {"depth": 99}}})
    close(folder, record)
    assert "its fingerprint is not that of the identity it holds" in provenance_problems(folder, Manifest.load(folder))[0]
    values = json.loads(path.read_bytes())
    write_json(path, values | {"metrics": [{"name": "bits_per_byte", "value": 0.1}]})
    assert "its digest does not fit" in provenance_problems(folder, Manifest.load(folder))[0]


def test_a_missing_ancestor_and_inputs_that_were_hidden_are_found(tmp_path):
    folder, record = published(tmp_path / "made")
    corpus = next((folder / "provenance").glob("text.corpus-*"))
    corpus.unlink()
    missing = provenance_problems(folder, Manifest.load(folder))
    assert len([line for line in missing if "the record of its corpus" in line]) == 2
    rewrite(folder / provenance_name(record), {"inputs": {}})
    assert any(
        "its list of inputs is not that of its identity" in line for line in provenance_problems(folder, Manifest.load(folder))
    )


def test_a_manifest_of_another_artifact_is_found(tmp_path):
    folder, _ = published(tmp_path / "made")
    stranger = record_of("stages.text.pretrain", "causal_lm", {}, {}, depth=7)
    close(folder, stranger)
    assert "has no record of the artifact" in provenance_problems(folder, Manifest.load(folder))[0]
    save_record(folder, stranger)
    rewrite(folder / MANIFEST, {"produces": "corpus"})
    assert any("says produces corpus" in line for line in provenance_problems(folder, Manifest.load(folder)))


def test_records_of_a_base_that_were_left_out_are_found(tmp_path):
    folder, _ = published(tmp_path / "made")
    entry = FileEntry(sha256="0" * 64, size=1)
    record = record_of("stages.text.finetune", "causal_lm", {}, {"base/provenance/text.pretrain-0123abcd.json": entry})
    save_record(folder, record)
    close(folder, record)
    problems = provenance_problems(folder, Manifest.load(folder))
    assert any("base/provenance/text.pretrain-0123abcd.json of its base is missing" in line for line in problems)


# ---- the model itself


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_asks_for_its_own_code_is_refused(tmp_path, file):
    folder = plain_model(tmp_path / "made")
    write_json(folder / file, {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}})
    assert model_problems(folder, own=False) == [f"{file} asks for code of its own ('auto_map')"]


def test_a_pipeline_may_name_classes_of_diffusers_and_ours_only(tmp_path):
    folder = plain_model(tmp_path / "made")
    index = {
        "_class_name": "GANPipeline",
        "generator": ["stages.image.gan.networks", "Generator"],
        "scheduler": ["diffusers", "DDPM"],
    }
    write_json(folder / "model_index.json", index)
    assert model_problems(folder, own=True) == []
    assert "('generator'" in model_problems(folder, own=False)[0]
    write_json(folder / "model_index.json", {"_class_name": ["my_pipeline", "Evil"], "unet": ["os", "system"]})
    assert len(model_problems(folder, own=True)) == 2


def test_damaged_weights_and_a_shard_outside_the_folder_are_found(tmp_path):
    folder = plain_model(tmp_path / "made")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"weight": "../../secret.safetensors"}})
    (folder / "model.safetensors").write_bytes(b"\x10\x00")
    first, second = model_problems(folder, own=False)
    assert "'../../secret.safetensors', which is no file beside it" in first
    assert second.startswith("model.safetensors is damaged")


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_found(tmp_path):
    folder = plain_model(tmp_path / "made", vocab_size=3)
    assert "the tokenizer has ids up to 3, the model has rows for 3" in model_problems(folder, own=False)[0]


def test_an_adapter_and_a_folder_without_a_tokenizer_are_no_base(tmp_path):
    folder = plain_model(tmp_path / "made")
    assert base_problems(folder) == []
    (folder / "tokenizer.json").unlink()
    assert base_problems(folder) == ["it has no tokenizer (tokenizer.json or tokenizer.model or vocab.json)"]
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "ada/base"})
    assert "it is a LoRA adapter for ada/base" in base_problems(folder)[0]
