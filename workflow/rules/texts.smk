# Finetuning on texts: prepare -> tune -> finetune -> evaluate -> report.
from sama.config import WEIGHTING

METHODS = CONFIG.finetuning.methods
TUNED = CONFIG.tuning.seeds if CONFIG.tuning.grids else []
DATA = f"{RESULTS}/data"
TEXTS = f"{DATA}/texts.parquet"
# a small BERT has a tokenizer of its own
TOKENIZER = [] if CONFIG.model.name else [f"{DATA}/tokenizer"]
# a method whose weights make the lists for the owner of the texts
WATCHED = [method for method in METHODS if method in WEIGHTING]
THREADS = CONFIG.runtime.threads
# a small BERT trains in less time than its process takes to start: a job has all seeds, one after another
TOGETHER = CONFIG.launcher.seeds_together
if TOGETHER is None:
    TOGETHER = CONFIG.model.name is None
JOB = "seeds" if TOGETHER else "seed{seed}"


wildcard_constraints:
    seed=r"\d+",
    method="|".join(METHODS),


def of_job(path):
    """The path of the job's seed, or of each where a job has all of them."""
    return expand(path, seed=SEEDS, allow_missing=True) if TOGETHER else path


rule prepare_texts:
    input:
        src=sources("prepare_texts"),
    output:
        texts=TEXTS,
        dataset=f"{DATA}/dataset.json",
        tokenizer=[directory(path) for path in TOKENIZER],
        manifests=expand(
            f"{DATA}/seed{{seed}}/manifest.{{end}}",
            seed=[*SEEDS, *TUNED],
            end=["parquet", "json"],
        ),
    log:
        f"{LOGS}/prepare_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/prepare_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("prepare_texts"),
        settings=SETTINGS,
        launch=launched("prepare_texts"),
        seeds=",".join(map(str, [*SEEDS, *TUNED])),
        folder=subpath(output.texts, parent=True),
    shell:
        "exec python -m sama.cli {params.launch} prepare-texts --config {params.settings} --seeds {params.seeds} --out {params.folder} &> {log}"


rule phase_prepare:
    input:
        rules.prepare_texts.output,


