"""The stage end to end: small artifacts in, tables, claims, pictures, files and the page out."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import t

from pipeline.errors import DataError, RecipeError
from stages.common.images.config import ImageModelConfig
from stages.common.images.grid import load_split
from stages.common.images.stage import run_family
from stages.image.compare.config import Config
from stages.image.compare.paths import PATH_KEYS
from stages.image.compare.scores import agreement_of
from stages.image.compare.study import COSTS
from tests.harness import commit, make_context, run_stage
from tests.image.comparisons import TFLOP, make_extractors, model_artifact
from tests.image.digits import toy_artifact
from tests.image.toy_family import ToyFamily

STAGE = "stages.image.compare"
NUM_SAMPLES = 40
SHARES = {"1/8": 0.5, "1/4": 0.3, "1/2": 0.2, "1": 0.1, "raw": 0.1}
"""Share of the budget -> share of pixels that are noise."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def extractors(tmp_path_factory, images):
    return make_extractors(tmp_path_factory.mktemp("extractors"), images)


def noisy(images, share, seed):
    """Return training images, each pixel of which is noise with the probability `share`."""
    generator = torch.Generator().manual_seed(seed)
    real = load_split(images, "train").images
    chosen = real[torch.randperm(len(real), generator=generator)[:NUM_SAMPLES]]
    noise = torch.randint(4, chosen.shape, generator=generator).to(torch.uint8)
    return torch.where(torch.rand(chosen.shape, generator=generator) < share, noise, chosen)


def shorter(images, seed):
    """Samples drawn with 2 and 8 calls: more calls, less noise; a third number that one of the two seeds lacks."""
    return {calls: noisy(images, share, seed) for calls, share in ((2, 0.9), (8, 0.4), *([(4, 0.6)] if seed == 1 else []))}


