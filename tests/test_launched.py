"""What stands before a stage in its rule's command, as the profile of a cluster sets it."""

import json
from pathlib import Path

import click
import yaml

from sama import cli
from sama.config import over_default, validate_any
from workflow import environment

PROFILE = yaml.safe_load((Path(__file__).parents[1] / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))


def launched(stage: str, **resources: object) -> tuple[list[str], click.Context]:
    """The words before the stage, and what `sama launch` understands of them."""
    overlay = {key: json.loads(value) for key, _, value in (each.partition("=") for each in PROFILE["config"])}
    words = environment.launch(
        validate_any(over_default(overlay)), stage, "logs", 2, PROFILE["default-resources"] | resources
    ).split()
    return words, cli.launch.make_context("launch", [*words[1:], stage])


def test_the_profile_packs_cells_into_arrays_and_has_a_policy_for_failures() -> None:
    words, context = launched("retrain", gpu=1)
    assert (words[0], words[-1]) == ("launch", "--")
    understood = context.params
    assert (understood["launcher"], understood["array_limit"], understood["gpus"]) == ("slurm", 32, 1)
    assert understood["retry"] == ("exception=0", "out_of_memory=1", "node_failure=2")
    assert understood["memory_factor"] == 2
    assert understood["logs"] == Path("logs/slurm")


def test_a_rule_may_ask_for_no_array_and_for_further_options() -> None:
    _, context = launched("score", array_limit=0, slurm_extra="--qos=high --exclusive")
    assert (context.params["array_limit"], context.params["slurm"]) == (0, ("qos=high", "exclusive"))


def test_a_light_stage_is_not_launched() -> None:
    config = validate_any(over_default({"launcher": {"kind": "slurm", "stages": ["retrain"]}}))
    assert environment.launch(config, "evaluate", "logs", 1, {}) == ""
