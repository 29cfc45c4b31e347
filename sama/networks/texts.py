"""Text classifiers of transformers (extra `text`), with the head of masked language modelling where it is needed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sama import hub

Attention = Literal["sdpa", "eager"]
DROPOUTS = (  # what the architectures call theirs
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)
# Embeddings beyond the tokenizer's: models round their number up, by as much as 2.3 % of it. A cased vocabulary of BERT
# is 5 % smaller than the uncased one.
SPARE_ROWS, SPARE_SHARE = 128, 0.03


class TextClassifier(nn.Module):
    """An encoder under a classifier, and under the head of masked language modelling if there is one.

    Args:
        model: a sequence classification model of transformers.
        masked: the model for masked language modelling of the same architecture, for its head alone: its encoder is
            thrown away, and its decoder becomes the word embeddings of `model`.

    Raises:
        ValueError: the model has no layer that makes its logits, or the decoder is not of the embeddings' shape.
    """

    def __init__(self, model: Any, masked: Any = None) -> None:
        super().__init__()
        encoder = set(model.base_model.modules())
        layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part not in encoder]
        if not layers or model.get_submodule(layers[-1]).out_features != model.config.num_labels:
            raise ValueError(
                f"expected a linear layer with {model.config.num_labels} outputs at the end of a {type(model).__name__}"
            )
        self._head = layers[-1]
        self.model = model
        self.masked = None if masked is None else _on_encoder_of(model, masked)

    @property
    def head(self) -> nn.Linear:
        """The layer that makes the class logits; its input [batch, representation_size] is the representation."""
        return self.model.get_submodule(self._head)

    @property
    def representation_size(self) -> int:
        """Size of the representation of a text."""
        return self.head.in_features

    def forward(self, inputs: Mapping[str, Tensor], head: str = "task") -> Tensor:
        """Logits of the classes, or of the masked tokens.

        Args:
            inputs: `input_ids` and `attention_mask` [batch, length]; for the auxiliary head `masked_positions`
                [batch, k] too (`sama.texts`).
            head: "task": [batch, classes]. "auxiliary": [batch, k, vocabulary], of these positions alone.

        Raises:
            ValueError: another head, or the model was built without the auxiliary one.
        """
        read = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        if head == "task":
            return self.model(**read).logits
        if head != "auxiliary" or self.masked is None:
            raise ValueError(f"expected head task{'' if self.masked is None else ' or auxiliary'}, got {head!r}")
        hidden = self.model.base_model(**read).last_hidden_state
        positions = inputs["masked_positions"][:, :, None].expand(-1, -1, hidden.shape[-1])
        return self.masked(inputs_embeds=hidden.gather(1, positions)).logits


class _Hidden(NamedTuple):
    """What an encoder of transformers returns, as far as a head looks at it."""

    last_hidden_state: Tensor
    hidden_states: None = None
    attentions: None = None


class _Given(nn.Module):
    """Stands where the encoder of a masked language model was, so that the head alone is computed."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, **_: Any) -> _Hidden:
        if inputs_embeds is None:
            raise ValueError("expected hidden states as inputs_embeds, got None")
        return _Hidden(inputs_embeds)


def _on_encoder_of(model: Any, masked: Any) -> Any:
    embeddings, decoder = model.get_input_embeddings().weight, masked.get_output_embeddings()
    if decoder is None or decoder.weight.shape != embeddings.shape:
        raise ValueError(
            f"the decoder of a {type(masked).__name__} cannot be tied to the embeddings {[*embeddings.shape]}"
        )
    decoder.weight = embeddings
    setattr(masked, masked.base_model_prefix, _Given())
    return masked


