"""Tokenizer: a byte-level BPE vocabulary learned from the train split, in the form that `AutoTokenizer` loads."""
