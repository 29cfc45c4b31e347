# The validated configuration, the paths and the helpers that the rules share. No rule stands here.
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from sama.config import dump_yaml, over_default, validate_any
from sama.errors import SamaError
from sama.files import sha256
from workflow import environment
from workflow import stages as stage_list

try:
    CONFIG = validate_any(over_default(config))
except SamaError as error:
    sys.exit(f"sama: {error}")

STAGES = stage_list.load()
RESULTS = f"results/{CONFIG.experiment}"
LOGS = f"logs/{CONFIG.experiment}"
WORK = f"checkpoints/{CONFIG.experiment}"
SEEDS = CONFIG.seeds
SETTINGS = f"{RESULTS}/config.yaml"
GPUS = 1 if CONFIG.runtime.device == "cuda" else 0
# of the server that runs are mirrored into, if there is one: another is to be filled too; its address may hold a password
TRACKING = sha256(os.environ.get("MLFLOW_TRACKING_URI", ""))[:12]

environment.inherit(Path(workflow.basedir), CONFIG)


def sources(stage):
    """The modules of sama that a stage runs, as inputs: an edit re-runs it."""
    return STAGES[stage]["modules"]


def settings(stage, method=None):
    """The sections of the configuration that a stage takes, as a parameter: a change re-runs it.

    Of scores, selection, methods and grids only what the job uses: another ratio or method, or a knob of another, must
    not re-run it.
    """
    values = CONFIG.model_dump(mode="json")
    if stage == "score":
        values["scores"] = values["scores"].get(method)
    if stage == "select":
        strategy = values["selection"]["strategy"]
        values["selection"] = [strategy, values["selection"].get(strategy)]
    if stage in ("tune", "finetune"):
        del values["finetuning"]["methods"]
        tuning = CONFIG.tuning
        values["tuning"] = [tuning.seeds, tuning.candidates(method)]
    del values["runtime"]["workers"]  # changes no result
    sections = [key for key in STAGES[stage]["sections"] if key != "launcher"]
    return json.dumps({key: values[key] for key in sections})


def launched(stage):
    """Who carries a stage, and with what, as a parameter. It is a function of the resources and so starts nothing anew."""
    return lambda wildcards, resources, threads: environment.launch(
        CONFIG, stage, LOGS, threads, resources
    )


onstart:
    # the data root is this machine's: jobs get it from the environment, and the saved configuration fits any
    environment.begin(
        Path(SETTINGS), dump_yaml(CONFIG.model_copy(update={"data_root": None}))
    )


onerror:
    for failure in environment.failures(Path(LOGS)):
        print(failure, file=sys.stderr)
