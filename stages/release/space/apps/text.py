"""A page that goes on with a text, token by token: `python app.py`.

The model comes from the repository and commit in `settings.json`; MODEL_FOLDER names a folder on this machine instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import gradio as gr  # type: ignore[import-not-found, unused-ignore]
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import GroundupError
from stages.common.causal_lm import max_positions
from stages.common.encoding import encode_texts
from stages.common.generation import generate_tokens
from stages.common.stream import whole_characters

SETTINGS = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
SOURCE = os.environ.get("MODEL_FOLDER") or SETTINGS["model_repo"]
TOP_K = 50
MOST_TOKENS = 500

_WHERE = {"revision": SETTINGS["revision"], "trust_remote_code": False}
model = AutoModelForCausalLM.from_pretrained(SOURCE, use_safetensors=True, **_WHERE)
model.train(False)
tokenizer = AutoTokenizer.from_pretrained(SOURCE, **_WHERE)
positions = max_positions(model) or MOST_TOKENS


def go_on(prompt: str, temperature: float, length: float, seed: float) -> Iterator[str]:
    """Yield the prompt with its continuation as it grows."""
    room = positions - len(encode_texts(tokenizer, [prompt])[0])
    if room < 1:
        raise gr.Error(f"The text is too long: the model reads {positions} tokens. Shorten it.")
    text = prompt
    try:
        drawn = generate_tokens(
            model,
            tokenizer,
            [prompt],
            seed=int(seed),
            max_new_tokens=min(int(length), room),
            temperature=temperature,
            top_k=TOP_K,
        )
        for piece in whole_characters(tokenizer.backend_tokenizer, (token for _, token in drawn)):
            text += piece
            yield text
    except GroundupError as error:
        raise gr.Error(str(error)) from None
    yield text


def build() -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(title=SETTINGS["title"], analytics_enabled=False) as page:
        gr.Markdown(f"# {SETTINGS['title']}\n\n{SETTINGS['about']}")
        prompt = gr.Textbox(SETTINGS["prompt"], label="Beginning", lines=3, elem_id="prompt")
        with gr.Row():
            temperature = gr.Slider(0, 2, value=0.8, step=0.05, label="Temperature (0: the likeliest token)")
            length = gr.Slider(1, min(MOST_TOKENS, positions), value=min(100, positions), step=1, label="New tokens at most")
            seed = gr.Number(1337, precision=0, minimum=0, label="Seed (same seed, same text)", elem_id="seed")
        with gr.Row():
            start = gr.Button("Go on", variant="primary", elem_id="start")
            stop = gr.Button("Stop", elem_id="stop")
        written = gr.Textbox(label="Text", lines=12, interactive=False, elem_id="written")
        running = start.click(go_on, [prompt, temperature, length, seed], written, api_name="go_on")
        stop.click(None, cancels=[running])
    return page


if __name__ == "__main__":
    build().queue(default_concurrency_limit=1).launch()
