"""The byte tokenizer as the ``tokenizers`` library writes it: byte-level BPE without merges."""

from __future__ import annotations

import functools
from typing import Any

PAD, EOS, BOS, START_OF_TURN, END_OF_TURN = range(256, 261)
SPECIALS: dict[str, int] = {
    "<pad>": PAD,
    "<eos>": EOS,
    "<bos>": BOS,
    "<start_of_turn>": START_OF_TURN,
    "<end_of_turn>": END_OF_TURN,
}
"""Special tokens of the byte tokenizer."""

SETTINGS: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**9,
    "model_input_names": ["input_ids", "attention_mask"],  # transformers 4 would make a third that no model takes
}
"""What transformers reads beside it (``tokenizer_config.json``)."""


@functools.cache
def byte_tokenizer() -> dict[str, Any]:
    """The byte tokenizer in the library's format: byte-level BPE without merges, ids equal to the bytes."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": name, **flags} for name, token in SPECIALS.items()],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: byte for byte, symbol in enumerate(_byte_symbols())},
            "merges": [],
        },
    }


def _byte_symbols() -> list[str]:
    """The printable character that byte-level BPE files write for each byte.

    Bytes that print as themselves in Latin-1 stay; the others take the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