def build_text_classifier(
    name: str | None,
    *,
    classes: int,
    vocabulary_size: int,
    attention: Attention,
    masked_head: bool = False,
    pad_id: int,
    class_names: Sequence[str] | None = None,
    hidden_size: int,
    layers: int,
    heads: int,
    dropout: float | None,
    max_length: int,
) -> TextClassifier:
    """A text classifier in float32; what is new in it is drawn from torch's current random state.

    Args:
        name: a model on the hub, or a folder; None: a small BERT with random weights.
        classes: number of classes.
        vocabulary_size, pad_id: of the tokenizer.
        attention: "sdpa", fused, where the architecture has it; or "eager", for methods that need second derivatives.
        masked_head: add the head of masked language modelling: the architecture's own, pretrained if the checkpoint
            has it, the decoder tied to the word embeddings.
        class_names: kept in the model's configuration.
        hidden_size, layers, heads: of the small BERT; the inner layers are 4 times as wide.
        dropout: everywhere in the model; None: as the architecture or the checkpoint has it.
        max_length: most tokens a text, special ones included.

    Raises:
        ValueError: the package is missing, the hub cannot be reached, the folder holds no such model, the tokenizer
            does not belong to the model (more tokens than embeddings, or fewer by more than 128 and 3 %), the model
            takes shorter texts only, or it has no head of masked language modelling.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError("a text classifier needs the package transformers: pip install 'sama[text]'") from error
    names = [f"LABEL_{i}" for i in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise ValueError(f"expected {classes} class names, got {len(names)}")
    with _quiet():
        if name is None:
            config = transformers.BertConfig(
                vocab_size=vocabulary_size,
                hidden_size=hidden_size,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * hidden_size,
                max_position_embeddings=max_length,
                pad_token_id=pad_id,
            )
        else:
            config = _loaded(transformers.AutoConfig, name)
        config.num_labels = classes
        config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
        if dropout is not None:
            for key in DROPOUTS:
                if hasattr(config, key):
                    setattr(config, key, dropout)
        if masked_head and type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
            raise ValueError(f"model {name!r}: a {config.model_type} has no head of masked language modelling")
        if config.pad_token_id is None:
            config.pad_token_id = pad_id  # decoders look for the last token before it
        made: list[Any] = [transformers.AutoModelForSequenceClassification]
        if masked_head:
            made.append(transformers.AutoModelForMaskedLM)
        if not _fused(transformers, config):
            attention = "eager"
        if name is None:
            models = [kind.from_config(config, attn_implementation=attention) for kind in made]
        else:
            options = {"config": config, "attn_implementation": attention, "dtype": torch.float32}
            models = [_loaded(kind, name, ignore_mismatched_sizes=True, **options) for kind in made]
    _require_match(name, models[0], vocabulary_size, pad_id, max_length)
    return TextClassifier(*models)


def save_pretrained(model: TextClassifier, tokenizer: Any, folder: Path, class_names: Sequence[str]) -> None:
    """Write classifier and tokenizer as transformers reads them: `pipeline("text-classification", folder)`.

    The head of masked language modelling is left out.
    """
    config = model.model.config
    config.id2label = dict(enumerate(class_names))
    config.label2id = {label: i for i, label in enumerate(class_names)}
    with _quiet():
        model.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _loaded(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # whatever the hub's client, safetensors and transformers raise
        raise ValueError(hub.not_loaded(name, "text classifier", error)) from error


def _fused(transformers: Any, config: Any) -> bool:
    """Whether the architecture's classifier can compute attention by torch's fused kernel; DeBERTa's cannot."""
    kind = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    return getattr(kind, "_supports_sdpa", True)


def fits(tokens: int, embeddings: int) -> bool:
    """Whether a tokenizer of so many tokens may be that of a model of so many: 0 to max(128, 3 %) of them are spare."""
    return 0 <= embeddings - tokens <= max(SPARE_ROWS, SPARE_SHARE * embeddings)


def _require_match(name: str | None, model: Any, vocabulary_size: int, pad_id: int, max_length: int) -> None:
    """Raise a ValueError where the tokenizer is not of this model, or texts may be longer than it has positions."""
    known = model.get_input_embeddings().num_embeddings
    if not fits(vocabulary_size, known):
        raise ValueError(f"model {name!r} knows {known} tokens, the tokenizer has {vocabulary_size}: they do not match")
    if model.config.pad_token_id not in (None, pad_id):
        raise ValueError(
            f"model {name!r} pads with id {model.config.pad_token_id}, the tokenizer with {pad_id}: they do not match"
        )
    positions = [part for key, part in model.named_modules() if key.endswith("position_embeddings")]
    if positions and isinstance(positions[0], nn.Embedding):
        # RoBERTa and its like count positions from behind that of padding
        first = 0 if positions[0].padding_idx is None else positions[0].padding_idx + 1
        if max_length > positions[0].num_embeddings - first:
            raise ValueError(
                f"model {name!r} takes at most {positions[0].num_embeddings - first} tokens a text, "
                f"got max_length {max_length}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and warnings (that the heads are new)."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with hub.quiet():
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
