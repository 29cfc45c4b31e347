# The MLflow dashboard: a mirror of the results, never one of them. This rule alone writes the database.


rule track:
    input:
        src=sources("track"),
        summary=rules.summarize.output.summary,
        dataset=rules.prepare.output.dataset,
        facts=rules.prepare.output.facts,
        meta=expand(
            [rules.meta_train.output.metrics, rules.meta_train.output.summary],
            seed=SEEDS,
        ),
        models=expand(
            f"{RESULTS}/models/seed{{seed}}/{{cell}}/{{file}}",
            seed=SEEDS,
            cell=CELLS,
            file=["metrics.jsonl", "summary.json"],
        ),
        figures=rules.report.output.figures,
    output:
        f".mlflow/{CONFIG.experiment}.json",
    log:
        f"{LOGS}/track.log",
    benchmark:
        f"{LOGS}/benchmarks/track.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("track"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        database="mlflow.db",
        server=TRACKING,
        artifacts="mlartifacts",
    shell:
        "exec python -m sama.cli track --config {params.settings} --results {params.results} --database {params.database}"
        " --artifacts {params.artifacts} --out {output} &> {log}"
