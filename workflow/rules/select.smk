# The ids that are kept, by method and pruning ratio.


rule select:
    input:
        src=sources("select"),
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        scores=rules.score.output.scores,
        features=(
            rules.observe.output.features if CONFIG.selection.strategy == "d2" else []
        ),
        dynamics=(
            rules.observe.output.dynamics
            if CONFIG.selection.strategy == "beta"
            else []
        ),
    output:
        kept=f"{RESULTS}/kept/seed{{seed}}/{{method}}_{{ratio}}.parquet",
    log:
        f"{LOGS}/select/seed{{seed}}_{{method}}_{{ratio}}.log",
    benchmark:
        f"{LOGS}/benchmarks/select/seed{{seed}}_{{method}}_{{ratio}}.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=1000,
    params:
        config=settings("select"),
        settings=SETTINGS,
        reads=lambda w, input: " ".join(
            f"--{name} {path}"
            for name, path in (
                ("features", input.features),
                ("dynamics", input.dynamics),
            )
            if path
        ),
    shell:
        "exec python -m sama.cli select --config {params.settings} --scores {input.scores} --manifest {input.manifest} {params.reads}"
        " --seed {wildcards.seed} --ratio {wildcards.ratio} --out {output.kept} &> {log}"


rule phase_select:
    input:
        expand(rules.select.output, seed=SEEDS, method=METHODS, ratio=RATIOS),
