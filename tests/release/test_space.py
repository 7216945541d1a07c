"""Spaces: the app takes along what it needs and no more, draws what the model draws, and works in a browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub import SpaceCardData
from huggingface_hub.repocard import metadata_load

from pipeline.artifact import Artifact, manifest
from pipeline.cli.parser import parse
from pipeline.errors import InputError, RecipeError, StageError, StoreError
from stages.common.generation import generate_texts
from stages.common.release.destination import alone
from stages.common.release.layout import Manifest, differences
from stages.release.space.__main__ import main as space_main
from stages.release.space.assembly import GRADIO, assemble, requirements
from stages.release.space.browser import CHROMIUM, Browser
from stages.release.space.checks import problems
from stages.release.space.kinds import app_for
from stages.release.space.trial import Trial, try_out
from stages.release.space.vendoring import imported, vendor
from tests.hub.server import HubServer
from tests.release.published import plain_model, published, put, record_of
from tests.text.tiny_bases import byte_tokenizer, save_base, tiny_model

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789" * 4
SIZES = {"channels": 1, "height": 8, "width": 8}
GRID = {"levels": 4, "license": "mit", **SIZES}


def with_record(path: Path, *, stage: str, produces: str, **config: object) -> Artifact:
    record_of(stage, produces, {}, manifest(path), **config).save(path)
    return Artifact.open(path)


def text_artifact(path: Path, **config: object) -> Artifact:
    save_base(path / "model", tiny_model(initializer_range=0.5))
    (path / "card.md").write_text("---\nlicense: cc-by-4.0\n---\n# a model\n")
    return with_record(path, stage="stages.text.pretrain", produces="causal_lm", **config)


def image_artifact(path: Path, family: str) -> Artifact:
    """A random model of a family, saved as its stage saves it."""
    torch.manual_seed(1)
    path.mkdir(parents=True)
    if family == "gan":
        from stages.image.gan.networks import Generator
        from stages.image.gan.pipeline import GANPipeline

        network = Generator(latent_size=6, levels=4, hidden_size=16, num_levels=2, num_blocks=1, **SIZES)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
        GANPipeline(network).save_pretrained(path / "model")
    elif family == "flow":
        from stages.image.flow.flows import CouplingFlow
        from stages.image.flow.pipeline import FlowPipeline

        options = {"patch_size": 2, "num_transforms": 2, "num_bins": 4, "hidden_size": 16, "num_layers": 1, "num_heads": 1}
        FlowPipeline(CouplingFlow(levels=4, dropout=0.0, **options, **SIZES)).save_pretrained(path / "model")
    else:
        from stages.image.vae.networks import SmallAutoencoder

        options = {"outputs_per_value": 4, "latent_channels": 5, "hidden_size": 16, "num_levels": 2, "num_blocks": 1}
        options |= {"encoder_hidden_size": 8, "prior_components": 3}
        SmallAutoencoder(**options, **SIZES).save_pretrained(path / "model")
    (path / "family.json").write_text(json.dumps({"family": family}))
    (path / "grid.json").write_text(json.dumps(GRID))
    return with_record(path, stage=f"stages.image.{family}", produces="image_model")


def space_of(artifact: Artifact, folder: Path) -> Path:
    return assemble(artifact, app_for(artifact), repo="ada/my-space", model_repo="ada/model", revision=COMMIT, destination=folder)


# ---- what is taken along


def test_only_the_definitions_that_are_reached_are_taken_along_and_they_run_alone(tmp_path):
    files = vendor({"stages.common.stream": {"neutralise"}}, ROOT)
    assert "def _picture" in files["stages/common/stream.py"]
    assert "whole_characters" not in files["stages/common/stream.py"]
    assert [name for name, text in files.items() if text] == ["stages/common/stream.py"]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = "import stages.common.stream as one; print(one.__file__, ascii(one.neutralise('a\\x1b')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "stages/common/stream.py"), r"'a\u241b'"]


def test_names_are_followed_through_modules_constants_and_imports_inside_functions(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "one.py").write_text(
        "import os\nimport re\nfrom stages.two import LIMIT, unused\n\n# why it is so\n@staticmethod\ndef wanted():\n"
        "    from stages.three import late\n    return late(LIMIT, re.I)\n\n\ndef other():\n    return os.sep\n"
    )
    (tmp_path / "stages" / "two.py").write_text("BASE = 3\nLIMIT = BASE + 1\nunused = 9\n")
    (tmp_path / "stages" / "three.py").write_text("def late(*words):\n    return words\n\n\ndef never():\n    pass\n")
    files = vendor({"stages.one": {"wanted"}}, tmp_path)
    assert "import re\nfrom stages.two import LIMIT\n" in files["stages/one.py"]
    assert "# why it is so\n@staticmethod\ndef wanted" in files["stages/one.py"]
    assert "import os" not in files["stages/one.py"]
    assert "BASE = 3" in files["stages/two.py"]
    assert "unused" not in files["stages/two.py"]
    assert "never" not in files["stages/three.py"]


def test_requirements_are_found_by_import_and_pinned_to_what_ran_here():
    code = {"app.py": "import gradio, json\nfrom sampler import x", "sampler.py": "import torch\nfrom PIL import Image"}
    lines = requirements(code, local={"app.py", "sampler.py"})
    assert lines[0] == f"gradio=={GRADIO}"
    assert "pillow" in lines  # gradio allows some versions only
    assert [line for line in lines if line.startswith("torch==")] == [f"torch=={torch.__version__.partition('+')[0]}"]
    assert {line.partition("=")[0] for line in lines} == {"gradio", "pillow", "torch", "safetensors"}


# ---- the folder


def test_the_folder_is_complete_the_same_each_time_and_names_no_path_of_this_machine(tmp_path):
    artifact = text_artifact(tmp_path / "store" / "b0000001")
    folder = space_of(artifact, tmp_path / "one")
    listed = Manifest.load(folder)
    assert differences(folder, listed) == []
    assert (listed.repo_type, listed.artifact) == ("space", artifact.fingerprint)
    assert Manifest.load(space_of(artifact, tmp_path / "two")) == listed
    assert [path.name for path in folder.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()] == []
    for module, names in imported((folder / "app.py").read_text()).items():
        text = folder.joinpath(*module.split(".")).with_suffix(".py").read_text()
        assert all(re.search(rf"^(class|def) {name}\b", text, re.MULTILINE) for name in names)


@pytest.mark.slow
def test_the_card_says_to_the_hub_what_runs_and_which_model_it_shows(tmp_path):
    folder = space_of(text_artifact(tmp_path / "store" / "b0000001"), tmp_path / "space")
    values = SpaceCardData(**metadata_load(folder / "README.md"))
    assert (values.sdk, values.sdk_version, values.app_file) == ("gradio", GRADIO, "app.py")
    assert (values.models, values.license) == (["ada/model"], "cc-by-4.0")
    assert COMMIT in (folder / "README.md").read_text()
    assert (folder / values.app_file).is_file()


def test_what_must_not_leave_is_found_in_every_file_of_a_space_and_a_clean_one_has_nothing(tmp_path):
    folder = space_of(text_artifact(tmp_path / "store" / "b0000001"), tmp_path / "space")
    assert problems(folder, "ada/my-space") == []
    settings = json.loads((folder / "settings.json").read_bytes())
    (folder / "settings.json").write_text(json.dumps(settings | {"prompt": "read /home/ada/poem.txt, mail ada@example.org"}))
    (folder / "app.py").write_text((folder / "app.py").read_text() + "KEY = 'hf_" + "a" * 34 + "'\n")
    (folder / "weights.pkl").write_bytes(b"x")
    (folder / "README.md").write_text("# no head\n")
    found = "\n".join(problems(folder, "ada/my-space"))
    for line in (
        "settings.json was changed",
        "weights.pkl is not in groundup.json",
        "README.md names no licence",
        "weights.pkl: files of this kind are not published",
        "settings.json, line 1: a mail address",
        "settings.json, line 1: a path of a machine (/home/ada/poem.txt)",
        ": a token of the Hub",
    ):
        assert line in found
    assert "hf_a" not in found


def test_a_space_that_tells_too_much_is_refused_and_not_started(tmp_path, capsys):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001", prompts=["from /home/ada/poem.txt"])
    words = [str(artifact.path), "--repo", "ada/my-space", "--model-repo", f"ada/model@{COMMIT}", "--offline"]
    assert space_main([*words, "--python", "/nowhere/python"]) == 1
    out = capsys.readouterr().out
    assert "refused  settings.json, line" in out
    assert "refused  1 problem(s), all listed above; nothing left this machine" in out
    assert "tried" not in out


def test_a_space_has_a_folder_of_its_own_under_the_lock_of_a_publisher(tmp_path, capsys):
    """A model and its Space may have the same name on the Hub."""
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001", prompts=["from /home/ada/poem.txt"])
    shelf = tmp_path / "store" / "published"
    model, _ = published(shelf / "ada--one")
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    words = [str(artifact.path), "--repo", "ada/one", "--model-repo", f"ada/model@{COMMIT}", "--offline"]
    assert space_main(words) == 1  # refused: it names a path
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before
    assert "settings.json, line" in json.loads((shelf / "spaces--ada--one.checks.json").read_bytes())["problems"][0]
    with alone(shelf / "spaces--ada--one"):
        assert space_main(words) == 1
    assert "another publish works on it" in capsys.readouterr().err


def test_a_space_is_recorded_beside_its_artifact(tmp_path, monkeypatch):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001")
    sent = []

    def send(folder, options, of, environment, *, lock):
        assert os.fstat(lock)
        with pytest.raises(StoreError, match="another publish works on it"), alone(folder):
            pass
        sent.append((folder.name, of))
        return 0

    monkeypatch.setattr("stages.release.space.__main__.check_before", lambda *_: 0)
    monkeypatch.setattr("stages.release.space.__main__.send", send)
    monkeypatch.setattr("stages.release.space.trial.try_out", lambda *_: Trial("it writes", ""))
    words = [str(artifact.path), "--repo", "ada/one", "--model-repo", f"ada/model@{COMMIT}", "--offline", "--push"]
    assert space_main(words) == 0
    [(name, of)] = sent
    assert (name, of.path) == ("spaces--ada--one", artifact.path)
    outcome = tmp_path / "store" / "published" / "spaces--ada--one.checks.json"
    assert json.loads(outcome.read_bytes())["evidence"] == ["it writes"]
    monkeypatch.setattr("stages.release.space.trial.try_out", lambda *_: Trial("", "no gradio"))
    assert space_main(words) == RecipeError.exit_code  # and whoever sends it by hand is refused as well
    assert json.loads(outcome.read_bytes())["problems"] == ["it was not checked and tried to the end"]


@pytest.mark.slow
def test_the_licence_is_that_of_the_published_model_and_offline_without_its_card_that_of_the_stage(tmp_path, monkeypatch):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001")  # says cc-by-4.0
    words = [str(artifact.path), "--repo", "ada/one", "--model-repo", f"ada/model@{COMMIT}"]
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: other\nlicense_name: house-rules\nlanguage: en\n---\n# a model\n")
    asked = []
    monkeypatch.setattr("stages.release.space.__main__._check_model", lambda *_, **__: None)
    monkeypatch.setattr("stages.common.release.fetch.resolve_commit", lambda *_, **__: COMMIT)
    monkeypatch.setattr("stages.release.space.trial.try_out", lambda *_: Trial("it writes", ""))
    monkeypatch.setattr(
        "stages.common.release.fetch.hf_hub_download",
        lambda repo, name, *, revision, local_files_only: asked.append((repo, name, revision)) or readme,
    )
    assert space_main(words) == 0
    card = tmp_path / "store" / "published" / "spaces--ada--one" / "README.md"
    stated = metadata_load(card)
    assert (stated["license"], stated["license_name"], asked) == ("other", "house-rules", [("ada/model", "README.md", COMMIT)])
    monkeypatch.undo()
    monkeypatch.setattr("stages.release.space.trial.try_out", lambda *_: Trial("it writes", ""))
    assert space_main([*words, "--offline"]) == 0
    assert metadata_load(card)["license"] == "cc-by-4.0"


def test_a_disk_that_cannot_be_written_is_named(tmp_path, capsys):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001")
    (tmp_path / "store" / "published").write_text("a file")
    assert space_main([str(artifact.path), "--repo", "ada/one", "--model-repo", f"ada/model@{COMMIT}", "--offline"]) == 1
    assert "published: File exists; nothing left this machine" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files that Groundup did not put there"):
        space_of(text_artifact(tmp_path / "store" / "b0000001"), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_folder_that_holds_more_than_the_space_is_never_replaced(tmp_path):
    artifact = text_artifact(tmp_path / "store" / "b0000001")
    folder = space_of(artifact, tmp_path / "space")
    assert space_of(artifact, folder) == folder
    (folder / ".git").mkdir()
    with pytest.raises(InputError, match=r"would lose that: \.git/ is not in groundup\.json"):
        space_of(artifact, folder)
    assert (folder / ".git").is_dir()


def test_an_adapter_alone_and_what_is_no_model_get_no_space(tmp_path):
    (tmp_path / "f1" / "adapter").mkdir(parents=True)
    with pytest.raises(RecipeError, match="holds no whole model"):
        app_for(with_record(tmp_path / "f1", stage="stages.text.finetune", produces="causal_lm"))
    (tmp_path / "c1").mkdir()
    with pytest.raises(RecipeError, match="no Space for what stages.text.corpus makes"):
        app_for(with_record(tmp_path / "c1", stage="stages.text.corpus", produces="corpus"))


def publish(hub: HubServer, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "publish", *words]
    return subprocess.run(command, env=hub.environment("hf_ada"), capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_a_model_repository_with_another_artifact_or_none_of_ours_is_refused(hub, tmp_path):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001")
    folder, record = published(tmp_path / "made")
    put(hub, "ada/other", folder)
    put(hub, "ada/plain", plain_model(tmp_path / "plain"))
    for repo, said in (
        ("ada/other", f"holds artifact {record.fingerprint[:8]}"),
        ("ada/plain", "no model published by Groundup"),
    ):
        done = publish(hub, str(artifact.path), "--space", "--repo", "ada/my-space", "--model-repo", repo)
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--space"], "--space needs --model-repo"),
        (["--space", "--model-repo", "ada/m", "--tag", "v1"], "--tag does not go with --space"),
        (["--model-repo", "ada/m"], "--model-repo goes with --space only"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, words, said):
    artifact = text_artifact(tmp_path / "b0000001")
    parsed = parse(["publish", str(artifact.path), "--repo", "ada/x", *words])
    with pytest.raises(RecipeError, match=said):
        parsed.command(parsed)


# ---- what it draws

DRAW = """
import json, pathlib, sys
import torch
from safetensors.torch import save_file
sys.path.insert(0, "")
from sampler import Sampler
sampler = Sampler(pathlib.Path(sys.argv[1]), json.load(open("settings.json")))
with torch.no_grad():
    made = {"samples": sampler.sample(5, torch.Generator().manual_seed(3))}
    made["images"] = sampler.images(sampler.latents(5, torch.Generator().manual_seed(3)))
