"""What every section of the configuration shares: frozen, strict, described."""

from collections.abc import Hashable, Sequence

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def require_distinct(values: Sequence[Hashable], what: str) -> None:
    """Return if no value stands twice, else raise a ValueError that lists them as `what`."""
    if len(set(values)) != len(values):
        raise ValueError(f"expected distinct {what}, got {', '.join(map(str, values))}")
