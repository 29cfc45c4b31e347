"""What the stages that train on texts share: tokens, the model, and one training by a method."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sama.config import TextModelConfig, TextRecipeConfig
from sama.data.root import model_place
from sama.data.text_manifest import TextDataset, TextSplit
from sama.errors import SamaError
from sama.finetuning import METHODS, Context, Method, Outcome, Phases
from sama.measures import measure_of
from sama.metrics import Progress
from sama.networks.texts import TextClassifier, build_text_classifier
from sama.stages._common import Run
from sama.stages._text_sections import Sections
from sama.texts import MaskedTexts, TextExamples
from sama.training import Best, Validation


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    model: TextClassifier
    outcome: Outcome
    validation: float
    best_step: int
    examples: int
    steps: int


class Texts:
    """The texts of a seed as tokens, and the models that read them.

    Args:
        dataset: the texts.
        model: the encoder.
        tokenizer: folder of the tokenizer that was trained on the texts; used where the model has no name.
        data_root: where a relative model folder may be.

    Raises:
        SamaError: the tokenizer cannot be had.
    """

    def __init__(
        self, dataset: TextDataset, model: TextModelConfig, tokenizer: Path, data_root: Path | None = None
    ) -> None:
        from sama.data.texts.tokens import open_tokenizer

        self.dataset, self.model = dataset, model
        self.name = None if model.name is None else model_place(model.name, data_root)
        self.tokenizer = open_tokenizer(self.name or str(tokenizer), model.max_length)

    def examples(self, split: TextSplit, labels: np.ndarray) -> TextExamples:
        """The tokens of a split with these labels, [n] or [n, classes]."""
        from sama.data.texts.tokens import tokenize

        tokens, offsets, _ = tokenize(
            self.tokenizer, split.text, self.model.max_length, sample_id=split.sample_id.tolist()
        )
        values = torch.from_numpy(labels.astype(np.int64 if labels.ndim == 1 else np.float32))
        return TextExamples(torch.from_numpy(tokens), torch.from_numpy(offsets), values, self.tokenizer.pad_token_id)

    def held_out(self, name: str) -> TextExamples:
        """Texts of a split with what a learner may see of their labels."""
        split = self.dataset.split(name)
        if name == "meta" and split.name == "train":
            return self.training("weak", self.dataset.facts["aggregation"])
        return self.examples(split, split.label)

    def training(self, reads: str, aggregation: str) -> TextExamples:
        """The training texts with the labels that a method reads.

        Raises:
            SamaError: there are no votes that such labels could come from.
        """
        split = self.dataset.split("train")
        found = "given" if reads == "weak" and "given" in split.weak else aggregation if reads == "weak" else reads
        if found not in split.weak:
            raise SamaError(f"method {reads}: the training texts have no votes of labelling functions to aggregate")
        return self.examples(split, split.weak[found])

    def classifier(self, seed: int, *, masked_head: bool, attention: Any) -> TextClassifier:
        """The encoder with a new head, drawn by `seed`.

        Raises:
            SamaError: the model cannot be had or does not fit.
        """
        torch.manual_seed(seed)
        config = self.model
        try:
            return build_text_classifier(
                self.name,
                classes=len(self.dataset.class_names),
                vocabulary_size=len(self.tokenizer),
                attention=attention,
                masked_head=masked_head,
                pad_id=self.tokenizer.pad_token_id,
                class_names=self.dataset.class_names,
                hidden_size=config.hidden_size,
                layers=config.layers,
                heads=config.heads,
                dropout=config.dropout,
                max_length=config.max_length,
            )
        except ValueError as error:
            raise SamaError(f"model.name: {error}") from error

    def masked(self, probability: float) -> Callable[[TextExamples], MaskedTexts]:
        """Texts -> the same for masked language modelling.

        Raises:
            SamaError: the tokenizer has no mask token.
        """
        tokenizer = self.tokenizer

        def masked(texts: TextExamples) -> MaskedTexts:
            if tokenizer.mask_token_id is None:
                raise SamaError(f"model.name: {self.name}: its tokenizer has no mask token")
            special = tuple(tokenizer.all_special_ids)
            return MaskedTexts(texts, tokenizer.mask_token_id, len(tokenizer), special, probability)

        return masked


def _require_clean(meta: TextSplit, method: str) -> None:
    if meta.name == "train" or not meta.known:
        why = "is the training set itself" if meta.name == "train" else "has texts without a clean label"
        raise SamaError(
            f"finetuning.methods: {method} trains on the meta set as on clean texts, but that {why}: leave {method}"
            " out, or give clean texts (data.label_column, data.meta_set)"
        )


def train_method(
    texts: Texts, method: str, sections: Sections, *, seed: int, device: torch.device, state: Run, description: str
) -> Trained:
    """Train by `method`; an interrupted run goes on from the checkpoint in `state`.

    Raises:
        SamaError: data, model and method do not fit, or the method takes labels of the meta set for clean ones that are
            not. FloatingPointError: a loss is not finite.
    """
    entry: Method = METHODS[method]
    if entry.trusts_meta:
        _require_clean(texts.dataset.split("meta"), method)
    recipe, meta, settings = sections.training, sections.meta, sections.finetuning
    labels = sections.data.aggregation
    training = texts.held_out("meta") if entry.reads == "meta" else texts.training(entry.reads, labels)
    meta_set = texts.held_out("meta") if entry.needs_meta else training
    attention = "eager" if entry.watches and meta.second_order else "sdpa"
    model = texts.classifier(seed, masked_head=entry.masked_head, attention=attention).to(device)
    measure = measure_of(sections.data.measure)
    best = Best() if recipe.keep == "best" else None
    validation = Validation(texts.held_out("validation"), measure, sections.data.measure, best)

    def with_steps(steps: int) -> TextRecipeConfig:
        warmup = round(recipe.warmup_steps * steps / recipe.steps)
        return recipe.model_copy(update={"steps": steps, "warmup_steps": warmup})

    steps = recipe.steps + (settings.pretraining_steps if method == "tapt" else 0)
    with Progress(steps, description, start=state.step) as progress:
        phases = Phases(
            model,
            validation,
            log=state.metrics.write,
            progress=progress.update,
            save=state.save,
            resume=state.checkpointed,
        )
        context = Context(
            model=model,
            classes=len(texts.dataset.class_names),
            training=training,
            meta_set=meta_set,
            validation=validation,
            masked=texts.masked(settings.masking),
            recipe=with_steps,
            steps=recipe.steps,
            meta=meta,
            hidden_size=meta.network.hidden_size,
            normalize=meta.network.normalize == "micro_batch",
            settings=settings,
            score_from=meta.score_from,
            seed=seed,
            device=device,
            phases=phases,
        )
        try:
            outcome = entry.run(context)
        except ValueError as error:  # a method that this model or these numbers do not suit says what to do
            raise SamaError(f"method {method}: {error}") from error
    if best is not None:
        return Trained(model, outcome, best.value, best.step, len(training), steps)
    (value,) = validation.numbers(model, steps, device).values()
    return Trained(model, outcome, value, steps, len(training), steps)
