"""Loading a model: whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from pipeline.artifact import Artifact, Record
from pipeline.errors import DataError
from stages.common.causal_lm import load_causal_lm, load_tokenizer, max_positions, model_folder, vocab_rows


def saved(folder: Path, **changes) -> PreTrainedModel:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    config = Qwen3Config(vocab_size=50, num_key_value_heads=1, max_position_embeddings=16, **shape | changes)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    return model


def artifact(folder: Path) -> Artifact:
    record = Record(
        name="x",
        stage="s.x",
        produces="causal_lm",
        fingerprint="f" * 64,
        identity={},
        inputs={},
        files={},
        metrics=[],
        provenance={},
    )
    return Artifact(folder, record)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_with_its_logits_in_evaluation_mode(tmp_path, tied):
    model = saved(tmp_path, tie_word_embeddings=tied)
    loaded = load_causal_lm(tmp_path)
    ids = torch.arange(10)[None]
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    assert not loaded.training
    assert (max_positions(loaded), vocab_rows(loaded)) == (16, 50)
    assert load_causal_lm(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), "missing keys: model.layers.1.mlp.up_proj.weight"),
        (lambda tensors: tensors.update(stranger=torch.zeros(2)), "unexpected keys: stranger"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}), "mismatched keys: model.norm.weight"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, edit, message):
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match=message):
        load_causal_lm(tmp_path)


def test_a_folder_that_is_not_there_is_not_looked_up_on_the_hub(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load_causal_lm(tmp_path / "gpt2", offline=False)
    with pytest.raises(DataError, match="is no folder"):
        load_tokenizer(tmp_path / "gpt2", offline=False)
    with pytest.raises(DataError, match="tokenizer "):
        load_tokenizer(tmp_path)


def test_weights_as_pickle_are_refused(tmp_path):
    model = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        load_causal_lm(tmp_path)


def test_code_in_a_model_folder_is_not_run(tmp_path):
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError):
        load_causal_lm(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_merged_model_goes_before_the_base(tmp_path):
    with pytest.raises(DataError, match="holds no model"):
        model_folder(artifact(tmp_path))
    for name in ("model", "merged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        assert model_folder(artifact(tmp_path)) == tmp_path / name
