# Figures and the self-contained page.


rule report:
    input:
        src=sources("report"),
        summary=rules.summarize.output.summary,
        data=rules.prepare.output,
        meta=expand(rules.meta_train.output, seed=SEEDS),
        meta_loss=expand(
            rules.meta_train_loss.output,
            seed=SEEDS if "meta_weight_loss" in METHODS else [],
        ),
        scores=expand(rules.score.output, seed=SEEDS, method=METHODS),
        kept=rules.phase_select.input,
        suspects=rules.suspects.output,
        models=rules.phase_retrain.input,
        evaluations=expand(rules.evaluate.output, seed=SEEDS),
    output:
        page=f"{RESULTS}/report/index.html",
        figures=directory(f"{RESULTS}/report/figures"),
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/benchmarks/report.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("report"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        folder=subpath(output.page, parent=True),
    shell:
        "exec python -m sama.cli report --config {params.settings} --results {params.results} --out {params.folder} &> {log}"


rule phase_report:
    input:
        rules.report.output,
