"""Networks: classifiers of timm, the meta weight network, the EMA teacher."""
