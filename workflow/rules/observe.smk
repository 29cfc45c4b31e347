# One training under observation: the dynamics and the features that several scores read.


rule observe:
    input:
        src=sources("observe"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
    output:
        **(
            {
                "features": f"{RESULTS}/scores/seed{{seed}}/observed/features.safetensors"
            }
            if CONFIG.observe.features
            else {}
        ),
        dynamics=f"{RESULTS}/scores/seed{{seed}}/observed/dynamics.safetensors",
        metrics=f"{RESULTS}/scores/seed{{seed}}/observed/metrics.jsonl",
        summary=f"{RESULTS}/scores/seed{{seed}}/observed/summary.json",
    log:
        f"{LOGS}/observe/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/observe/seed{{seed}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("observe"),
        settings=SETTINGS,
        launch=launched("observe"),
        folder=subpath(output.dynamics, parent=True),
        work=f"{WORK}/observe_seed{{seed}}",
    shell:
        "exec python -m sama.cli {params.launch} observe --config {params.settings} --images {input.images} --manifest {input.manifest}"
        " --out {params.folder} --work {params.work} --seed {wildcards.seed} &> {log}"