import stages
assert stages.__file__.startswith(str(pathlib.Path.cwd())), stages.__file__
save_file(made, sys.argv[2])
"""


def expected(family: str, model: Path) -> dict[str, torch.Tensor]:
    """What Groundup itself draws: all samples, and for the latents the images without noise."""
    generator = torch.Generator().manual_seed(3)
    if family == "vae":
        from stages.image.vae.networks import SmallAutoencoder
        from stages.image.vae.pixels import pixel_distribution

        pixels, network = pixel_distribution(4, 1), SmallAutoencoder.from_pretrained(model)
        with torch.no_grad():
            latents = network.prior.draw(torch.randn(5, 5, 1, 1, generator=generator), generator)
            outputs = network.decode(latents).sample
        drawn = pixels.sample(outputs, torch.rand(5, 1, 8, 8, generator=generator))
        return {"samples": drawn, "images": pixels.mean(outputs).round().to(torch.uint8)}
    if family == "gan":
        from stages.image.gan.pipeline import GANPipeline as Pipeline
    else:
        from stages.image.flow.pipeline import FlowPipeline as Pipeline
    made = Pipeline.from_pretrained(model)(5, generator=generator, output_type="pt").images
    levels = (made * 3).round().to(torch.uint8)
    return {"samples": levels, "images": levels}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gan", "flow", "vae"])
def test_the_app_draws_what_the_model_draws_without_groundup(tmp_path, family):
    from safetensors.torch import load_file

    artifact = image_artifact(tmp_path / "store" / "a0000001", family)
    folder = space_of(artifact, tmp_path / "space")
    command = [sys.executable, "-c", DRAW, str(artifact / "model"), str(tmp_path / "made.safetensors")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    made, wanted = load_file(tmp_path / "made.safetensors"), expected(family, artifact / "model")
    assert torch.equal(made["samples"], wanted["samples"])
    assert torch.equal(made["images"], wanted["images"])
    assert len(made["samples"].unique()) > 1


# ---- in a browser; Gradio holds pillow back, so it lives in an environment of its own


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter with Gradio."""
    found = os.environ.get("GROUNDUP_GRADIO_PYTHON", sys.executable)
    code = "import importlib.metadata as m; print(m.version('gradio'))"
    done = subprocess.run([found, "-c", code], capture_output=True, text=True, check=False)
    if done.stdout.strip() != GRADIO:
        pytest.skip(f"needs gradio {GRADIO}, which is not installed: name an interpreter that has it in GROUNDUP_GRADIO_PYTHON")
    if CHROMIUM is None:
        pytest.skip("needs the system program chromium, which is not installed")
    return found


