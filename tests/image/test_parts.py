"""Where memory runs out after the training: parts are halved, no number changes, or the key to lower is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from stages.common.images import parts
from stages.common.images.config import ImageModelConfig
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.family import ConditionalFamily
from stages.common.images.features import probabilities, raw_features
from stages.common.images.grid import load_grid
from stages.common.images.noise import seeded_generator
from stages.common.images.parts import Parts, doing
from stages.common.images.stage import run_family
from tests.harness import make_context, run_stage
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS, tiny_family
from tests.image.toy_family import ToyFamily

NUM, FITS = 128, 64
SHORT = {"num_importance_samples": 4, "num_dequantisation_draws": 2, "num_likelihood_steps": 2, "num_probes": 2}
SHORT |= {"num_class_steps": 2, "num_class_draws": 2}
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB")
CPU = RuntimeError("[enforce fail] can't allocate memory: 9 GiB")


@pytest.fixture(autouse=True)
def collections(monkeypatch):
    """How often memory was given back: a collection walks through all that the tests before have loaded, half a second each."""
    calls = []
    monkeypatch.setattr(parts, "free_memory", lambda: calls.append(1))
    return calls


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"), height=8, width=8)


def crowded(module: nn.Module, error: BaseException, most: int = FITS) -> list[int]:
    """Let no layer of `module` take more than `most` rows; return the sizes that were asked for."""
    asked = []

    def check(layer: nn.Module, rows: tuple[Tensor, ...]) -> None:
        asked.append(len(rows[0]))
        if len(rows[0]) > most:
            raise error

    for layer in module.modules():
        if not list(layer.children()) and list(layer.parameters()):
            layer.register_forward_pre_hook(check)
    return asked


def everything(family, images: Tensor) -> list[Tensor]:
    """Return all that a family draws and measures, from generators of one seed."""
    samplers = [family.sample, *family.sample_sets().values(), *family.shorter_paths().values()]
    found = [sampler(NUM, seeded_generator(5, number)) for number, sampler in enumerate(samplers)]
    likelihood = family.likelihood(images, seeded_generator(6))
    found += [] if likelihood is None else [likelihood.bits]
    if isinstance(family, ConditionalFamily) and family.num_classes:
        found.append(family.log_probs_given(images, 1, seeded_generator(7)))
    if hasattr(family, "posterior") and not family.num_classes:
        found += family.posterior(images)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_less_memory_changes_no_draw_of_samples_and_likelihoods(name, images, monkeypatch):
    config = CONFIGS[name]
    monkeypatch.setitem(CONFIGS, name, config.model_copy(update={key: n for key, n in SHORT.items() if hasattr(config, key)}))
    family = tiny_family(name, load_grid(images))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for network in family.averaged().values():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    data = torch.randint(4, (NUM, *family.grid.shape), generator=seeded_generator(2)).to(torch.uint8)
    # Whether rounding changes is another matter, of the processor and the layer; a stage would stop.
    monkeypatch.setattr(Parts, "_check", lambda *_: None)
    roomy = everything(family, data)
    asked = [size for network in family.averaged().values() for size in [crowded(network, GPU)]]
    narrow = everything(family, data)
    assert any(max(sizes, default=0) > FITS for sizes in asked), "memory never ran out"
    for before, after in zip(roomy, narrow, strict=True):
        if before.dtype == torch.uint8:
            assert (before != after).double().mean() < 0.001
        else:
            torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_less_memory_changes_no_bit_of_features():
    network = ExtractorNetwork(channels=1, height=8, width=8, levels=4, num_outputs=2, num_features=8, first_width=4).eval()
    data = torch.randint(4, (600, 1, 8, 8), generator=seeded_generator(2)).to(torch.uint8)
    features, shares = raw_features(network, data), probabilities(network, data)
    crowded(network, CPU)
    assert torch.equal(features, raw_features(network, data))
    assert (shares == probabilities(network, data)).all()


def test_parts_are_cut_in_equal_halves_and_what_did_not_fit_is_not_tried_again(collections):
    asked = []

    def work(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > 25:
            raise GPU
        return 2 * rows

    by_parts, rows = Parts(100), torch.arange(200)
    assert torch.equal(by_parts(work, rows), 2 * rows)
    assert len(collections) == 2
    assert asked[:5] == [100, 50, 25, 13, 12]  # the last two check the third
    assert asked[5:] == [25] * 7
    assert torch.equal(by_parts(work, rows), 2 * rows)
    assert asked[12:] == [25] * 8


def test_results_that_depend_on_the_size_of_the_parts_are_refused():
    def work(rows: Tensor) -> Tensor:
        if len(rows) > 30:
            raise GPU
        return rows + 1e-7 * len(rows)

    told = r"out of memory while drawing \(25 images were tried and fit, but .*\); set num to 9"
    with pytest.raises(StageError, match=told), doing("drawing", "set num to 9"):
        Parts()(work, torch.rand(100, dtype=torch.float64))


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()], ids=["gpu", "cpu", "python"])
def test_where_not_even_one_row_fits_the_cause_is_named(error):
    def work(rows: Tensor) -> Tensor:
        raise error

    cause = str(error).split(".")[0].replace("[", r"\[").replace("]", r"\]") or "MemoryError"
    with pytest.raises(MemoryError, match=f"not even one image fits: {cause}"):
        Parts()(work, torch.zeros(7))


def test_another_error_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), doing("trying", "nothing helps"):
        Parts()(lambda rows: rows @ rows, torch.zeros(2, 3))


def fail(*args, **rest):
    raise CPU


class Hungry(ToyFamily):
    """Runs out of memory in the method that a test names."""

    at = ""

    def __getattribute__(self, name):
        return fail if name == type(self).at else super().__getattribute__(name)


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("sample", "while drawing 20 samples .*; set num_samples lower than 20"),
        ("sample_sets", "while training .*; set batch_size lower"),
        ("likelihood", "while measuring bits per dimension of 10 train images .*; set num_likelihood_images lower than 10"),
        ("report", "while reporting on 32 test images"),
        ("averaged", "while training"),
    ],
)
def test_a_family_says_what_ran_out_of_memory_and_which_key_to_lower(at, told, images, tmp_path):
    config = ImageModelConfig(budget_tflop=1e-7, batch_size=8, num_samples=20, num_likelihood_images=10)
    family = type("HungryThere", (Hungry,), {"at": at})
    with pytest.raises(StageError, match=rf"^out of memory {told}"):
        run_family(config, make_context(tmp_path, {"images": images}), family)


@pytest.mark.parametrize(
    ("stage", "place", "values", "told"),
    [
        ("dataset", "run.make_plan", {"card": "digits"}, "max_images"),
        ("classifier", "run.load_split", {}, "batch_size or first_width"),
        ("classic", "run.fit", {}, "max_train_images, num_components or num_samples"),
        ("compare", "run.load_contestants", {}, "num_samples of their stages"),
        ("generative_classifier", "run.load_cells", {}, "num_class_images of their stages"),
        ("discriminative", "run.prepare", {}, "num_class_images"),
    ],
)
def test_every_other_stage_says_so_as_well(stage, place, values, told, images, tmp_path, monkeypatch):
    monkeypatch.setattr(f"stages.image.{stage}.{place}", fail)
    inputs = {} if stage == "dataset" else {"images": images}
    inputs |= {"extractors": images, "models": images, "rivals": images} if stage in ("compare", "generative_classifier") else {}
    with pytest.raises(StageError, match=f"out of memory while .*9 GiB.*; set {told}"):
        run_stage(f"stages.image.{stage}", tmp_path, values, inputs)
