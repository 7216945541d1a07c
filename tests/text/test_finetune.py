"""The finetune stage as a whole: what lies in its artifact, and that others can load it without us and without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.repocard import metadata_load
from safetensors.torch import load_file, save_file

from pipeline.errors import DataError, StageError
from stages.common.causal_lm import model_folder
from stages.common.lora import base_sha256, folder_sha256, load_adapter
from stages.common.reload import PARITY_TOLERANCE, fresh_logits, logits_difference, logits_of
from stages.text.chat.loading import load
from stages.text.finetune import export
from tests.harness import run_stage
from tests.text.tiny_bases import IDS, TINY, base_artifact, corpus, tiny_model

pytestmark = pytest.mark.slow  # each artifact is proved in a fresh process, which takes seconds to import its libraries

STAGE = "stages.text.finetune"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one finished fine-tuning per base: Qwen3 tied, and GPT-2."""
    root = tmp_path_factory.mktemp("store") / "artifacts"
    new = corpus(root / "text.corpus" / "c0000001")
    old = corpus(root / "text.corpus" / "c0000002", [f"the old text stays for {index} days." for index in range(12)])
    artifacts = {}
    for name, digits in (("qwen3", "b0000001"), ("gpt2", "b0000002")):
        base = base_artifact(root / "text.pretrain" / digits, tiny_model(name))
        inputs = {"base": base, "corpus": new, "old_corpus": old}
        values = TINY | {"learning_rate": 0.02, "num_evaluations": 2}
        artifacts[name] = (base, run_stage(STAGE, root / "text.finetune" / f"f{digits[1:]}", values, inputs))
    return artifacts


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_adapter_and_merged_model_load_in_a_clean_process_and_agree(store, name):
    base, finished = store[name]
    merged, adapted = fresh_logits([(finished / "merged", None), (base / "model", finished / "adapter")], IDS)
    assert logits_difference(merged, adapted) < PARITY_TOLERANCE
    plain = logits_of(tiny_model(name), IDS)
    assert logits_difference(plain, merged) > 100 * PARITY_TOLERANCE  # fine-tuning did something


def test_plain_transformers_loads_the_merged_model_offline(store):
    _, finished = store["qwen3"]
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer;"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False);"
        "t = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False);"
        "print(type(m).__name__, t.decode(t.encode('what light')), m.generation_config.eos_token_id)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished / "merged")], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "Qwen3ForCausalLM what light 0", done.stderr


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_the_base_is_bit_for_bit_what_it_was(store, name):
    base, finished = store[name]
    written = json.loads((finished / "adapter" / "groundup_base.json").read_bytes())
    assert written["artifact"] == base.fingerprint
    assert written["tensors_sha256"] == folder_sha256(base / "model")
    loaded = load_adapter(base / "model", finished / "adapter")
    assert base_sha256(loaded) == base_sha256(tiny_model(name))


def test_the_merged_model_is_what_consumers_of_the_artifact_get(store):
    _, finished = store["qwen3"]
    assert model_folder(finished) == finished / "merged"
    assert "lm_head.weight" not in load_file(finished / "merged" / "model.safetensors")  # still tied


def test_both_domains_are_measured_before_and_after(store):
    _, finished = store["qwen3"]
    assert finished.metric("bits_per_byte", "test") < finished.metric("bits_per_byte_before", "test")
    rows = {row["name"]: row for row in finished.record.metrics}
    assert [name for name in rows if rows[name].get("yardstick")] == ["bits_per_byte_before", "bits_per_byte_old_domain_before"]
    for name in ("bits_per_byte_change", "bits_per_byte_old_domain_change"):
        low, high = rows[name]["interval"]
        assert low <= rows[name]["value"] <= high
        assert rows[name]["separable"] == (not low <= 0 <= high)
    assert rows["num_trainable_parameters"]["value"] == sum(
        tensor.numel() for tensor in load_file(finished / "adapter" / "adapter_model.safetensors").values()
    )


def test_samples_stand_side_by_side_and_the_section_shows_them(store):
    _, finished = store["qwen3"]
    (line,) = (finished / "samples" / "side_by_side.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"prompt", "base", "finetuned"}
    section = json.loads((finished / "section.json").read_bytes())
    assert {"table", "figure", "samples", "facts", "text"} <= {block["kind"] for block in section["blocks"]}
    for block in section["blocks"]:
        if block["kind"] == "figure":
            assert (finished / block["path"]).is_file()


@pytest.mark.parametrize("card", ["card.md", "adapter/README.md", "merged/README.md"])
def test_cards_carry_the_licences_on(store, card):
    _, finished = store["qwen3"]
    assert metadata_load(finished / card)["license"] == "cc-by-4.0"
    assert "Licence of the new text: cc-by-4.0" in (finished / card).read_text()


def test_no_file_names_a_path_of_this_machine(store):
    _, finished = store["qwen3"]
    root = str(finished.path.parents[2]).encode()
    files = [path for path in finished.path.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    assert [path.name for path in files if root in path.read_bytes()] == []


def test_chat_finds_the_base_of_an_adapter_in_the_store(store):
    _, finished = store["qwen3"]
    model, tokenizer = load(finished.path, part="adapter")
    merged, _ = load(finished.path)
    assert logits_difference(logits_of(merged, IDS), logits_of(model, IDS)) < PARITY_TOLERANCE
    assert tokenizer.decode(tokenizer.encode("light")) == "light"
    with pytest.raises(DataError, match="belongs to another base"):
        load(finished.path, part="adapter", base=store["gpt2"][0] / "model")
    with pytest.raises(DataError, match=r"has no model: it holds merged, adapter"):
        load(finished.path, part="model")


def test_a_merged_model_that_is_not_the_trained_one_is_not_kept(tmp_path, monkeypatch):
    """The proof that the export can refuse: the saved weights are damaged after they were written."""

    def damaged(loads, input_ids):
        path = loads[0][0] / "model.safetensors"
        tensors = load_file(path)
        tensors["model.norm.weight"] += 0.1
        save_file(tensors, path, metadata={"format": "pt"})
        return fresh_logits(loads, input_ids)

    monkeypatch.setattr(export, "fresh_logits", damaged)
    inputs = {"base": base_artifact(tmp_path / "base"), "corpus": corpus(tmp_path / "corpus")}
    with pytest.raises(StageError, match="merged, loaded in a fresh process: logits differ"):
        run_stage(STAGE, tmp_path / "out", TINY, inputs)
    assert not (tmp_path / "out" / "merged").exists()
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_model_that_does_not_load_is_named_with_the_reason(tmp_path):
    (tmp_path / "broken").mkdir()
    with pytest.raises(StageError, match="does not load in a fresh process without network"):
        fresh_logits([(tmp_path / "broken", None)], IDS)


def test_two_processes_train_the_same_adapter(tmp_path):
    base_artifact(tmp_path / "inputs" / "base")
    corpus(tmp_path / "inputs" / "corpus")
    values = json.dumps(TINY | {"num_steps": 4})
    for count in (1, 2):
        command = [sys.executable, "-m"]
        if count > 1:
            command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count), "--num_machines", "1"]
            command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
        command += ["tests.text.tiny_bases", str(tmp_path / str(count)), str(tmp_path / "inputs"), values]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
    name = Path("checkpoints", "training", "step-00000004", "model.safetensors")
    one, two = (load_file(tmp_path / str(count) / name) for count in (1, 2))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-4)
