# Data pruning on images: prepare -> meta-train -> score -> select -> retrain -> evaluate -> report.
from sama.scores import SCORES

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
# where images stay encoded, jobs decode them by threads of their own
ENCODED = CONFIG.data.storage == "encoded"
IMAGES = f"{RESULTS}/data/images.{'parquet' if ENCODED else 'npy'}"
THREADS = CONFIG.runtime.threads + (CONFIG.runtime.workers if ENCODED else 0)


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


include: "prepare.smk"
include: "meta_train.smk"
include: "observe.smk"
include: "score.smk"
include: "select.smk"
include: "suspects.smk"
include: "retrain.smk"
include: "evaluate.smk"
include: "report.smk"
include: "track.smk"


# what a run is to make
TARGETS = [
    rules.phase_prepare.input,
    rules.phase_search.input,
    rules.phase_select.input,
    rules.phase_suspects.input,
    rules.phase_retrain.input,
    rules.phase_evaluate.input,
    rules.phase_report.input,
    rules.track.output,
]