rule tune:
    input:
        src=sources("tune"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=expand(
            f"{DATA}/seed{{seed}}/manifest.{{end}}",
            seed=TUNED,
            end=["parquet", "json"],
        ),
    output:
        f"{RESULTS}/tuning/{{method}}.json",
    log:
        f"{LOGS}/tune/{{method}}.log",
    benchmark:
        f"{LOGS}/benchmarks/tune/{{method}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=lambda w: settings("tune", w.method),
        settings=SETTINGS,
        launch=launched("tune"),
        data=DATA,
        work=f"{WORK}/tune_{{method}}",
    shell:
        "exec python -m sama.cli {params.launch} tune --config {params.settings} --texts {input.texts} --manifests {params.data}"
        " --method {wildcards.method} --out {output} --work {params.work} &> {log}"


def finetuned(file):
    """A file of a finetuning."""
    # not update(): when such a job fails, Snakemake puts the files of before back with a new time, and takes them for new
    path = of_job(f"{RESULTS}/models/seed{{seed}}/{{method}}/{file}")
    if file == "model.safetensors" and not CONFIG.finetuning.keep_models:
        path = temp(path)  # may be too large to keep
    return path


rule finetune:
    input:
        src=sources("finetune"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifest=of_job(f"{DATA}/seed{{seed}}/manifest.parquet"),
        facts=of_job(f"{DATA}/seed{{seed}}/manifest.json"),
        tuning=rules.tune.output,
    output:
        model=finetuned("model.safetensors"),
        metrics=finetuned("metrics.jsonl"),
        summary=finetuned("summary.json"),
    log:
        f"{LOGS}/finetune/{JOB}_{{method}}.log",
    benchmark:
        f"{LOGS}/benchmarks/finetune/{JOB}_{{method}}.tsv"
    wildcard_constraints:
        method="|".join([m for m in METHODS if m not in WATCHED] or ["none"]),
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=lambda w: settings("finetune", w.method),
        settings=SETTINGS,
        launch=launched("finetune"),
        folder=of_job(f"{RESULTS}/models/seed{{seed}}/{{method}}"),
        work=f"{WORK}/finetune_{JOB}_{{method}}",
        seeds=of_job("{seed}"),
    shell:
        "exec python -m sama.cli {params.launch} finetune --config {params.settings} --texts {input.texts} --manifest {input.manifest}"
        " --tuning {input.tuning} --method {wildcards.method} --out {params.folder} --work {params.work}"
        " --seed {params.seeds} &> {log}"


use rule finetune as finetune_meta with:
    output:
        model=finetuned("model.safetensors"),
        metrics=finetuned("metrics.jsonl"),
        summary=finetuned("summary.json"),
        weights=finetuned("weights.parquet"),
    wildcard_constraints:
        method="|".join(WATCHED or ["none"]),


def cells(seed, files=("model.safetensors", "summary.json", "metrics.jsonl")):
    """Files of the finetunings of a seed, and the weights of those that have some."""
    folder = f"{RESULTS}/models/seed{seed}"
    found = [f"{folder}/{method}/{file}" for method in METHODS for file in files]
    return found + [f"{folder}/{method}/weights.parquet" for method in WATCHED]


rule phase_finetune:
    input:
        [cells(seed) for seed in SEEDS],


rule evaluate_texts:
    input:
        src=sources("evaluate_texts"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifest=of_job(f"{DATA}/seed{{seed}}/manifest.parquet"),
        facts=of_job(f"{DATA}/seed{{seed}}/manifest.json"),
        models=lambda w: sum(map(cells, SEEDS if TOGETHER else [w.seed]), []),
    output:
        of_job(f"{RESULTS}/evaluation/seed{{seed}}.json"),
    log:
        f"{LOGS}/evaluate_texts/{JOB}.log",
    benchmark:
        f"{LOGS}/benchmarks/evaluate_texts/{JOB}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("evaluate_texts"),
        settings=SETTINGS,
        launch=launched("evaluate_texts"),
        models=of_job(f"{RESULTS}/models/seed{{seed}}"),
        seeds=of_job("{seed}"),
    shell:
        "exec python -m sama.cli {params.launch} evaluate-texts --config {params.settings} --texts {input.texts} --manifest {input.manifest}"
        " --models {params.models} --out {output} --seed {params.seeds} &> {log}"


rule summarize_texts:
    input:
        src=sources("summarize_texts"),
        evaluations=expand(f"{RESULTS}/evaluation/seed{{seed}}.json", seed=SEEDS),
    output:
        summary=f"{RESULTS}/summary.json",
        plots=f"{RESULTS}/plots/measures.csv",
    log:
        f"{LOGS}/summarize_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/summarize_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=1000,
    params:
        config=settings("summarize_texts"),
        settings=SETTINGS,
        evaluations=lambda w, input: os.path.dirname(input.evaluations[0]),
        experiment=CONFIG.experiment,
        seeds=",".join(map(str, SEEDS)),
    shell:
        "exec python -m sama.cli summarize-texts --config {params.settings} --evaluations {params.evaluations} --out {output.summary}"
        " --plots {output.plots} --experiment {params.experiment} --seeds {params.seeds} &> {log}"


rule suspect_texts:
    input:
        src=sources("suspect_texts"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=rules.prepare_texts.output.manifests,
        models=expand(
            f"{RESULTS}/models/seed{{seed}}/{{method}}/{{file}}",
            seed=SEEDS,
            method=WATCHED[:1],
            file=["model.safetensors", "weights.parquet"],
        ),
    output:
        weights=f"{RESULTS}/suspects/weights.csv",
        labels=f"{RESULTS}/suspects/suspect_labels.csv",
        summary=f"{RESULTS}/suspects/summary.json",
    log:
        f"{LOGS}/suspect_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/suspect_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("suspect_texts"),
        settings=SETTINGS,
        models=f"{RESULTS}/models",
        folder=subpath(output.summary, parent=True),
        seeds=",".join(map(str, SEEDS)),
    shell:
        "exec python -m sama.cli suspect-texts --config {params.settings} --texts {input.texts} --models {params.models}"
        " --out {params.folder} --seeds {params.seeds} &> {log}"


rule export_text:
    input:
        src=sources("export_text"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=rules.prepare_texts.output.manifests,
        summary=rules.summarize_texts.output.summary,
        models=expand(
            f"{RESULTS}/models/seed{{seed}}/{{method}}/model.safetensors",
            seed=SEEDS,
            method=METHODS,
        ),
    output:
        directory(f"{RESULTS}/model"),
    log:
        f"{LOGS}/export_text.log",
    benchmark:
        f"{LOGS}/benchmarks/export_text.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=4000,
    params:
        config=settings("export_text"),
        settings=SETTINGS,
        models=f"{RESULTS}/models",
    shell:
        "exec python -m sama.cli export-text --config {params.settings} --texts {input.texts} --models {params.models}"
        " --summary {input.summary} --out {output} &> {log}"


rule phase_evaluate:
    input:
        rules.summarize_texts.input.evaluations,
        rules.summarize_texts.output,
        rules.suspect_texts.output,
        rules.export_text.output,


rule report_texts:
    input:
        src=sources("report_texts"),
        summary=rules.summarize_texts.output.summary,
        data=rules.prepare_texts.output,
        tuning=expand(rules.tune.output, method=METHODS),
        models=[cells(seed, files=["metrics.jsonl"]) for seed in SEEDS],
        suspects=rules.suspect_texts.output,
    output:
        page=f"{RESULTS}/report/index.html",
        figures=directory(f"{RESULTS}/report/figures"),
    log:
        f"{LOGS}/report_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/report_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("report_texts"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        folder=subpath(output.page, parent=True),
    shell:
        "exec python -m sama.cli report-texts --config {params.settings} --results {params.results} --out {params.folder} &> {log}"


rule phase_report:
    input:
        rules.phase_evaluate.input,  # the model that is handed out is in no report
        rules.report_texts.output,


# The MLflow dashboard: a mirror of the results, never one of them.
rule track_texts:
    input:
        src=sources("track_texts"),
        summary=rules.summarize_texts.output.summary,
        data=rules.prepare_texts.output,
        tuning=expand(rules.tune.output, method=METHODS),
        models=[cells(seed, files=["metrics.jsonl", "summary.json"]) for seed in SEEDS],
        figures=rules.report_texts.output.figures,
    output:
        f".mlflow/{CONFIG.experiment}.json",
    log:
        f"{LOGS}/track_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/track_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("track_texts"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        database="mlflow.db",
        server=TRACKING,
        artifacts="mlartifacts",
    shell:
        "exec python -m sama.cli track-texts --config {params.settings} --results {params.results} --database {params.database}"
        " --artifacts {params.artifacts} --out {output} &> {log}"


# what a run is to make
TARGETS = [
    rules.phase_prepare.input,
    rules.phase_finetune.input,
    rules.phase_evaluate.input,
    rules.phase_report.input,
    rules.track_texts.output,
]
