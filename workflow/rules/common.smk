# The validated configuration, the paths and the helpers that the rules share. No rule stands here.
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from sama.config import dump_yaml, validate
from sama.errors import SamaError
from sama.scores import SCORES
from workflow import environment
from workflow import stages as stage_list

try:
    CONFIG = validate(config, where="config")
except SamaError as error:
    sys.exit(f"sama: {error}")

STAGES = stage_list.load()
RESULTS = f"results/{CONFIG.experiment}"
LOGS = f"logs/{CONFIG.experiment}"
WORK = f"checkpoints/{CONFIG.experiment}"
SEEDS = CONFIG.seeds
METHODS = CONFIG.scores.methods
RATIOS = [str(ratio) for ratio in CONFIG.selection.pruning_ratios]
# where nothing is planted and no second label column is given, clean labels are unknown
WHOLE = (
    ["full", "clean"]
    if CONFIG.data.noise.kind != "none" or CONFIG.data.observed_label_column
    else ["full"]
)
CELLS = WHOLE + [f"{method}_{ratio}" for method in METHODS for ratio in RATIOS]
# planted noise makes another data set of every seed: verdicts over seeds are put together where the labels are the same
JUDGES = SEEDS if CONFIG.data.noise.kind == "none" else SEEDS[:1]
SETTINGS = f"{RESULTS}/config.yaml"
# where images stay encoded, jobs decode them by threads of their own
ENCODED = CONFIG.data.storage == "encoded"
IMAGES = f"{RESULTS}/data/images.{'parquet' if ENCODED else 'npy'}"
THREADS = CONFIG.runtime.threads + (CONFIG.runtime.workers if ENCODED else 0)
GPUS = 1 if CONFIG.runtime.device == "cuda" else 0

environment.inherit(Path(workflow.basedir), CONFIG, LOGS, GPUS)


wildcard_constraints:
    seed=r"\d+",
    method="|".join(METHODS),
    ratio="|".join(ratio.replace(".", r"\.") for ratio in RATIOS),
    whole="|".join(WHOLE),


def reads(method):
    """What a score needs of another stage: see `sama.scores.Score`. With an encoder of its own, prototype needs nothing."""
    if method == "prototype" and CONFIG.scores.prototype.encoder:
        return None
    return SCORES[method].reads


def sources(stage):
    """The modules of sama that a stage runs, as inputs: an edit re-runs it."""
    return STAGES[stage]["modules"]


def settings(stage, method=None):
    """The sections of the configuration that a stage takes, as a parameter: a change re-runs it.

    Of scores and selection only what the job uses: another ratio or method, or a knob of another, must not re-run it.
    """
    values = CONFIG.model_dump(mode="json")
    if stage == "score":
        values["scores"] = values["scores"].get(method)
    if stage == "select":
        strategy = values["selection"]["strategy"]
        values["selection"] = [strategy, values["selection"].get(strategy)]
    del values["runtime"]["workers"]  # changes no result
    sections = [key for key in STAGES[stage]["sections"] if key != "launcher"]
    return json.dumps({key: values[key] for key in sections})


onstart:
    # the data root is this machine's: jobs get it from the environment, and the saved configuration fits any
    environment.begin(
        Path(SETTINGS), dump_yaml(CONFIG.model_copy(update={"data_root": None}))
    )


onerror:
    for failure in environment.failures(Path(LOGS)):
        print(failure, file=sys.stderr)
