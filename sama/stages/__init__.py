"""One module a Snakemake stage: `run` with explicit arguments, files in, files out."""
