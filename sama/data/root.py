"""The data root: the folder of this machine that holds the data sets."""

from pathlib import Path

from sama.errors import SamaError


def below(root: Path | None, path: str, needs: str) -> Path:
    """`path` below the data root `root`, or `path` itself if it is absolute; whether it exists is not looked at.

    Raises:
        SamaError: the path is relative and there is no root; the message begins with `needs`, who looks for what.
    """
    if not Path(path).is_absolute() and root is None:
        raise SamaError(
            f"data_root: {needs}, got null: set data_root in the config or SAMA_DATA_DIR in the environment"
        )
    return Path(root or "") / path
