"""The stand-in for the Hub, seen by the real client libraries."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.hub.client import Desk, client
from tests.hub.server import HubServer


def folder_with(tmp_path: Path, size: int = 3000) -> tuple[Path, dict[str, str]]:
    """A folder with a card, a config and weights; and the sha256 of each file."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# a model\n")
    (folder / "sub" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(size))
    files = [p for p in folder.rglob("*") if p.is_file()]
    return folder, {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


ROUND_TRIP = """
    import hashlib, pathlib
    folder, repo = sys.argv[1:3]
    api.create_repo(repo, private=True)
    commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="first")
    again = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="second")
    place = pathlib.Path(api.snapshot_download(repo, revision=commit.oid))
    files = {p.relative_to(place).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in place.rglob("*") if p.is_file()}
    del files[".gitattributes"]
    titles = [c.title for c in api.list_repo_commits(repo)]
    result = {"files": files, "same": again.oid == commit.oid, "titles": titles, "private": api.repo_info(repo).private}
"""


@pytest.mark.slow
@pytest.mark.parametrize("part_bytes", [None, 1000])
def test_a_folder_comes_back_as_it_was_sent_whole_or_in_parts(desk: Desk, tmp_path: Path, part_bytes: int | None) -> None:
    folder, files = folder_with(tmp_path)
    desk.hub.state.multipart_bytes = part_bytes
    found = desk.run(ROUND_TRIP, folder, "ada/one")
    assert found == {"files": files, "same": True, "titles": ["first", "initial commit"], "private": True}
    assert desk.hub.faults.count("PUT /lfs/") == (1 if part_bytes is None else 3)


@pytest.mark.slow
def test_a_folder_comes_back_as_it_was_sent_over_xet(hub: HubServer, tmp_path: Path) -> None:
    folder, files = folder_with(tmp_path, size=3_000_000)
    hub.state.xet = True
    found = client(hub, ROUND_TRIP, folder, "ada/one", xet=True)
    assert found == {"files": files, "same": True, "titles": ["first", "initial commit"], "private": True}
    assert hub.faults.count("POST /cas/v1/xorbs") > 0
    assert hub.faults.count("PUT /lfs/") == 0


@pytest.mark.slow
def test_create_commit_makes_branches_tags_and_refuses_a_stale_parent(desk: Desk) -> None:
    code = """
        api.create_repo("guild/two", private=False)
        first = api.repo_info("guild/two").sha
        def put(text, **more):
            return api.create_commit("guild/two", [CommitOperationAdd("a.txt", text)], commit_message="m", **more)
        oid = put(b"1", parent_commit=first).oid
        try:
            put(b"2", parent_commit=first)
            stale = 0
        except Exception as error:
            stale = error.response.status_code
        api.create_branch("guild/two", branch="b/c")
        put(b"3", revision="b/c")
        api.create_tag("guild/two", tag="v1", revision=oid)
        api.delete_file("a.txt", "guild/two")
        refs = api.list_repo_refs("guild/two")
        result = [stale, [b.name for b in refs.branches], refs.tags[0].target_commit == oid, api.list_repo_files("guild/two"),
                  open(api.hf_hub_download("guild/two", "a.txt", revision="b/c")).read()]
    """
    assert desk.run(code) == [412, ["main", "b/c"], True, [".gitattributes"], "3"]


@pytest.mark.slow
def test_a_pull_request_can_be_opened_found_filled_and_merged(desk: Desk) -> None:
    desk.hub.state.create("model", "bob/open", private=False)
    code = """
        made = api.create_commit("bob/open", [CommitOperationAdd("a.txt", b"1")], commit_message="offer", create_pr=True)
        pull = api.create_pull_request("bob/open", title="second", description="more")
        api.create_commit("bob/open", [CommitOperationAdd("b.txt", b"2")], commit_message="b", revision=pull.git_reference)
        found = [[d.num, d.title, d.status] for d in api.get_repo_discussions("bob/open", author="ada", discussion_status="open")]
        event = api.change_discussion_status("bob/open", 2, "open")
        result = [made.pr_num, found, event.new_status, api.list_repo_files("bob/open", revision="refs/pr/2"),
                  api.list_repo_files("bob/open")]
    """
    offers = [[1, "offer", "draft"], [2, "second", "draft"]]
    assert desk.run(code) == [1, offers, "open", [".gitattributes", "b.txt"], [".gitattributes"]]
    desk.hub.state.add_user("hf_owner", "bob")
    code = 'api.merge_pull_request("bob/open", 2); result = api.list_repo_files("bob/open")'
    assert desk.run(code, token="hf_owner") == [".gitattributes", "b.txt"]


@pytest.mark.slow
def test_a_long_tree_comes_in_pages_and_folders_can_be_asked_for(desk: Desk) -> None:
    desk.hub.state.page_size = 3
    code = """
        api.create_repo("ada/many")
        api.create_commit("ada/many", [CommitOperationAdd(f"d/e{i}/f.txt", b"x") for i in range(5)], commit_message="m")
        top = [e.path for e in api.list_repo_tree("ada/many")]
        result = [top, len(list(api.list_repo_tree("ada/many", recursive=True))), len(list(api.list_repo_tree("ada/many", "d")))]
    """
    assert desk.run(code) == [[".gitattributes", "d"], 12, 5]
    assert desk.hub.faults.count("cursor=") >= 3


def test_rights_are_kept(desk: Desk) -> None:
    desk.hub.state.create("model", "ada/secret", private=True)
    desk.hub.state.create("model", "ada/gated", private=False).gated = True
    code = """
        def kind(call):
            try:
                call()
            except Exception as error:
                return [type(error).__name__, error.response.status_code]
        add = [CommitOperationAdd("a", b"a")]
        result = [
            kind(lambda: api.repo_info("ada/secret")),
            kind(lambda: api.hf_hub_download("ada/gated", ".gitattributes")),
            kind(lambda: api.create_repo("ada/mine")),
            kind(lambda: api.create_commit("ada/gated", add, commit_message="m")),
            kind(lambda: api.whoami()),
        ]
    """
    bob = desk.run(code, token="hf_bob")
    assert bob == [
        ["RepositoryNotFoundError", 404],
        ["GatedRepoError", 403],
        ["HfHubHTTPError", 403],
        ["HfHubHTTPError", 403],
        None,
    ]
    wrong = desk.run(code, token="hf_unknown")
    assert [entry[1] for entry in wrong] == [401] * 5


def test_faults_strike_the_requests_that_they_name(desk: Desk, tmp_path: Path) -> None:
    desk.hub.state.create("model", "ada/one", private=False)
    desk.hub.faults.add("GET /api/models/ada/one$", status=503, message="later", times=1)
    desk.hub.faults.add("POST .*/tag/", drop="after")
    code = """
        codes = []
        for call in (lambda: api.repo_info("ada/one"), lambda: api.repo_info("ada/one"),
                     lambda: api.create_tag("ada/one", tag="t"), lambda: api.create_tag("ada/one", tag="t")):
            try:
                call()
                codes.append(200)
            except Exception as error:
                response = getattr(error, "response", None)
                codes.append(response.status_code if response is not None else type(error).__name__)
        result = codes
    """
    assert desk.run(code) == [503, 200, "RemoteProtocolError", 409]
    assert desk.hub.faults.count("/tag/") == 2


@pytest.mark.slow
def test_a_download_that_is_cut_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    block = 10 * 1024 * 1024  # what the client writes at once
    folder, files = folder_with(tmp_path, size=block + 2_000_000)
    hub.faults.add("GET .*/resolve/.*safetensors", cut=block + 1_000_000)
    assert client(hub, ROUND_TRIP, folder, "ada/one")["files"] == files
    assert any(entry.range == f"bytes={block}-" for entry in hub.faults.log)


@pytest.mark.slow
def test_transformers_and_datasets_push_to_it_and_load_from_it(hub: HubServer) -> None:
    code = """
        import torch
        from datasets import Dataset, load_dataset
        from transformers import GPT2Config, GPT2LMHeadModel
        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8))
        model.push_to_hub("ada/gpt", private=True)
        again = GPT2LMHeadModel.from_pretrained("ada/gpt")
        equal = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
        Dataset.from_dict({"text": ["a", "b"]}).push_to_hub("ada/rows", private=True)
        result = [equal, load_dataset("ada/rows", split="train")["text"][:]]
    """
    assert client(hub, code) == [True, ["a", "b"]]


@pytest.mark.slow
def test_peft_and_diffusers_push_to_it_and_load_from_it(hub: HubServer) -> None:
    code = """
        import torch
        from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import GPT2Config, GPT2LMHeadModel
        config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8)
        model = get_peft_model(GPT2LMHeadModel(config), LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True))
        model.push_to_hub("ada/lora", private=True)
        again = PeftModel.from_pretrained(GPT2LMHeadModel(config), "ada/lora")
        name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight"
        equal = torch.equal(model.state_dict()[name], again.state_dict()[name])
        unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
                           down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
        DDPMPipeline(unet, DDPMScheduler()).push_to_hub("ada/ddpm", private=True)
        loaded = DDPMPipeline.from_pretrained("ada/ddpm").unet
        result = [equal, all(torch.equal(a, b) for a, b in zip(unet.parameters(), loaded.parameters()))]
    """
    assert client(hub, code) == [True, True]


def test_a_hub_to_rehearse_on_says_how_to_reach_it_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hub_server", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as hub:
        assert hub.stdout is not None
        told = dict(hub.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(3))
        request = urllib.request.Request(
            told["HF_ENDPOINT"] + "/api/whoami-v2", headers={"authorization": f"Bearer {told['HF_TOKEN']}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["name"] == "me"
        hub.send_signal(signal.SIGINT)
        try:
            assert hub.wait(timeout=20) == 0
        finally:
            hub.kill()
