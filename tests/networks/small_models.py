"""Tiny pretrained models of three architectures with their tokenizers, in folders that transformers reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sama.data.texts.tokens import train_wordpiece

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def byte_pairs(texts: Sequence[str], length: int) -> Any:
    """A tokenizer in the manner of RoBERTa: padding has id 1."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, 300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    names = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=length, **names)


def save(kind: str, folder: Path, texts: Sequence[str], length: int) -> Path:
    """A masked language model "bert", "roberta" or "distilbert", its weights drawn from torch's random state."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DistilBertConfig,
        DistilBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    tokenizer = byte_pairs(texts, length) if kind == "roberta" else train_wordpiece(texts, 60, length)
    given: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": length}
    if kind == "bert":
        model: Any = BertForMaskedLM(BertConfig(**given, **SIZES))
    elif kind == "roberta":
        given["max_position_embeddings"] += 2
        model = RobertaForMaskedLM(RobertaConfig(**given, pad_token_id=1, **SIZES))
    else:
        model = DistilBertForMaskedLM(DistilBertConfig(**given, dim=16, hidden_dim=32, n_layers=1, n_heads=2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