def zigzag(images, seed):
    """Return paths between test images whose images between are noise, 6 pairs in 4 steps."""
    ends = load_split(images, "test").images[:12].view(2, 6, 1, 1, 4, 4)
    noise = torch.randint(4, (6, 3, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return torch.cat([ends[0], noise, ends[1]], dim=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory, images):
    """A VAE with means, a GAN that draws noise, and a classic density that copies, two seeds each."""
    root, found = tmp_path_factory.mktemp("models"), []
    for seed in (1, 2):
        vae = {name: noisy(images, share, seed) for name, share in SHARES.items()}
        means = {"mean": vae["1"].float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand(-1, 1, 4, 4)}
        gan = {name: noisy(images, 1.0, seed + 5) for name in SHARES}
        steps = [{"vae.gradient_norm": 2.0**step} for step in range(8)]
        found += [
            model_artifact(
                root / f"v{seed}",
                images,
                vae | means,
                family="vae",
                seed=seed,
                bits=1.5,
                events=steps,
                by_calls=shorter(images, seed),
                paths=zigzag(images, seed),
            ),
            model_artifact(root / f"g{seed}", images, gan, family="gan", seed=seed, bits=None),
            model_artifact(
                root / f"c{seed}",
                images,
                {"1": noisy(images, 0.0, seed)},
                family="copies",
                seed=seed,
                facts={"training_flops": 0},
            ),
        ]
    return found


def compare(root, images, extractors, models, **values):
    inputs = {"images": images, "extractors": extractors, "models": models}
    return run_stage(STAGE, root, {"num_parts": 4, "num_resamples": 100, "page_images": 4, "columns": 6} | values, inputs)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, images, extractors, models):
    return compare(tmp_path_factory.mktemp("compare") / "run", images, extractors, models)


def blocks_of(artifact, kind):
    return [block for block in json.loads((artifact.path / "section.json").read_text())["blocks"] if block["kind"] == kind]


def outcomes_of(artifact):
    return {
        claim["sentence"]: claim["outcome"] for claim in json.loads((artifact.path / "comparison.json").read_text())["claims"]
    }


def test_the_first_table_has_a_row_for_each_model_and_each_way_to_sample(compared):
    table = blocks_of(compared, "table")[0]
    assert [row[0] for row in table["rows"]] == ["vae", "vae (mean)", "gan", "copies", "real train images"]
    bits = table["rows"][0][table["columns"].index("bit/dim")]
    assert bits == "★\u00a01.489\u00a0~\u00a00.017, lower bound"
    assert table["rows"][1][table["columns"].index("bit/dim")] is None


def test_samples_like_real_images_are_near_and_noise_is_far(compared):
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    vae, gan, copies = (numbers[label]["fd_ratio"] for label in ("vae", "gan", "copies"))
    assert copies["mean"] < vae["mean"] < gan["mean"]
    assert vae["high"] < gan["low"]
    assert (vae["num_seeds"], vae["method"]) == (2, "samples")


def test_what_was_not_measured_has_no_number(compared):
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    assert not set(COSTS) & numbers["vae (mean)"].keys()
    assert set(COSTS) - numbers["copies"].keys() == {"peak_memory_gib"}
    assert set(COSTS) <= numbers["vae"].keys()


def test_the_interval_of_bits_allows_for_other_images(compared, models):
    found = json.loads((compared.path / "comparison.json").read_text())["numbers"]["vae"]["bits_per_dim"]
    bits = np.stack([load_file(model / "likelihood.safetensors")["test"] for model in models if "v" in model.path.name])
    reach = t.ppf(0.975, bits.shape[1] - 1) * bits.mean(axis=0).std(ddof=1) / np.sqrt(bits.shape[1])
    assert (found["high"] - found["low"]) / 2 == pytest.approx(reach, rel=1e-9)


def test_real_train_images_stand_below_the_models_where_something_can_be_said_of_them(compared):
    last = {block["title"]: block["rows"][-1][0] for block in blocks_of(compared, "table")}
    titles = ("Quality and variety", "Signs of collapse", "The comparison", "What it cost", "Memory and likelihood")
    assert [last[title] == "real train images" for title in titles] == [True, True, True, False, False]
    quality = next(block for block in blocks_of(compared, "table") if block["title"] == "Quality and variety")
    real = dict(zip(quality["columns"], quality["rows"][-1], strict=True))
    anchors = json.loads((compared.path / "comparison.json").read_text())["anchors"]
    assert float(real["Fréchet distance"]) == pytest.approx(anchors["floor"], rel=0.01)


def test_what_copies_its_training_images_is_found_out_and_what_does_not_is_not(compared):
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    assert (numbers["copies"]["nn_ratio"]["mean"], numbers["copies"]["duplicate_share"]["mean"]) == (0, 1)
    assert numbers["gan"]["nn_ratio"]["low"] > 1


def test_what_copies_is_nearer_to_train_than_unseen_images_are_and_every_distance_names_its_reference(compared):
    comparison = json.loads((compared.path / "comparison.json").read_text())
    anchors, numbers = comparison["anchors"], comparison["numbers"]
    assert anchors["train_copy"] < anchors["train_floor"]
    assert (anchors["num_train"], anchors["num_train_floor"]) == (64, 32)  # there are fewer unseen images than samples
    copies, gan = numbers["copies"], numbers["gan"]
    assert copies["fd_train"]["mean"] < anchors["train_floor"] < gan["fd_train"]["mean"]
    assert copies["fd_gap"]["low"] > 0
    assert copies["fd_gap"]["by_seed"]["1"] == pytest.approx(copies["fd"]["by_seed"]["1"] - copies["fd_train"]["by_seed"]["1"])
    table = next(block for block in blocks_of(compared, "table") if block["title"] == "Which real images: test or train")
    assert [row[0] for row in table["rows"]][-2:] == ["real train images (copies)", "real test images (unseen)"]
    rows = [row for row in json.loads((compared.path / "metrics.json").read_text()) if row["name"] in ("fd", "fd_train")]
    assert {(row["name"], row["split"], row["num_references"], row["extractor"]) for row in rows} == {
        ("fd", "test", 32, "supervised-0"),
        ("fd_train", "train", 64, "supervised-0"),
    }


def test_the_way_between_latents_is_measured_of_models_that_kept_it_and_a_cross_fade_is_a_yardstick(compared):
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    assert {label for label, found in numbers.items() if "path_ratio" in found} == {"vae"}
    assert numbers["vae"]["path_ratio"]["mean"] > numbers["vae"]["fade_ratio"]["mean"] >= 1
    rows = {row["name"]: row for row in json.loads((compared.path / "metrics.json").read_text()) if row["name"] in PATH_KEYS}
    assert rows.keys() == set(PATH_KEYS)
    assert {name for name, row in rows.items() if row.get("yardstick")} == {"fade_ratio", "fade_left"}
    assert {(row["split"], row["extractor"], row["interval_over"]) for row in rows.values()} == {
        ("test", "supervised-0", "pairs")
    }
    (table,) = [block for block in blocks_of(compared, "table") if block["title"] == "The way between two images"]
    assert [row[:2] for row in table["rows"]] == [["vae", way] for way in ("arc of latents", "cross-fade", "arc − cross-fade")]
    sentence = "A VAE's latent space is smooth (against a cross-fade in pixels, as the extractor sees it)"
    assert outcomes_of(compared)[sentence] != "cannot be tested here"


def test_the_curve_falls_with_the_budget_and_classic_densities_have_none(compared):
    curves = json.loads((compared.path / "comparison.json").read_text())["frechet_distance_at_share"]
    assert set(curves) == {"vae", "gan"}
    means = [curves["vae"][share]["mean"] for share in ("1/8", "1/4", "1/2", "1")]
    assert means == sorted(means, reverse=True)


def test_quality_against_calls_is_measured_where_every_seed_was_sampled_with_fewer(compared):
    curves = json.loads((compared.path / "comparison.json").read_text())["frechet_distance_by_calls"]
    assert {label: list(curve) for label, curve in curves.items()} == {"vae": ["2", "8"]}
    noisy, clean = (curves["vae"][calls] for calls in ("2", "8"))
    assert all(noisy["by_seed"][seed] > clean["by_seed"][seed] for seed in ("1", "2"))
    assert noisy["low"] < noisy["mean"] < noisy["high"]
    assert "figures/calls.svg" in [block["path"] for block in blocks_of(compared, "figure")]


def test_the_last_weights_have_an_interval_over_draws_of_samples_where_seeds_are_few(compared):
    (table,) = [block for block in blocks_of(compared, "table") if block["title"] == "Averaged weights or the last ones"]
    assert [row[0] for row in table["rows"]] == ["vae", "gan"]
    assert all("\u00a0~\u00a0" in cell for row in table["rows"] for cell in row[1:])
    found = json.loads((compared.path / "comparison.json").read_text())
    # The last weights of these models draw the very samples of the averaged ones.
    assert {label: one["high"] for label, one in found["frechet_distance_of_last_weights"].items()} == {
        label: pytest.approx(found["numbers"][label]["fd"]["high"]) for label in ("vae", "gan")
    }


def ranked(*distances):
    """Return what an evaluator returns of each training of a model; space `other` has the same distances, but the third's negated."""
    common = dict.fromkeys(("num_samples", "num_references", "num_parts", "seed", "references_sha256", "training_sha256"), 0)

    def result(one, other):
        values = {"one": float(one), "other": float(other)}
        return common | {
            "spaces": {name: {"sha256": name, "values": {"frechet_distance": value}} for name, value in values.items()}
        }

    return [result(number, -number if place == 2 else number) for place, number in enumerate(distances)]


def test_orders_are_compared_training_by_training_and_their_agreement_has_an_interval_over_them():
    models = {"a": ranked(1, 2, 3), "b": ranked(4, 5, 6), "c": ranked(7, 8, 9)}
    # Equal seeds of two families share nothing: the orders are of first trainings, of second ones and so on.
    (found,) = agreement_of({"a": dict(enumerate(models["a"])), **{k: dict(enumerate(models[k], 7)) for k in "bc"}}).values()
    assert (found.mean, found.num_seeds, found.method) == (pytest.approx((1 + 1 - 1) / 3), 3, "seeds")
    assert (found.low, found.high) == (-1, 1)
    (found,) = agreement_of({label: dict(enumerate(ones[:2])) for label, ones in models.items()}).values()
    assert (found.mean, found.num_seeds, found.method) == (1, 2, "none")


def test_claims_come_out_by_rule(compared):
    found = outcomes_of(compared)
    assert found["A VAE's images are blurred (the decoder's means, which are what is usually shown)"] == "holds"
    assert found["A flow is exactly invertible"] == "cannot be tested here"
    shown = next(block for block in blocks_of(compared, "table") if block["columns"][:2] == ["claim", "outcome"])
    assert [row[:2] for row in shown["rows"]] == [list(item) for item in found.items()]


def test_the_spread_of_gradients_is_that_of_the_second_half_in_logarithms(compared):
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    steps = torch.arange(4.0, 8.0, dtype=torch.float64) * torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert numbers["vae"]["gradient_spread"]["mean"] == pytest.approx(float(steps.std()))
    assert "gradient_spread" not in numbers["gan"]


def test_metrics_name_the_model_beside_the_number(compared):
    rows = json.loads((compared.path / "metrics.json").read_text())
    found = [row for row in rows if row["name"] == "fd_ratio"]
    assert [row["label"] for row in found] == ["vae", "vae (mean)", "gan", "copies"]
    assert all(low < row["value"] < high for row in found for low, high in [row["interval"]])
    assert {row["label"] for row in rows if row["name"] == "bits_per_dim"} == {"vae", "copies"}
    assert {row["name"] for row in rows if row.get("listed", True)} == {"fd_ratio", "bits_per_dim", "claims_that_hold"}
    assert {"coverage", "nn_ratio", "bits_gap"} <= {row["name"] for row in rows}


def test_each_row_says_which_trainings_it_is_a_mean_over_and_what_each_gave(compared, models):
    rows = json.loads((compared.path / "metrics.json").read_text())
    numbers = json.loads((compared.path / "comparison.json").read_text())["numbers"]
    families = {"vae": "vae", "vae (mean)": "vae", "gan": "gan", "copies": "copies"}
    for row in (row for row in rows if "label" in row):
        family = families[row["label"]]
        trained = {
            one.record.config["seed"]: one.fingerprint
            for one in models
            if json.loads((one / "family.json").read_text())["family"] == family
        }
        assert {one["seed"]: one["artifact"] for one in row["of"]} == trained
        by_seed = numbers[row["label"]][row["name"]]["by_seed"]
        assert {str(one["seed"]): one["value"] for one in row["of"]} == by_seed
        assert row["value"] == pytest.approx(sum(by_seed.values()) / 2)
        items = ("images", 16) if row["unit"] == "bit/dim" else ("samples", NUM_SAMPLES)
        items = ("pairs", 6) if row["name"] in PATH_KEYS else items
        assert {(one["items"], one["n"], one["interval_over"]) for one in row["of"]} == {(*items, items[0])}
        assert (row["items"], row["n"], row["interval_over"]) == (*items, items[0])
        assert all(one["interval"][0] <= one["value"] <= one["interval"][1] for one in row["of"])
        # One training is less sure than the mean of two.
        widths = [high - low for low, high in (row["interval"], *(one["interval"] for one in row["of"]))]
        assert widths[0] <= max(widths[1:])
    assert {row.get("extractor") for row in rows if row["name"] in ("fd", "recall")} == {"supervised-0"}
    assert not any("extractor" in row for row in rows if row["name"] in ("nn_ratio", "bits_per_dim"))


def test_every_number_is_in_the_csv_and_every_picture_in_the_section(compared):
    with (compared.path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"vae", "vae (mean)", "gan", "copies"}
    row = next(row for row in rows if (row["model"], row["number"]) == ("vae", "fd"))
    assert sum(map(float, row["values"].split())) / 2 == pytest.approx(float(row["mean"]))
    shown = {block["path"] for block in blocks_of(compared, "figure")}
    assert shown == {f"figures/{path.name}" for path in (compared.path / "figures").iterdir()}
    assert "figures/paths.png" in shown
    assert len(shown) == 10


def test_pairs_of_trained_models_have_a_verdict_and_say_what_it_stands_on(compared):
    pair = next(block for block in blocks_of(compared, "table") if block["title"] == "Trained families, Fréchet distance")
    assert [row[:2] + row[5:] for row in pair["rows"]] == [["vae", "gan", "first is better", "over the samples of 2 seeds"]]
    assert "Holm" in pair["caption"]


def test_what_draws_one_kind_of_image_shows_signs_of_collapse(compared):
    table = next(block for block in blocks_of(compared, "table") if block["title"] == "Signs of collapse")
    assert {"classes missing", "largest class probability"} <= set(table["columns"])
    assert all(None not in row for row in table["rows"])
    shown = {row[0]: row[-1] for row in table["rows"]}
    assert shown["copies"] == "none"
    assert "less than half the variety of real images" in shown["vae (mean)"]


def test_the_card_carries_the_licence_and_the_outcomes(compared):
    card = (compared.path / "card.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "| vae (mean) |" in card
    assert "A flow is exactly invertible: **cannot be tested here**" in card


@pytest.mark.slow
def test_the_same_models_give_the_same_files(tmp_path, images, extractors, models, compared):
    again = compare(tmp_path / "run", images, extractors, models)
    names = [name for name in compared.record.files if name != "events.jsonl"]
    assert [name for name in names if again.record.files[name] != compared.record.files[name]] == []


@pytest.mark.slow
def test_with_three_seeds_intervals_are_over_seeds_and_a_longer_training_gets_no_verdict(tmp_path, images, extractors):
    found = []
    for seed in (1, 2, 3):
        for family, share, flops in (("vae", 0.2, 1), ("flow", 0.3, 1), ("gan", 0.1, 2)):
            samples = {"1": noisy(images, share, seed)}
            facts = {"training_flops": flops * TFLOP}
            found.append(model_artifact(tmp_path / f"{family}{seed}", images, samples, family=family, seed=seed, facts=facts))
    artifact = compare(tmp_path / "run", images, extractors, found)
    numbers = json.loads((artifact.path / "comparison.json").read_text())["numbers"]
    assert {values["fd"]["method"] for values in numbers.values()} == {"seeds"}
    rows = json.loads((artifact.path / "metrics.json").read_text())
    assert {(row["items"], row["n"]) for row in rows if row["name"] == "fd_ratio"} == {("seeds", 3)}
    assert [row[0] for row in blocks_of(artifact, "table")[0]["rows"]] == [
        "vae",
        "flow",
        "gan (budget not matched)",
        "real train images",
    ]
    pairs = json.loads((artifact.path / "comparison.json").read_text())["pairs"]
    unfair = [pair for pair in pairs if "gan" in (pair["first"], pair["second"])]
    assert {pair["note"] for pair in unfair} == {"budgets are not matched: no verdict"}


@pytest.mark.slow
def test_artifacts_of_the_shared_driver_are_read_as_they_are(tmp_path, images, extractors):
    found = []
    for decay in (0.5, 0.9):
        config = ImageModelConfig(
            budget_tflop=1e-7, batch_size=8, num_samples=NUM_SAMPLES, num_likelihood_images=10, average_decay=decay
        )
        context = make_context(tmp_path / f"{decay}", {"images": images})
        run_family(config, context, ToyFamily)
        found.append(commit("stages.image.toy", config, context))
    artifact = compare(tmp_path / "run", images, extractors, found)
    numbers = json.loads((artifact.path / "comparison.json").read_text())["numbers"]
    assert list(numbers) == ["toy, average_decay=0.5", "toy, average_decay=0.9"]
    assert {"gradient_spread", "bits_per_dim", "cpu_seconds", "fd_ratio"} <= numbers["toy, average_decay=0.5"].keys()
    assert (artifact.path / "figures/film_strip.png").exists()


@pytest.mark.slow
def test_settings_of_one_family_are_compared_on_validation_without_claims(tmp_path, images, extractors):
    found = [
        model_artifact(tmp_path / f"{rate}", images, {"1": noisy(images, share, 1)}, family="vae", learning_rate=rate)
        for rate, share in ((0.1, 0.1), (0.2, 0.8))
    ]
    published = {"model": "DDPM", "images": "CIFAR-10", "source": "arXiv 2006.11239", "bits_per_dim": 3.75, "inception_fd": 3.17}
    artifact = compare(tmp_path / "run", images, extractors, found, split="validation", published=[published])
    section = json.loads((artifact.path / "section.json").read_text())
    assert section["title"] == "Settings of one family side by side: vae"
    assert not [block for block in blocks_of(artifact, "table") if block["columns"][0] == "claim"]
    rows = json.loads((artifact.path / "metrics.json").read_text())
    assert {row["split"] for row in rows if row["name"] != "fd_train"} == {"validation"}
    (theirs,) = [block for block in blocks_of(artifact, "table") if block["title"] == "Published figures, not measured here"]
    assert theirs["rows"] == [["DDPM", "CIFAR-10", 3.75, 3.17, "arXiv 2006.11239"]]
    assert "(here: bars)" in theirs["caption"]


def test_an_extractor_without_training_is_no_judge(tmp_path, images, models):
    random = make_extractors(tmp_path / "random", images, kinds=("random",))
    with pytest.raises(DataError, match=r"holds no trained extractor \(random-0\)"):
        compare(tmp_path / "run", images, random, models)


def test_extractors_of_other_images_are_refused(tmp_path, images, models):
    other = make_extractors(tmp_path / "other", toy_artifact(tmp_path / "images", num=80))
    with pytest.raises(DataError, match="was made from other images"):
        compare(tmp_path / "run", images, other, models)


def test_one_part_is_refused_because_it_has_no_spread():
    with pytest.raises(RecipeError, match="num_parts.*one part has no spread"):
        Config.parse({"num_parts": 1}, where="compare")
