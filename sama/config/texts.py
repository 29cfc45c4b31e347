"""Texts with weak labels: the data, the encoder, the methods that are compared, and the grid each is tuned on."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from sama.config.base import Section, require_distinct
from sama.config.data import SplitConfig
from sama.config.meta import BilevelConfig
from sama.config.training import OptimizerConfig, RecipeConfig

TextMethod = Literal[
    "majority_vote",
    "dawid_skene",
    "clean_only",
    "weak_then_clean",
    "self_training",
    "meta_r",
    "meta_r_na",
    "meta_rc",
    "finetune",
    "tapt",
    "multitask",
    "meta_auxiliary",
]
WEIGHTING: tuple[TextMethod, ...] = ("meta_r", "meta_r_na", "meta_rc", "meta_auxiliary")
"""The methods whose meta network weights the training texts: `watches` of the registry, known without torch."""


class TextDataConfig(Section):
    """One source of texts, its weak labels, and what serves as meta set."""

    source: Literal["synthetic_texts", "wrench", "json_lines", "csv", "hub"] = Field(
        default="synthetic_texts", description="registered source of texts; synthetic_texts is made by a grammar"
    )
    path: str | None = Field(
        default=None, description="folder or file below the data root, or an absolute one; hub: a data set's name"
    )
    subset: str | None = Field(default=None, description="hub: the configuration of the data set")
    text_column: str = Field(default="text", description="json_lines, csv, hub: column of the text")
    label_column: str | None = Field(
        default="label",
        description="json_lines, csv, hub: column of the clean label; null: there is none. A column that is a vote"
        " column too is weak in the training part and clean in the others. Beside votes it may be filled for some texts"
        " alone: meta, validation and test are of those, and learning goes by votes",
    )
    vote_columns: tuple[str, ...] = Field(
        default=(), description="json_lines, csv, hub: columns of weak labels, one a labelling function"
    )
    id_column: str | None = Field(default=None, description="json_lines, csv, hub: column of ids; null: file and row")
    strip_prefix: bool | None = Field(
        default=None,
        description="wrench: drop the first word of test texts where it is their fine label of TREC; null: if every"
        " text has one",
    )
    max_texts: int | None = Field(
        default=None,
        ge=2,
        description="take a random subset of the training part of this size, with each class's share: by the majority"
        " of the votes, or by the label where there are no votes. Where splits come out of it, texts with a clean label"
        " are taken first",
    )
    aggregation: Literal["majority_vote", "dawid_skene"] = Field(
        default="majority_vote", description="how votes become the weak label of all methods but dawid_skene"
    )
    labels: Literal["hard", "soft"] = Field(
        default="hard", description="learn from the most probable class of the aggregation, or from its probabilities"
    )
    uncovered: Literal["drop", "uniform"] = Field(
        default="drop",
        description="training texts on which all labelling functions abstain: left out, or labelled uniformly",
    )
    meta_set: Literal["divided", "validation_as_both", "held_out", "training"] = Field(
        default="divided",
        description="divided: a part of the source's clean validation part, models are chosen on the rest;"
        " validation_as_both: all of it is both, as in the paper; held_out: out of the training part, for sources"
        " without validation (texts with clean labels if any has one, else by weak ones); training: the training set",
    )
    splits: SplitConfig = Field(
        default=SplitConfig(meta=0.5, validation=0.1, test=None),
        description="meta: of the validation part if it is divided, else of the training part; validation, test: of the"
        " training part where the source has no such part. Fractions are of the texts with a clean label, if any has"
        " one. Seeds divide anew, but the test split is one for all. Equal texts count once and stay together",
    )
    measure: Literal["accuracy", "macro_f1", "micro_f1", "binary_f1"] = Field(
        default="accuracy",
        description="what models are chosen and judged by; binary_f1 is of the second of two classes",
    )


class TextModelConfig(Section):
    """The encoder with its classifier."""

    name: str | None = Field(
        default=None,
        description="transformers model by its hub name, or a local folder (also below the data root); null: a small"
        " BERT with random weights and a WordPiece vocabulary of the training texts",
    )
    max_length: int = Field(default=128, ge=4, description="tokens of a text; what is beyond is cut off")
    dropout: float | None = Field(
        default=None, ge=0.0, lt=1.0, description="of the encoder's hidden layers and attention; null: the model's own"
    )
    vocabulary_size: int = Field(default=2000, ge=100, description="small BERT: WordPiece tokens")
    hidden_size: int = Field(default=64, ge=4, description="small BERT: width")
    layers: int = Field(default=2, ge=1, description="small BERT: layers")
    heads: int = Field(default=2, ge=1, description="small BERT: attention heads")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"expected a hidden_size that heads divide, got {self.hidden_size} and {self.heads}")
        return self


class TextRecipeConfig(RecipeConfig):
    """The recipe of every finetuning; meta methods take it for the base level."""

    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(name="adamw", learning_rate=5e-5, weight_decay=0.01), description="the optimizer"
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="the weights that are kept: the best on validation, of those at a line of the log, or the last",
    )

    @property
    def augment(self) -> None:
        """Texts are not changed at random."""


class TextNetworkConfig(Section):
    """The meta networks: loss -> weight, and representation and weak label -> corrected label."""

    hidden_size: int = Field(default=100, ge=1, description="width of the hidden layers")
    normalize: Literal["micro_batch", "none"] = Field(
        default="micro_batch",
        description="divide the weights by their mean over the micro-batch of one process; none: leave them."
        " meta_auxiliary never divides: its weights may fall as a whole",
    )


class TextMetaConfig(BilevelConfig):
    """The meta level of the meta methods; meta_r_na is meta_r by sama_na."""

    batch_size: int = Field(default=32, ge=2, description="meta examples a meta step")
    network: TextNetworkConfig = Field(default_factory=TextNetworkConfig, description="the meta networks")


class SelfTrainingConfig(Section):
    """Self-training in the manner of COSINE (Yu et al., NAACL 2021), after a start on the weak labels."""

    start: float = Field(
        default=0.4, gt=0.0, lt=1.0, description="fraction of the steps on weak labels, before pseudo-labels"
    )
    rounds: int = Field(default=3, ge=1, description="times that pseudo-labels are made, over the other steps")
    threshold: float = Field(
        default=0.6, ge=0.0, lt=1.0, description="texts of less confidence, 1 - entropy / log classes, are left out"
    )
    smoothness: float = Field(
        default=0.1, ge=0.0, description="weight of the confidence regularisation KL(uniform, prediction)"
    )
    contrast: float = Field(default=0.1, ge=0.0, description="weight of the contrastive term on representations")
    margin: float = Field(default=1.0, gt=0.0, description="distance that texts of two pseudo-labels should have")


class FinetuningConfig(Section):
    """The methods to compare and what is special to one."""

    methods: tuple[TextMethod, ...] = Field(
        default=("majority_vote", "dawid_skene", "clean_only", "meta_r", "meta_rc"),
        min_length=1,
        description="weak labels: majority_vote, dawid_skene, clean_only, weak_then_clean, self_training, meta_r (SAMA"
        " reweighting), meta_r_na (without adaptation), meta_rc (reweighting and correction); clean labels and"
        " unlabelled text: finetune, tapt, multitask (fixed weight), meta_auxiliary (SAMA)",
    )
    keep_models: bool = Field(
        default=True,
        strict=True,
        description="keep the weights of all models; false: of the exported one alone",
    )
    clean_share: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="weak_then_clean: fraction of the steps on the clean meta set"
    )
    self_training: SelfTrainingConfig = Field(default_factory=SelfTrainingConfig, description="self_training")
    pretraining_steps: int = Field(default=100, ge=1, description="tapt: masked-language-model steps before finetuning")
    masking: float = Field(
        default=0.15, gt=0.0, lt=1.0, description="tapt, multitask, meta_auxiliary: fraction of masked tokens"
    )
    auxiliary_weight: float = Field(
        default=1.0, ge=0.0, description="multitask: fixed weight of the masked-language-model loss"
    )

    @field_validator("methods")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_distinct(value, "methods")
        return value


class TuningConfig(Section):
    """Hyperparameters are chosen for each method, by validation, among as many candidates for every one."""

    seeds: tuple[int, ...] = Field(
        default=(100,), min_length=1, description="replicates that candidates are compared on, none of the reported"
    )
    grids: dict[TextMethod | Literal["default"], tuple[dict[str, Any], ...]] = Field(
        default_factory=dict,
        description="method -> candidates, each laid over training, meta and finetuning; `default` is for methods that"
        " are not named; all compared methods have as many. null: nothing is tuned",
    )

    @field_validator("grids", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("grids")
    @classmethod
    def _candidates(cls, value: dict[str, tuple[dict[str, Any], ...]]) -> dict[str, tuple[dict[str, Any], ...]]:
        for name, grid in value.items():
            if not grid:
                raise ValueError(f"{name}: expected at least one candidate, got none")
            for candidate in grid:
                strange = sorted(set(candidate) - {"training", "meta", "finetuning"})
                if strange:
                    raise ValueError(f"{name}: expected keys of training, meta, finetuning, got {strange[0]}")
        return value

    def candidates(self, method: str) -> tuple[dict[str, Any], ...]:
        """What is laid over the configuration for this method; one empty candidate where nothing is tuned."""
        grids: dict[str, tuple[dict[str, Any], ...]] = {**self.grids}
        return grids.get(method) or grids.get("default") or ({},)
