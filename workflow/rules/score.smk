# A score for every training example by every method; higher = keep.


rule score:
    input:
        src=sources("score"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
        weights=lambda w: (
            rules.meta_train.output.weights if w.method == "meta_weight" else []
        ),
        meta=lambda w: (
            rules.meta_train.output.summary if w.method == "meta_weight" else []
        ),
    output:
        scores=f"{RESULTS}/scores/seed{{seed}}/{{method}}.parquet",
        summary=f"{RESULTS}/scores/seed{{seed}}/{{method}}.json",
    log:
        f"{LOGS}/score/seed{{seed}}_{{method}}.log",
    benchmark:
        f"{LOGS}/benchmarks/score/seed{{seed}}_{{method}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("score"),
        settings=SETTINGS,
        weights=lambda w, input: f"--weights {input.weights}" if input.weights else "",
    shell:
        "exec python -m sama.cli $LAUNCH_SCORE score --config {params.settings} --images {input.images} --manifest {input.manifest} {params.weights}"
        " --method {wildcards.method} --out {output.scores} --summary {output.summary}"
        " --seed {wildcards.seed} &> {log}"


rule phase_search:
    input:
        expand(rules.meta_train.output, seed=SEEDS),
        expand(rules.score.output, seed=SEEDS, method=METHODS),