@contextmanager
def started(python: str, space: Path, model: Path) -> Iterator[str]:
    """Run `python app.py` as its card says; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_", "GRADIO_"))}
    ours = {"MODEL_FOLDER": str(model), "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port), "no_proxy": "127.0.0.1,localhost"}
    ours |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(space.parent / "temporary"), "OMP_NUM_THREADS": "1"}
    with (space.parent / "app.log").open("w+") as log:
        process = subprocess.Popen([python, "app.py"], cwd=space, env=kept | ours, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _answering(f"http://127.0.0.1:{port}/", process, space.parent / "app.log")
        finally:
            process.terminate()
            process.wait(30)


def _answering(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return url
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_a_prompt_typed_into_the_page_goes_on_as_groundup_goes_on(python, tmp_path):
    artifact = text_artifact(tmp_path / "store" / "b0000001")
    space, model = space_of(artifact, tmp_path / "space"), artifact / "model"
    with started(python, space, model) as url, Browser(CHROMIUM, tmp_path / "profile") as page:
        page.open(url)
        page.wait("document.querySelector('#start') !== null")
        page.run(
            "(() => { const box = document.querySelector('#prompt textarea'); box.value = 'What';"
            "box.dispatchEvent(new Event('input', {bubbles: true})); document.querySelector('#start').click(); })()"
        )
        from stages.common.causal_lm import load_causal_lm

        positions = 64
        length = min(100, positions, positions - len("What"))
        options = {"seed": 1337, "max_new_tokens": length, "temperature": 0.8, "top_k": 50}
        (wanted,) = generate_texts(load_causal_lm(model), byte_tokenizer(), ["What"], **options)
        assert wanted
        shown = page.wait(f"(t => t.length >= {len('What' + wanted)} && t)(document.querySelector('#written textarea').value)")
    assert shown == "What" + wanted


@pytest.mark.slow
def test_a_grid_is_drawn_and_the_sliders_change_the_image(python, tmp_path):
    artifact = image_artifact(tmp_path / "store" / "a0000001", "gan")
    space = space_of(artifact, tmp_path / "space")
    with started(python, space, artifact / "model") as url, Browser(CHROMIUM, tmp_path / "profile") as page:
        page.open(url)
        first = "document.querySelector('#grid img')?.src"
        before = page.wait(first)
        assert page.wait("document.querySelector('#grid img').naturalWidth") == 4 * 8 * 12 + 3 * 12
        _set(page, "#seed input", 5)
        page.run("document.querySelector('#draw').click()")
        page.wait(f"{first} !== {json.dumps(before)}")
        page.run("[...document.querySelectorAll('button[role=tab]')].find((one) => one.innerText.trim() === 'Latents').click()")
        page.wait("document.querySelector('#show') !== null")
        page.run("document.querySelector('#show').click()")
        seen = {page.wait("document.querySelector('#walk img')?.src")}
        sliders = page.run("[...document.querySelectorAll('[id^=unit-]')].map((one) => one.id)")
        assert len(sliders) == 4
        for selector, value in (("#place input[type=range]", 0.5), (f"#{sliders[0]} input[type=range]", 2.5)):
            _set(page, selector, value)
            seen.add(page.wait(f"(s => !{json.dumps(sorted(seen))}.includes(s) && s)(document.querySelector('#walk img').src)"))
    assert len(seen) == 3


def _set(page: Browser, selector: str, value: float) -> None:
    page.run(
        f"(() => {{ const part = document.querySelector({json.dumps(selector)}); part.value = {value};"
        "part.dispatchEvent(new Event('input', {bubbles: true})); part.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


@pytest.mark.slow
def test_an_app_that_lacks_a_file_does_not_leave(python, tmp_path):
    artifact = text_artifact(tmp_path / "store" / "b0000001")
    space = space_of(artifact, tmp_path / "space")
    (space / "stages" / "common" / "stream.py").unlink()
    with pytest.raises(StageError, match=r"does not start: .*stages.common.stream"):
        try_out(space, artifact / "model", python)


@pytest.mark.slow
def test_a_trial_uses_what_the_page_offers_and_needs_a_browser_for_it(python, tmp_path):
    artifact = image_artifact(tmp_path / "store" / "a0000001", "gan")
    space, model = space_of(artifact, tmp_path / "space"), artifact / "model"
    shown = try_out(space, model, python).shown
    assert shown.endswith("; in Chromium another seed drew other images, a latent was shown")
    assert "apt-get install chromium" in try_out(space, model, python, chromium=None).missing


@pytest.mark.slow
def test_a_page_that_starts_and_does_nothing_does_not_leave(python, tmp_path, monkeypatch):
    artifact = text_artifact(tmp_path / "store" / "b0000001")
    space = space_of(artifact, tmp_path / "space")
    text = (space / "app.py").read_text()
    assert text.count("start.click(go_on, ") == 1
    (space / "app.py").write_text(text.replace("start.click(go_on, ", "start.click(lambda *_: '', "))
    monkeypatch.setattr("stages.release.space.trial.PATIENCE_SECONDS", 5)
    with pytest.raises(StageError, match=r"in Chromium: .*#written.* did not come true; the page shows"):
        try_out(space, artifact / "model", python)


@pytest.mark.slow
def test_a_space_is_tried_pushed_and_comes_back_as_it_was_sent(hub, python, tmp_path):
    artifact = text_artifact(tmp_path / "store" / "artifacts" / "text.pretrain" / "b0000001")
    folder, _ = published(tmp_path / "made", model=artifact / "model")
    values = json.loads((folder / "groundup.json").read_bytes()) | {"artifact": artifact.fingerprint}
    (folder / "groundup.json").write_text(json.dumps(values))
    commit = put(hub, "ada/model", folder)
    words = ["--space", "--repo", "ada/my-space", "--model-repo", "ada/model", "--python", python, "--push"]
    done = publish(hub, str(artifact.path), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^tried +'A.*; in Chromium a prompt was answered$", done.stdout, re.MULTILINE)
    held = hub.state.repositories["space", "ada/my-space"].head().tree
    local = tmp_path / "store" / "published" / "spaces--ada--my-space"
    sent = {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    assert {name: entry.content for name, entry in held.items() if name != ".gitattributes"} == sent
    assert json.loads(sent["settings.json"])["revision"] == commit
    [entry] = json.loads((artifact.path.parent / "b0000001.published.json").read_bytes())["published"]
    assert (entry["repo"], entry["repo_type"], entry["part"]) == ("ada/my-space", "space", "space")


def test_without_gradio_the_trial_says_so_and_what_to_do(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    assert f"pip install gradio=={GRADIO}" in try_out(tmp_path, tmp_path, str(bare / "bin" / "python")).missing
