"""`groundup stages` and `groundup cards`."""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import json
import textwrap

from pipeline.cards import card_names, load_card
from pipeline.config import StageConfig
from pipeline.graph import config_class
from pipeline.launch import project_root


def stages(_arguments: argparse.Namespace) -> int:
    """List the kinds of stages that this checkout holds, with every parameter."""
    root = project_root()
    for path in sorted(root.glob("stages/*/*/run.py")):  # what stages share may have a config.py, too
        stage = ".".join(path.relative_to(root).parts[:-1])
        config = config_class(stage, "stages")
        print(f"{stage}  makes {config.produces}")
        for role, wanted in config.inputs.items():
            print(f"  needs.{role:<22} {' or '.join(wanted.kinds)}{' (optional)' if wanted.optional else ''}: {wanted.help}")
        for line in parameter_lines(config):
            print(f"  {line}")
        print()
    return 0


def parameter_lines(config: type[StageConfig]) -> list[str]:
    """Return one line for each parameter: name, default, meaning with its unit."""
    meanings = field_sentences(config)
    lines = []
    for name in config.model_fields:
        default = default_words(config, name)
        lines.append(f"{name:<28} {default:<14} {meanings.get(name, '')}".rstrip())
    return lines


def default_words(config: type[StageConfig], name: str) -> str:
    """Return the default of a field as a recipe or a flag would give it: `null`, `true`, `plain text`, `[a, b]`."""
    field = config.model_fields[name]
    if field.is_required():
        return "required"
    return yaml_words(field.get_default(call_default_factory=True))


def yaml_words(value: object) -> str:
    """Return a plain value in YAML, on one line, without quotes where they are not needed."""
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return "[" + ", ".join(yaml_words(item) for item in items) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return json.dumps(value, ensure_ascii=False) if value == "" else str(value)


def field_sentences(config: type[StageConfig]) -> dict[str, str]:
    """Return the sentence under each field of `config`, read from its source: `plan` should not pay for it.

    A field that a class of its own has anew may leave the sentence to the class it is derived from.
    """
    found = {}
    for one in reversed(config.__mro__):
        if issubclass(one, StageConfig):
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
            assert isinstance(definition, ast.ClassDef)
            for field, below in itertools.pairwise(definition.body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                        found[name] = " ".join(sentence.split())
    return found


def cards(_arguments: argparse.Namespace) -> int:
    """List the data cards."""
    for name in card_names():
        card = load_card(name)
        print(f"{name:<22} {card.license:<14} {card.front_matter.get('pretty_name', '')}")
    return 0
