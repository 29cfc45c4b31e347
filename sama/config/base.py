"""What every section of the configuration shares: frozen, strict, described."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
