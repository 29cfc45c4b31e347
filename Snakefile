# One configuration a run, laid over the embedded default of its workload (config/config.yaml, or config/texts.yaml):
#   snakemake --cores 2                                               the embedded default: data pruning on digits
#   snakemake --cores 2 --configfile config/texts.yaml                finetuning on synthetic texts with weak labels
#   snakemake --cores 2 --configfile config/experiments/NAME.yaml     an overlay on one of them
#   snakemake --cores 2 benchmark                                     what the methods cost on this machine
include: "workflow/rules/common.smk"
include: f"workflow/rules/{'texts' if CONFIG.workload == 'texts' else 'images'}.smk"
include: "workflow/rules/benchmark.smk"


rule all:
    default_target: True
    input:
        TARGETS,
