"""Carry a stage through submitit; the only package that imports it.

The job runs the same command line as the rule would, in a process of its own, so a stage does not know who carried it.

- `local`: a job of submitit's local executor; however the launcher ends, the job ends with it.
- `slurm`: a job of a Slurm cluster, named by the content of what it depends on (`naming`). It outlives a launcher that
  is killed; the next one with the same content joins it. `job` is what runs on the node, `queue` what Slurm says of it.
- `following`: what both share: output as it comes, signals.
"""
