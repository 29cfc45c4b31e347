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


def model_place(name: str, root: Path | None) -> str:
    """The folder of that name below the data root or here, else the name itself, which is then one of the hub."""
    if root is not None and not Path(name).is_absolute() and (root / name).is_dir():
        return str(below(root, name, "model.name"))
    return name
