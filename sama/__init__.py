"""SAMA: scalable meta learning from first-order passes (Choe et al., NeurIPS 2023).

The library rooms, from the inside out: `sama.adaptation`, `sama.hypergradient` and `sama.bilevel` need torch
alone; `sama.programs`, `sama.networks`, `sama.training` and `sama.scores` build the paper's experiments on them;
`sama.stages` and `sama.cli` are the pipeline. Nothing is imported here, so `import sama` costs nothing.
"""

__version__ = "0.1.0"
