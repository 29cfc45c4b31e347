# Prepare -> meta-train -> score -> select -> retrain -> evaluate -> report, with one configuration a run:
#   snakemake --cores 2                                               the embedded default
#   snakemake --cores 2 --configfile config/experiments/NAME.yaml     an overlay on it
configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/meta_train.smk"
include: "workflow/rules/observe.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/suspects.smk"
include: "workflow/rules/retrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"


rule all:
    default_target: True
    input:
        rules.phase_prepare.input,
        rules.phase_search.input,
        rules.phase_select.input,
        rules.phase_suspects.input,
        rules.phase_retrain.input,
        rules.phase_evaluate.input,
        rules.phase_report.input,
        rules.track.output,
