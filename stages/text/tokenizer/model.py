"""Byte-level BPE with `tokenizers`, dressed so that `AutoTokenizer` loads it.

Sources: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units (2016), for BPE; Radford et al.,
Language Models are Unsupervised Multitask Learners (2019), for bytes as its alphabet; the cut into words follows GPT-4's
(`tiktoken`, cl100k_base), with marks kept at their letters and shorter digit groups.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.errors import DataError
from stages.text.tokenizer.config import MIN_VOCAB_SIZE, SPECIAL_TOKENS, Config

WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)"  # English endings: 's, 'll
    r"|[^\r\n\p{L}\p{M}\p{N}]?+[\p{L}\p{M}]+"  # a word with the blank or sign before it
    r"|\p{N}{1,DIGITS}"  # a group of digits
    r"| ?[^\s\p{L}\p{M}\p{N}]++[\r\n]*"  # signs, with the line end after them
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"  # line ends, blanks
)

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('role ' ~ message['role'] ~ ' is unknown; use system, user or assistant') }}"
    "{%- endif %}"
    "{{- '<|' ~ message['role'] ~ '|>' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] ~ '<|end|>' }}{%- endgeneration %}"
    "{%- else %}"
    "{{- message['content'] ~ '<|end|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
"""Turns between `<|role|>` and `<|end|>`; the generation marks tell a trainer which tokens the assistant speaks."""


def train(texts: Iterable[list[str]], config: Config) -> Tokenizer:
    """Learn the merges from `texts`.

    Raises:
        DataError: the data has too few pairs for `config.vocab_size`; the message names the size that works. The
            library would return a smaller tokenizer without a word.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(config.pretokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        # Without the whole alphabet, bytes that the train split lacks would be dropped from every later text.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=config.max_token_bytes,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found < config.vocab_size:
        raise DataError(
            f"vocab_size is {config.vocab_size}, but the train split supports {found} at most: after {found - MIN_VOCAB_SIZE} "
            f"merges no pair occurs min_frequency={config.min_frequency} times within max_token_bytes="
            f"{config.max_token_bytes}. Set vocab_size={found} or lower, or give more text"
        )
    return tokenizer


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """Return the rule named in `Config.pretokenizer`, followed by the step from characters to bytes."""
    if name == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = name.removeprefix("gpt4-")[0]
    words = pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", digits)), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def dressed(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return it in the form of transformers: `encode` adds no token, `decode` changes no blank, no length limit."""
    end, pad, *marks = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        pad_token=pad,
        extra_special_tokens=marks,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
