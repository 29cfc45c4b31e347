# A score for every training example by every method; higher = keep.


rule score:
    input:
        src=sources("score"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
        read=lambda w: {
            "meta": rules.meta_train.output,
            "meta_loss": rules.meta_train_loss.output,
            "observed": rules.observe.output,
        }.get(reads(w.method), []),
        encoder=lambda w: (
            (CONFIG.scores.prototype.encoder_weights or [])
            if w.method == "prototype"
            else []
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
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=lambda w: settings("score", w.method),
        settings=SETTINGS,
        launch=launched("score"),
        work=f"{WORK}/score_seed{{seed}}_{{method}}",
        read=lambda w, input: {
            "meta": "--weights {}/weights.parquet",
            "meta_loss": "--weights {}/weights.parquet",
            "observed": "--observed {}",
        }
        .get(reads(w.method), "")
        .format(*map(os.path.dirname, input.read[:1])),
    shell:
        "exec python -m sama.cli {params.launch} score --config {params.settings} --images {input.images} --manifest {input.manifest} {params.read}"
        " --method {wildcards.method} --out {output.scores} --summary {output.summary}"
        " --work {params.work} --seed {wildcards.seed} &> {log}"


rule phase_search:
    input:
        expand(rules.meta_train.output, seed=SEEDS),
        expand(rules.score.output, seed=SEEDS, method=METHODS),
