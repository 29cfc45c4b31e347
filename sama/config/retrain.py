"""How long the retrainings on fewer examples are."""

from typing import Literal

from pydantic import Field

from sama.config.base import Section


class RetrainConfig(Section):
    """Retraining by the recipe `training`, on all examples or on those kept."""

    budget: Literal["steps", "epochs"] = Field(
        default="steps",
        description="what every retraining has alike: steps, training.steps of them whatever is kept; epochs, "
        "as many as training.steps make of the whole training split, so that fewer examples mean fewer steps",
    )
