"""How jobs run. Nothing here may change a result, but for `threads` (float sums depend on it)."""

from typing import Literal

from pydantic import Field

from sama.config.base import Section


class RuntimeConfig(Section):
    """Threads, decoding threads and device of a stage."""

    threads: int = Field(
        default=1, ge=1, description="torch threads of a job; results are byte-identical for one value"
    )
    workers: int = Field(
        default=2, ge=1, description="data.storage encoded: threads of a job that decode images; changes no result"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if there is one")


class RetriesConfig(Section):
    """How often a job of Slurm is submitted again, by the kind of its failure.

    A time limit and a preemption are none (the job goes on from its checkpoint), nor is what somebody cancelled.
    """

    exception: int = Field(default=0, ge=0, description="the stage failed; the same input mostly fails again")
    out_of_memory: int = Field(default=1, ge=0, description="each time with memory_factor times as much")
    node_failure: int = Field(
        default=2, ge=0, description="the node was lost and Slurm did not requeue the job by itself"
    )
    memory_factor: float = Field(default=2.0, ge=1, description="of a job that ran out of memory")


class LauncherConfig(Section):
    """Who carries the heavy stages. Never part of a job's parameters."""

    kind: Literal["inline", "local", "slurm"] = Field(
        default="local", description="inline: the rule's process; local: submitit here; slurm: jobs of a cluster"
    )
    stages: tuple[
        Literal[
            "prepare",
            "meta_train",
            "observe",
            "score",
            "retrain",
            "evaluate",
            "prepare_texts",
            "tune",
            "finetune",
            "evaluate_texts",
        ],
        ...,
    ] = Field(
        default=("meta_train",),
        description="the stages that go through the launcher; the others run in the rule's process",
    )
    seeds_together: bool | None = Field(
        default=None,
        description="texts: one job finetunes all seeds of a method by itself, and another measures all seeds, since a"
        " process takes longer to start than to train a small model; null: where model.name is null",
    )
    timeout_minutes: int = Field(
        default=1440, ge=1, description="time limit of a launched job whose rule has no resource `runtime`"
    )
    retries: RetriesConfig = Field(default=RetriesConfig(), description="slurm: what is done about a failed job")
