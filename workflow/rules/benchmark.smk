# What the methods cost on this machine: `snakemake --cores 2 benchmark`. Nothing here depends on the configuration.
# Each benchmark has the machine to itself, and runs anew only if it is asked to (--forcerun) or its code changed.
BENCHMARKS = "results/benchmark"


rule benchmark_throughput:
    input:
        "benchmarks/throughput.py",
        "benchmarks/shapes.py",
        "benchmarks/memory.py",
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
        "benchmarks/timing.py",
        "benchmarks/workload.py",
        "benchmarks/memory.py",
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
        "benchmarks/timing.py",
        "benchmarks/workload.py",
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
        "benchmarks/timing.py",
        "benchmarks/workload.py",
        "benchmarks/memory.py",
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
        rules.benchmark_throughput.output,
        rules.benchmark_scaling.output,
        rules.benchmark_slow_link.output,
        rules.benchmark_peers.output,
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
        "exec python -m benchmarks.page {params.folder} {input} &> {log}"


rule benchmark:
    input:
        rules.benchmark_page.output,
