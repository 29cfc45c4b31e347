"""Texts to tokens: a WordPiece tokenizer trained on a corpus, or that of a pretrained model (extra `text`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sama import hub
from sama.data.texts.base import shown
from sama.errors import SamaError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_wordpiece(texts: Sequence[str], vocabulary_size: int, max_length: int) -> Any:
    """A lower-casing WordPiece tokenizer in the manner of BERT, trained on these texts; equal texts give equal ids.

    Args:
        texts: the corpus.
        vocabulary_size: number of ids. A corpus with few words has fewer, one with many characters more: every
            character has one at the beginning and one inside of a word.
        max_length: its `model_max_length`.

    Returns:
        A fast tokenizer of transformers; `save_pretrained` writes it.

    Raises:
        SamaError: a package is missing.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise _missing("the tokenizer of a model without a name") from error
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    trained = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizer
    # The trainer numbers characters inside of words as it meets them in a hash map, in another order every time, and
    # resolves ties by these numbers. Given as special tokens they have their numbers before.
    words = {word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))}
    inner = sorted({f"##{character}" for word in words for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*SPECIAL.values(), *inner], show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, trained.token_to_id(token)) for token in (SPECIAL["cls_token"], SPECIAL["sep_token"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )


def open_tokenizer(name: str, max_length: int) -> Any:
    """The tokenizer of a pretrained model; its `model_max_length` becomes `max_length`.

    Args:
        name: of a model on the hub, or a folder.
        max_length: most tokens a text, special ones included.

    Raises:
        SamaError: the package is missing, the hub cannot be reached or has no such model, the folder holds no
            tokenizer or one without words, `max_length` is more than the model allows, or there is no padding token.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise _missing(f"model {name!r}") from error
    try:
        with hub.quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever the hub's client and the tokenizers raise
        raise SamaError(hub.not_loaded(name, "tokenizer", error)) from error
    words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    if not words and not (Path(name) / "tokenizer.json").is_file():  # then transformers makes one that knows no word
        raise SamaError(
            f"model {name!r}: its tokenizer knows no token but the special ones: expected the files that the "
            "tokenizer's save_pretrained writes (tokenizer.json; vocab.txt) beside the model"
        )
    if max_length > tokenizer.model_max_length:
        raise SamaError(
            f"model {name!r} takes at most {tokenizer.model_max_length} tokens a text, got max_length {max_length}"
        )
    if tokenizer.pad_token_id is None:
        raise SamaError(f"model {name!r}: expected a tokenizer with a padding token, it has none")
    tokenizer.model_max_length = max_length
    return tokenizer


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_length: int, *, sample_id: Sequence[str] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """The ids of the texts, with the special tokens of a single text; longer ones are cut to `max_length`.

    Args:
        tokenizer: of transformers.
        texts: n texts.
        max_length: most tokens a text, special ones included.
        sample_id: what a message calls the texts; None: their positions.

    Returns:
        `tokens` [total], one text after another; `offsets` [n + 1], text i is `tokens[offsets[i]:offsets[i + 1]]`; and
        how many texts were cut.

    Raises:
        SamaError: nothing but special tokens fits into `max_length`, or a text has no token (control characters).
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise SamaError(f"expected max_length > {special}, the tokenizer's special tokens, got {max_length}")
    options = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    found: list[list[int]] = tokenizer(list(texts), truncation=False, **options)["input_ids"]
    for i, (text, ids) in enumerate(zip(texts, found, strict=True)):
        if len(ids) <= special:
            where = f"text {i}" if sample_id is None else f"text {sample_id[i]}"
            raise SamaError(f"{where}: expected at least one token, the tokenizer finds none in {shown(text)}")
    cut = [i for i, ids in enumerate(found) if len(ids) > max_length]
    if cut:
        shorter = tokenizer([texts[i] for i in cut], truncation=True, max_length=max_length, **options)["input_ids"]
        for i, ids in zip(cut, shorter, strict=True):
            found[i] = ids
    offsets = np.cumsum([0, *map(len, found)], dtype=np.int64)
    tokens = np.fromiter((token for ids in found for token in ids), dtype=np.int32, count=int(offsets[-1]))
    return tokens, offsets, len(cut)


def _missing(what: str) -> SamaError:
    return SamaError(f"{what}: needs the package transformers: pip install 'sama[text]'")
