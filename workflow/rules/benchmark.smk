# What the methods cost on this machine: `snakemake --cores 2 benchmark`. Nothing here depends on the configuration.
# Each benchmark has the machine to itself, and runs anew only if it is asked to (--forcerun) or its code changed.
BENCHMARKS = "results/benchmark"


rule benchmark_throughput:
    input:
        "benchmarks/throughput.py",
        "benchmarks/iteration.py",
        "benchmarks/shapes.py",
        "benchmarks/flops.py",
        "benchmarks/memory.py",
        "benchmarks/timing.py",
    output:
        f"{BENCHMARKS}/throughput.json",
    log:
        "logs/benchmark/throughput.log",
    conda:
        "../../envs/sama.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    shell:
        "exec python -m benchmarks.throughput {output} --threads 1 --examples 16 4 48 --unroll 1 5 10"
        " --shapes bert_4x256 bert_2x128 bert_6x384 test_resnet --rounds 5 --seconds 25 &> {log}"


rule benchmark_scaling:
    input:
        "benchmarks/scaling.py",
        "benchmarks/processes.py",
        "benchmarks/workload.py",
        "benchmarks/shapes.py",
        "benchmarks/flops.py",
        "benchmarks/memory.py",
        "benchmarks/timing.py",
    output:
        f"{BENCHMARKS}/scaling.json",
    log:
        "logs/benchmark/scaling.log",
    conda:
        "../../envs/sama.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    shell:
        "exec python -m benchmarks.scaling {output} --quick &> {log}"


# Needs root and iproute2; where they are missing it writes why, and the page says so.
rule benchmark_slow_link:
    input:
        "benchmarks/slow_link.py",
        "benchmarks/namespaces.py",
        "benchmarks/processes.py",
        "benchmarks/workload.py",
        "benchmarks/timing.py",
    output:
        f"{BENCHMARKS}/slow_link.json",
    log:
        "logs/benchmark/slow_link.log",
    conda:
        "../../envs/sama.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    shell:
        "exec python -m benchmarks.slow_link {output} --quick --optional &> {log}"


# Those of envs/peers.txt are measured where they are installed; the others are rows that say so.
rule benchmark_peers:
    input:
        "benchmarks/peers.py",
        "benchmarks/peer_methods.py",
        "benchmarks/workload.py",
        "benchmarks/shapes.py",
        "benchmarks/flops.py",
        "benchmarks/memory.py",
        "benchmarks/timing.py",
    output:
        f"{BENCHMARKS}/peers.json",
    log:
        "logs/benchmark/peers.log",
    conda:
        "../../envs/sama.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    shell:
        "exec python -m benchmarks.peers {output} --quick &> {log}"


rule benchmark_page:
    input:
        "benchmarks/page.py",
        "benchmarks/figures.py",
        "benchmarks/tables.py",
        "benchmarks/show_peers.py",
        "benchmarks/show_scaling.py",
        "benchmarks/show_slow_link.py",
        records=[
            rules.benchmark_throughput.output,
            rules.benchmark_scaling.output,
            rules.benchmark_slow_link.output,
            rules.benchmark_peers.output,
        ],
    output:
        page=f"{BENCHMARKS}/report/index.html",
        figures=directory(f"{BENCHMARKS}/report/figures"),
    log:
        "logs/benchmark/page.log",
    conda:
        "../../envs/sama.yaml"
    params:
        folder=subpath(output.page, parent=True),
    shell:
        "exec python -m benchmarks.page {params.folder} {input.records} &> {log}"


rule benchmark:
    input:
        rules.benchmark_page.output,
