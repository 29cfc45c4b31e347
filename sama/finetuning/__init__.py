"""Methods of finetuning on texts: one registry that a stage reads.

A new method is a function and a line here, its name in `sama.config.texts` (in `TextMethod`, and in `WEIGHTING` if it
gives weights), its look in `sama.report.texts_style`, and what its phases are given in `tests/stages/test_methods.py`.
"""

from types import MappingProxyType

from sama.finetuning import auxiliary, meta, plain, self_training
from sama.finetuning.base import Context, Method, Outcome, Phases, Settings

__all__ = ["METHODS", "Context", "Method", "Outcome", "Phases", "Settings"]

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "majority_vote": Method(plain.majority_vote, reads="majority_vote"),
        "dawid_skene": Method(plain.dawid_skene, reads="dawid_skene"),
        "clean_only": Method(plain.clean_only, reads="meta", trusts_meta=True),
        "weak_then_clean": Method(plain.weak_then_clean, reads="weak", needs_meta=True, trusts_meta=True),
        "self_training": Method(self_training.self_training, reads="weak"),
        "meta_r": Method(meta.reweight, reads="weak", needs_meta=True, watches=True),
        "meta_r_na": Method(meta.reweight_na, reads="weak", needs_meta=True, watches=True),
        "meta_rc": Method(meta.reweight_and_correct, reads="weak", needs_meta=True, watches=True, corrects=True),
        "finetune": Method(plain.finetune, reads="weak"),
        "tapt": Method(auxiliary.tapt, reads="weak", masked_head=True),
        "multitask": Method(auxiliary.multitask, reads="weak", masked_head=True),
        "meta_auxiliary": Method(
            auxiliary.meta_auxiliary, reads="weak", needs_meta=True, watches=True, masked_head=True
        ),
    }
)
