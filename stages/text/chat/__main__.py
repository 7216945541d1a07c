"""`python -m stages.text.chat FOLDER`: type a beginning, the model goes on, token by token.

Ctrl-C stops a text that is being written, Ctrl-C at the prompt (or a second one) leaves, so does the end of input. Without
a terminal every line of the input is one beginning.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.errors import GroundupError


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    # Heavy imports come after the arguments were read, so that --help is quick.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    from stages.text.chat.conversation import Conversation, Settings
    from stages.text.chat.loading import load

    logging.disable_progress_bar()
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    settings = Settings(
        seed=options.seed, temperature=options.temperature, top_k=options.top_k, max_new_tokens=options.max_new_tokens
    )
    try:
        model, tokenizer = load(options.folder, part=options.part, base=options.base)
        conversation = Conversation(model, tokenizer, settings, sys.stdout)
        if options.prompt is not None:
            conversation.continue_text(options.prompt)
        else:
            conversation.run(sys.stdin, interactive=sys.stdin.isatty())
    except GroundupError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return 130
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.text.chat", description="Continue text with a trained model.")
    parser.add_argument("folder", type=Path, help="artifact of pretrain or finetune, or folder of a saved model")
    parser.add_argument("--part", choices=("merged", "adapter", "model"), help="part of the artifact (default: merged or model)")
    parser.add_argument("--base", type=Path, help="folder of the base under an adapter (default: found in the store)")
    parser.add_argument("--prompt", help="continue this text once and leave")
    parser.add_argument("--seed", type=int, default=1337, help="same seed, same text (default: 1337)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=50, help="draw among this many tokens, 0 for all (default: 50)")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="length of a text at most (default: 200)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
