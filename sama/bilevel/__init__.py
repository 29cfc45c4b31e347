"""Bilevel training: `loop.BilevelLoop`, its batches and checkpoints. Needs torch alone.

Nothing is imported here: ordinary training uses the batches and checkpoints and must not depend on the loop.
"""
