"""Adapters: what may be adapted, which base they belong to, and that merging them changes no logit."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GraniteConfig

from pipeline.errors import DataError, StageError
from stages.common.causal_lm import load_causal_lm
from stages.common.lora import (
    BaseIdentity,
    attach_lora,
    base_sha256,
    folder_sha256,
    load_adapter,
    lora_parameters,
    merge,
    save_adapter,
)
from stages.common.loss import CausalLmLoss
from stages.common.reload import PARITY_TOLERANCE, logits_difference, logits_of
from stages.text.finetune.base import Base
from stages.text.finetune.export import check_base_unchanged, check_parity
from stages.text.finetune.training import LogitsLoss, flops_per_token, loss_module
from tests.text.tiny_bases import IDS, randomise, save_base, tiny_model

FIRST_INPUTS = r"(layers|h)\.0\.(self_attn\.[qkv]_proj|attn\.c_attn)$"
BASES = [("qwen3", True), ("qwen3", False), ("llama", True), ("llama", False), ("gpt2", True), ("gpt2", False)]


def adapted(model, target_modules="all-linear", **changes):
    settings = {"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.0, "seed": 0} | changes
    return attach_lora(model, target_modules=target_modules, **settings)


@pytest.mark.parametrize(("architecture", "tied"), BASES)
def test_an_adapter_starts_as_the_base_and_trains_nothing_else(architecture, tied):
    base = tiny_model(architecture, tied=tied)
    before = logits_of(base, IDS)
    model = adapted(base)
    assert torch.equal(logits_of(model, IDS), before)
    assert all("lora_" in name for name in lora_parameters(model))


@pytest.mark.parametrize(("architecture", "tied"), BASES)
def test_merging_changes_no_logit(architecture, tied):
    base = tiny_model(architecture, tied=tied)
    before = logits_of(base, IDS)
    model = randomise(adapted(base))
    trained = logits_of(model, IDS)
    assert logits_difference(before, trained) > 0.01  # the adapter does something
    assert logits_difference(trained, logits_of(merge(model), IDS)) < PARITY_TOLERANCE


def test_merging_an_adapter_on_an_untied_head_and_embedding_changes_no_logit():
    model = randomise(adapted(tiny_model(tied=False), ("q_proj", "lm_head", "embed_tokens")))
    trained = logits_of(model, IDS)
    assert logits_difference(trained, logits_of(merge(model), IDS)) < PARITY_TOLERANCE


def test_a_merged_tied_model_is_the_same_after_it_was_saved_and_loaded(tmp_path):
    model = randomise(adapted(tiny_model(tied=True)))
    trained = logits_of(model, IDS)
    merge(model).save_pretrained(tmp_path)
    assert logits_difference(trained, logits_of(load_causal_lm(tmp_path), IDS)) < PARITY_TOLERANCE


def test_the_parity_check_sees_what_peft_does_to_a_tied_head():
    """The proof that parity can fail: the adapter that `attach_lora` refuses, made with peft alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomise(get_peft_model(tiny_model(tied=True), LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM")))
        trained = logits_of(model, IDS)
        difference = logits_difference(trained, logits_of(merge(model), IDS))
    with pytest.raises(StageError, match="merged in memory.*tied weights"):
        check_parity({"merged in memory": difference})


def test_logits_that_are_not_finite_are_never_equal():
    logits = torch.zeros(1, 2, 3)
    assert logits_difference(torch.randn(1, 2, 3), logits.log()) == float("inf")
    assert logits_difference(torch.randn(1, 2, 3), logits / 0) == float("inf")


@pytest.mark.parametrize(("architecture", "name"), [("qwen3", "lm_head"), ("qwen3", "embed_tokens"), ("gpt2", "wte")])
def test_a_tied_table_is_refused_as_a_target(architecture, name):
    with pytest.raises(DataError, match=rf"'{name}' shares its weight.*tied"):
        adapted(tiny_model(architecture, tied=True), ("mlp.down_proj" if architecture == "qwen3" else "c_fc", name))


def test_a_misspelt_target_is_refused_though_another_matches():
    with pytest.raises(DataError, match=r"'k_porj' \(did you mean 'k_proj'"):
        adapted(tiny_model(), ("q_proj", "k_porj"))


@pytest.mark.parametrize("names", [("mlp",), ("input_layernorm",), ()])
def test_a_target_that_no_adapter_fits_is_refused(names):
    with pytest.raises(DataError, match="each name must be that of a linear layer or embedding"):
        adapted(tiny_model(), names)


def test_an_adapter_on_the_head_takes_part_in_the_loss():
    model = randomise(adapted(tiny_model(tied=False), ("lm_head",)))
    loss = loss_module(model, None)(IDS, IDS.roll(-1, 1), None, 1 / IDS.numel())
    expected = F.cross_entropy(logits_of(model, IDS).flatten(0, 1), IDS.roll(-1, 1).flatten())
    torch.testing.assert_close(loss, expected)


def test_a_model_that_scales_its_logits_is_trained_with_its_own_loss():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GraniteConfig(vocab_size=320, num_key_value_heads=2, initializer_range=0.5, logits_scaling=4.0, **sizes)
    assert isinstance(loss_module(adapted(tiny_model()), None), CausalLmLoss)
    assert isinstance(loss_module(adapted(AutoModelForCausalLM.from_config(config)), None), LogitsLoss)


def identity(folder, name="pretrain:0001"):
    return BaseIdentity(name, folder_sha256(folder), artifact="1" * 64)


def test_an_adapter_comes_back_on_its_own_base(tmp_path):
    folder = save_base(tmp_path / "base")
    model = randomise(adapted(tiny_model()))
    save_adapter(model, tmp_path / "adapter", identity(folder))
    loaded = load_adapter(folder, tmp_path / "adapter")
    assert torch.equal(logits_of(loaded, IDS), logits_of(model, IDS))


def test_an_adapter_refuses_another_base_of_the_same_shape(tmp_path):
    folder, other = save_base(tmp_path / "base"), save_base(tmp_path / "other", tiny_model(seed=1))
    save_adapter(adapted(tiny_model()), tmp_path / "adapter", identity(folder))
    with pytest.raises(DataError, match=rf"made for pretrain:0001 with tensors {folder_sha256(folder)[:12]}.*other has tensors"):
        load_adapter(other, tmp_path / "adapter")


def test_one_changed_weight_makes_another_base_and_another_sharding_does_not(tmp_path):
    folder = save_base(tmp_path / "base")
    before = folder_sha256(folder)
    tiny_model().save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert folder_sha256(tmp_path / "sharded") == before
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert folder_sha256(folder) != before


def test_a_base_that_moved_during_training_is_noticed_in_memory_and_on_disk(tmp_path):
    folder = save_base(tmp_path / "base")
    base = Base(folder, identity(folder), "cc0-1.0")
    plain = tiny_model()
    before = base_sha256(plain)
    model = randomise(adapted(plain))
    check_base_unchanged(model, base, before)
    save_base(folder, tiny_model(seed=1))
    with pytest.raises(StageError, match="files of the base"):
        check_base_unchanged(model, base, before)
    model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.data[0, 0] += 1
    with pytest.raises(StageError, match="tensors changed"):
        check_base_unchanged(model, base, before)


def test_an_adapter_without_its_base_file_or_with_missing_tensors_is_refused(tmp_path):
    folder = save_base(tmp_path / "base")
    save_adapter(adapted(tiny_model()), tmp_path / "adapter", identity(folder))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights, metadata={"format": "pt"})
    # As in a run, where a warning of peft stops nothing.
    with warnings.catch_warnings(action="ignore"), pytest.raises(DataError, match="cannot be loaded.*missing adapter keys"):
        load_adapter(folder, tmp_path / "adapter")
    (tmp_path / "adapter" / "groundup_base.json").unlink()
    with pytest.raises(DataError, match="nothing says which base"):
        load_adapter(folder, tmp_path / "adapter")


def test_the_same_adapter_gives_the_same_bytes_and_no_path(tmp_path):
    folder = save_base(tmp_path / "base")
    for name in ("one", "two"):
        save_adapter(randomise(adapted(load_causal_lm(folder))), tmp_path / name, identity(folder))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "groundup_base.json"]
    for name in files:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "pretrain:0001"
    assert config["target_modules"] == sorted(config["target_modules"])


@pytest.mark.parametrize(("architecture", "tied"), BASES)
def test_counted_operations_are_those_that_pytorch_counts_but_for_the_first_inputs(architecture, tied):
    model = adapted(tiny_model(architecture, tied=tied, attn_implementation="eager"))
    ids = torch.randint(0, 256, (2, 32), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        LogitsLoss(model.get_base_model())(ids, ids.roll(-1, 1), None, 1.0).backward()
    counted = counter.get_total_flops() / ids.numel()
    # Nothing goes back from the first layer into the token table, which the formula leaves out of account.
    first = [module for name, module in model.named_modules() if re.search(FIRST_INPUTS, name)]
    saved = sum(2 * (module.base_layer.weight.numel() + module.lora_A["default"].weight.numel()) for module in first)
    assert first
    assert counted + saved == pytest.approx(flops_per_token(model, 32), rel=0.02)
