"""Pushing an assembled repository: the comparison, what is sent, what is kept, what is proved afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects

from pipeline.errors import StoreError
from stages.common.release.destination import alone
from stages.common.release.layout import Manifest
from stages.common.release.outcome import save_outcome
from stages.common.release.probe import Probe
from stages.common.release.sending import send
from stages.release.push.__main__ import main
from stages.release.push.record import add_entry
from stages.release.push.verification import _base
from tests.hub.client import Desk, client
from tests.hub.publishing import command, push, sign, write_folder
from tests.hub.repository import Entry
from tests.hub.server import HubServer


def repository(hub: HubServer, name: str = "ada/one"):
    return hub.state.repositories["model", name]


def titles(hub: HubServer) -> list[str]:
    return [commit.title for commit in repository(hub).history(repository(hub).head().oid)]


def test_without_push_nothing_is_made_and_all_that_would_change_is_shown(desk: Desk, tmp_path: Path) -> None:
    done = desk.push(write_folder(tmp_path / "folder"))
    assert done.returncode == 0
    assert "does not exist (or is closed to you); it would be created" in done.stdout
    assert "added    model.safetensors  3.9 KiB" in done.stdout
    assert "nothing was sent" in done.stdout
    assert desk.hub.state.repositories == {}
    assert not desk.hub.faults.count("POST|PUT|DELETE")


def test_a_push_is_private_verified_tagged_and_written_down(desk: Desk, tmp_path: Path) -> None:
    folder, record = write_folder(tmp_path / "folder"), tmp_path / "published.json"
    done = desk.push(folder, "--push", "--tag", "v1", "--message", "hello", "--record", str(record))
    assert done.returncode == 0, done.stderr
    commit = repository(desk.hub).head()
    assert (repository(desk.hub).private, titles(desk.hub), repository(desk.hub).tags) == (
        True,
        ["hello", "initial commit"],
        {"v1": commit.oid},
    )
    assert f"published: ada/one at commit {commit.oid}" in done.stdout
    [entry] = json.loads(record.read_text())["published"]
    assert (entry["repo"], entry["commit"], entry["verified"]["num_files"]) == ("ada/one", commit.oid, 4)
    assert entry["address"] == f"{desk.hub.url}/ada/one/tree/{commit.oid}"
    assert "hf_ada" not in record.read_text()
    assert [path.name for path in tmp_path.glob(".folder.verify*")] == []  # the clean cache is gone


@pytest.mark.slow
def test_the_same_folder_again_makes_no_commit_and_one_entry(hub: HubServer, tmp_path: Path) -> None:
    folder, record = write_folder(tmp_path / "folder"), tmp_path / "published.json"
    for _ in range(2):
        done = push(hub, folder, "--push", "--record", str(record))
    assert "nothing to change" in done.stdout
    assert titles(hub)[1:] == ["initial commit"]
    assert len(json.loads(record.read_text())["published"]) == 1
    assert hub.faults.count("POST .*/commit/") == 1


@pytest.mark.slow
def test_only_what_differs_is_sent_and_what_groundup_did_not_write_is_kept(hub: HubServer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", old="to go", edited="as published")
    assert push(hub, folder, "--push").returncode == 0
    tree = dict(repository(hub).head().tree)
    tree["mine.txt"], tree["edited.txt"] = Entry(4, b"mine"), Entry(6, b"edited")
    tree["README.md"] = Entry(9, b"# by hand")
    repository(hub).commit("main", tree, "by hand", "ada")
    for name in ("old", "edited"):
        (folder / f"{name}.txt").unlink()
    write_folder(folder, note="second")
    hub.faults.log.clear()
    done = push(hub, folder, "--push")
    assert done.returncode == 0, done.stderr
    assert "changed  README.md" in done.stdout
    assert "(replaces what was not written by Groundup, or was edited since)" in done.stdout
    assert "removed  old.txt" in done.stdout
    assert "kept     mine.txt" in done.stdout
    assert "kept     edited.txt" in done.stdout
    left = set(repository(hub).head().tree)
    assert left == {
        ".gitattributes",
        "README.md",
        "groundup.json",
        "model.safetensors",
        "tokenizer.json",
        "mine.txt",
        "edited.txt",
    }
    assert hub.faults.count("PUT /lfs/") == 0


def test_a_folder_that_changed_since_it_was_assembled_is_not_sent(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    (folder / "README.md").write_text("other")
    (folder / "stray.txt").write_text("x")
    done = desk.push(folder, "--push")
    assert done.returncode == 2
    assert "README.md was changed" in done.stderr
    assert "stray.txt is not in groundup.json" in done.stderr
    assert desk.hub.faults.log == []


@pytest.mark.parametrize(
    ("problems", "later", "said"),
    [
        (["data: their licence is not stated"], False, "refused when it was checked"),
        ([], True, "folder.checks.json is of another state of it"),
    ],
)
def test_what_was_refused_or_not_checked_to_the_end_is_not_sent(desk: Desk, tmp_path: Path, problems, later, said) -> None:
    folder = write_folder(tmp_path / "folder")
    save_outcome(folder, "ada/one", problems, [])
    if later:
        write_folder(folder, note="anew")
    done = desk.push(folder, "--push")
    assert (done.returncode, desk.hub.faults.log) == (2, [])
    for words in (said, "run `groundup publish` again", *problems):
        assert words in done.stderr
    assert desk.push(folder).returncode == 0  # to look is no harm


@pytest.mark.slow
def test_what_passed_its_checks_is_sent_and_a_broken_outcome_is_none(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    save_outcome(folder, "ada/one", [], ["it loads"]).write_text("[" * 5000)
    assert "not the outcome of checks" in desk.push(folder, "--push").stderr
    save_outcome(folder, "ada/one", [], ["it loads"])
    done = desk.push(folder, "--push")
    assert done.returncode == 0, done.stderr


def test_a_folder_is_read_under_its_lock_and_none_is_put_beside_what_nobody_assembled(tmp_path: Path, monkeypatch) -> None:
    folder, seen = write_folder(tmp_path / "folder"), []

    def look(path: Path) -> None:
        with pytest.raises(StoreError, match="another publish works on it"), alone(folder):
            pass
        seen.append(path)
        raise StoreError("seen enough")

    monkeypatch.setattr("stages.release.push.comparison.Folder.open", look)
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    assert main([str(folder), "--repo", "ada/one", "--push"]) == 1
    assert seen == [folder]
    assert main([str(tmp_path / "nowhere" / "x"), "--repo", "ada/one"]) == StoreError.exit_code
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_the_upload_holds_the_lock_of_the_publisher_that_started_it(desk: Desk, tmp_path: Path, capfd) -> None:
    folder, environment = write_folder(tmp_path / "folder"), desk.hub.environment("hf_ada")
    with alone(folder) as lock:
        assert send(folder, Namespace(repo="ada/one", push=True), None, environment, lock=lock) == 0
    assert "published: ada/one at commit" in capfd.readouterr().out
    with alone(tmp_path / "other") as lock:
        assert send(folder, Namespace(repo="ada/one", push=True), None, environment, lock=lock) == StoreError.exit_code
    assert f"not the lock of {folder}" in capfd.readouterr().err


def test_a_public_repository_needs_the_word(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    desk.hub.state.create("model", "ada/one", private=False)
    for flags, what in (((), "this"), (("--create-pr",), "the files of a pull request")):
        done = desk.push(folder, "--push", *flags)
        assert (done.returncode, done.stderr.startswith("--public is missing: ada/one is a public repository")) == (2, True)
        assert f"everybody will see {what}; say --public to agree" in done.stderr
    assert titles(desk.hub) == ["initial commit"]
    assert not desk.hub.faults.count("POST|PUT|DELETE")  # no pull request either


def test_a_tag_is_no_branch(desk: Desk, tmp_path: Path) -> None:
    made = desk.hub.state.create("model", "ada/one")
    made.tags["v1"] = made.head().oid
    done = desk.push(write_folder(tmp_path / "folder"), "--push", "--revision", "v1")
    assert (done.returncode, "--revision v1: a tag or commit of ada/one, not a branch" in done.stderr) == (2, True)


def test_without_a_token_a_public_repository_can_be_compared(desk: Desk, tmp_path: Path) -> None:
    desk.hub.state.create("model", "ada/one", private=False)
    done = desk.push(write_folder(tmp_path / "folder"), token=None)
    assert done.returncode == 0, done.stderr
    assert "repository ada/one: public, main at" in done.stdout
    assert {entry.user for entry in desk.hub.faults.log} == {None}


def test_a_disk_that_cannot_be_written_is_named(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    (tmp_path / ".folder.lock").mkdir()
    done = desk.push(folder)
    assert (done.returncode, ".folder.lock" in done.stderr) == (1, True)


@pytest.mark.slow
def test_public_makes_a_new_repository_public(hub: HubServer, tmp_path: Path) -> None:
    assert push(hub, write_folder(tmp_path / "folder"), "--push", "--public", repo="guild/two").returncode == 0
    assert repository(hub, "guild/two").private is False


@pytest.mark.slow
def test_a_branch_starts_from_main_and_main_stays(hub: HubServer, tmp_path: Path) -> None:
    hub.state.create("model", "ada/one")
    done = push(hub, write_folder(tmp_path / "folder"), "--push", "--revision", "trial/a")
    assert done.returncode == 0, done.stderr
    assert "trial/a (would start from main)" in done.stdout
    assert titles(hub) == ["initial commit"]
    assert "groundup.json" in repository(hub).head("trial/a").tree


@pytest.mark.slow
def test_a_pull_request_is_opened_once_and_filled(hub: HubServer, tmp_path: Path) -> None:
    hub.state.create("model", "eve/open", private=False)
    folder = write_folder(tmp_path / "folder")
    done = push(hub, folder, "--push", "--public", "--create-pr", repo="eve/open")
    assert done.returncode == 0, done.stderr
    assert "offered as a pull request, not merged yet" in done.stdout
    assert f"{hub.url}/eve/open/discussions/1" in done.stdout
    again = push(hub, folder, "--push", "--public", "--create-pr", repo="eve/open")
    assert "pull request 1 of yours has that title" in again.stdout
    [pull] = repository(hub, "eve/open").pulls.values()
    assert (pull.status, "groundup.json" in repository(hub, "eve/open").head(pull.ref).tree) == ("open", True)
    assert list(repository(hub, "eve/open").head().tree) == [".gitattributes"]


def test_a_tag_is_never_moved(desk: Desk, tmp_path: Path) -> None:
    made = desk.hub.state.create("model", "ada/one")
    made.tags["v1"] = made.head().oid
    done = desk.push(write_folder(tmp_path / "folder"), "--push", "--tag", "v1")
    assert (done.returncode, "--tag v1: names commit" in done.stderr) == (2, True)
    assert titles(desk.hub) == ["initial commit"]


@pytest.mark.slow
def test_what_does_not_measure_as_its_probe_says_is_not_published(hub: HubServer, tmp_path: Path) -> None:
    folder, record = write_folder(tmp_path / "folder"), tmp_path / "published.json"
    probe = Probe(metric="tokens_per_byte", value=0.5, n=7, texts=["The fox"])
    (folder / "probe.json").write_text(probe.model_dump_json())
    done = push(hub, sign(folder), "--push", "--record", str(record))
    assert done.returncode == 1
    assert "it measures tokens_per_byte 0.285714 (n = 7), the probe says 0.5; not published" in done.stderr
    assert not record.exists()
    (folder / "probe.json").write_text(probe.model_copy(update={"value": 2 / 7}).model_dump_json())
    assert push(hub, sign(folder), "--push", "--record", str(record)).returncode == 0


@pytest.mark.slow
def test_what_does_not_come_back_as_it_was_sent_is_not_published(desk: Desk, tmp_path: Path) -> None:
    folder, record = write_folder(tmp_path / "folder"), tmp_path / "published.json"
    sent = (folder / "model.safetensors").read_bytes()

    def spoil() -> None:
        sha256 = Manifest.load(folder).files["model.safetensors"].sha256
        desk.hub.state.large(sha256).write_bytes(bytes(len(sent)))

    desk.hub.faults.add("HEAD .*README.md", call=spoil)
    done = desk.push(folder, "--push", "--record", str(record), "--tag", "v1")
    assert done.returncode == 1
    assert "what came back is not what was sent (model.safetensors); not published" in done.stderr
    assert "published:" not in done.stdout
    assert repository(desk.hub).tags == {}
    assert not record.exists()


def test_a_record_of_several_publications_keeps_them_all_once(tmp_path: Path) -> None:
    record = tmp_path / "published.json"
    one = {"endpoint": "e", "repo": "ada/one", "repo_type": "model", "commit": "1", "time": "then"}
    for entry in (one, one | {"commit": "2"}, one | {"time": "now"}):
        add_entry(record, entry)
    found = json.loads(record.read_text())["published"]
    assert [(entry["commit"], entry["time"]) for entry in found] == [("2", "then"), ("1", "now")]
    record.write_text("[]")
    with pytest.raises(StoreError, match="no record of publications; move it away"):
        add_entry(record, one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repo", "one"], "--repo 'one': the owner is missing; write --repo OWNER/one"),
        (["--repo", "ada/a b"], "--repo 'ada/a b': no name of a repository"),
        (["--create-pr", "--revision", "dev"], "--create-pr offers a change to main; leave out --revision dev"),
        (["--create-pr", "--tag", "v1"], "--tag v1: a pull request is not published yet"),
        (["--revision", "refs/pr/1"], "--revision refs/pr/1: say the name of a branch"),
        (["--tag", "a tag!"], "--tag 'a tag!': no name for a branch or tag"),
        (["--revision", "a..b"], "--revision 'a..b': no name for a branch or tag"),
        (["--timeout", "0"], "--timeout 0: seconds must be positive"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_network(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--push", "--repo", "ada/one", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_folder_that_groundup_did_not_assemble_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--repo", "ada/one"]) == 1
    assert "no groundup.json; this folder was not assembled by Groundup" in capsys.readouterr().err


def test_help_comes_at_once_and_names_no_token_option(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stages.release.push", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--token" not in done.stdout
    assert not {"torch", "huggingface_hub", "transformers"} & {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
    }


@pytest.mark.slow
def test_over_xet_as_well(hub: HubServer, tmp_path: Path) -> None:
    hub.state.xet = True
    folder = write_folder(tmp_path / "folder", size=300_000)
    for outcome in ("commit ", "nothing to change"):
        done = subprocess.run(command(folder, "--push"), env=hub.environment("hf_ada", xet=True), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"\n{outcome}" in done.stdout
    assert hub.faults.count("/cas/v1/shards") == 1
    assert hub.faults.count("/lfs/") == 0


@pytest.mark.slow
def test_two_pushes_of_one_folder_wait_for_each_other(hub: HubServer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    environment = hub.environment("hf_ada")
    both = [subprocess.Popen(command(folder, "--push"), env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert hub.faults.count("POST .*/commit/") == 1


@pytest.mark.slow
def test_a_language_model_and_an_adapter_go_there_and_give_their_bits_per_byte(hub: HubServer, tmp_path: Path) -> None:
    code = """
        import pathlib
        from peft import LoraConfig, get_peft_model
        from tokenizers import Tokenizer
        from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        root = pathlib.Path(sys.argv[1])
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[2], unk_token="[UNK]", bos_token="[UNK]")
        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=3, n_positions=16))
        model.save_pretrained(root / "model")
        tokenizer.save_pretrained(root / "model")
        adapter = get_peft_model(model, LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True))
        adapter.peft_config["default"].base_model_name_or_path = "ada/model"
        adapter.save_pretrained(root / "adapter")
        result = None
    """
    tokenizer = write_folder(tmp_path / "tokenizer") / "tokenizer.json"
    client(hub, code, tmp_path, tokenizer)
    for part in ("model", "adapter"):
        folder = tmp_path / part
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# a model\n")
        manifest = Manifest.load(sign(folder))
        manifest.model_copy(update={"part": part, "produces": "causal_lm"}).save(folder)
        done = push(hub, folder, "--push", repo=f"ada/{part}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "loaded in a clean process: bits_per_byte" in done.stdout
    assert "the adapter needs ada/model: downloading it" in done.stdout


@pytest.mark.slow
def test_the_same_command_again_is_no_fault_though_somebody_added_a_note(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    assert desk.push(folder, "--push", "--tag", "v1").returncode == 0
    made = repository(desk.hub)
    tagged = made.tags["v1"]
    made.commit("main", dict(made.head().tree) | {"notes.txt": Entry(4, b"mine")}, "a note", "ada")
    done = desk.push(folder, "--push", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    assert "tag v1 stands, at a commit that holds all of this" in done.stdout
    assert (titles(desk.hub)[0], made.tags) == ("a note", {"v1": tagged})
    done = desk.push(write_folder(folder, note="new"), "--push", "--tag", "v1")
    assert (done.returncode, "--tag v1: names commit" in done.stderr, titles(desk.hub)[0]) == (2, True, "a note")


def test_what_is_kept_and_would_be_loaded_is_warned_of(desk: Desk, tmp_path: Path) -> None:
    made = desk.hub.state.create("model", "ada/one")
    made.commit(
        "main", dict(made.head().tree) | {"adapter_config.json": Entry(2, b"{}"), "cat.jpg": Entry(3, b"cat")}, "x", "ada"
    )
    done = desk.push(write_folder(tmp_path / "folder"))
    assert "kept     cat.jpg" in done.stdout
    assert "warning: adapter_config.json stay there and may be loaded" in done.stdout
    assert f"remove them at {desk.hub.url}/ada/one/tree/main" in done.stdout


def adapter_folder(folder: Path, **config: str) -> Path:
    """An assembled adapter, as far as it is read before it is sent."""
    folder = write_folder(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "ada/base"} | config))
    Manifest.load(sign(folder)).model_copy(update={"part": "adapter", "produces": "causal_lm"}).save(folder)
    return folder


def test_an_adapter_whose_base_is_not_there_is_not_sent(desk: Desk, tmp_path: Path) -> None:
    for revision, said in (("v1", "ada/base: not found"), ("v2", "ada/base: no such revision"), ("main", "holds no safetensors")):
        done = desk.push(adapter_folder(tmp_path / revision, revision=revision), "--push")
        assert done.returncode == 1
        assert f"the base of the adapter, ada/base@{revision}" in done.stderr
        assert said in done.stderr
        assert "Nothing was sent: publish the base first, or name the right one with --base-repo" in done.stderr
        assert ("model", "ada/one") not in desk.hub.state.repositories
        desk.hub.state.repositories.get(("model", "ada/base")) or desk.hub.state.create("model", "ada/base")


def test_of_a_base_only_what_is_loaded_is_fetched(monkeypatch, tmp_path: Path) -> None:
    asked = {}

    class Connection:
        api = HfApi()

        def about(self, repo: str) -> Connection:
            asked["about"] = repo
            return self

        def once(self, call, name: str, **keys):
            asked.update(keys, name=name)
            return tmp_path

    assert _base(Connection(), adapter_folder(tmp_path / "adapter", revision="v1")) == tmp_path
    assert (asked["about"], asked["name"], asked["revision"]) == ("ada/base", "ada/base", "v1")
    names = ["model.safetensors", "config.json", "merges.txt", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"]
    assert list(filter_repo_objects(names, allow_patterns=asked["allow_patterns"])) == names[:3]


@pytest.mark.slow
def test_a_corpus_goes_into_a_dataset_repository(hub: HubServer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).unlink()
    code = 'from datasets import Dataset; Dataset.from_dict({"text": ["a", "bc"]}).to_parquet(sys.argv[1]); result = 0'
    (folder / "data").mkdir()
    client(hub, code, folder / "data" / "train-00000-of-00001.parquet")
    manifest = Manifest.load(sign(folder))
    manifest.model_copy(update={"part": "data", "produces": "corpus"}).save(folder)
    done = push(hub, folder, "--push", repo="ada/rows")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mean_bytes" in done.stdout
    assert ("dataset", "ada/rows") in hub.state.repositories
    assert f"{hub.url}/datasets/ada/rows/tree/" in done.stdout
