"""The registry of image sources. A new source is one module and one line here."""

from types import MappingProxyType

from sama.data.registry import registered
from sama.data.sources import cifar, digits, fashion_mnist, image_folder, parquet, webdataset
from sama.data.sources.base import Opener, Part, Picture, Source, SourceOptions
from sama.errors import SamaError

__all__ = ["SOURCES", "Part", "Picture", "Source", "SourceOptions", "open_source"]

SOURCES: MappingProxyType[str, Opener] = MappingProxyType(
    {
        "digits": digits.open_digits,
        "fashion_mnist": fashion_mnist.open_fashion_mnist,
        "cifar10": cifar.open_cifar10,
        "cifar100": cifar.open_cifar100,
        "image_folder": image_folder.open_image_folder,
        "parquet": parquet.open_parquet,
        "webdataset": webdataset.open_webdataset,
    }
)


def open_source(options: SourceOptions) -> Source:
    """Open the source that `options.name` registers: ids and labels of its parts, no pixels yet.

    Raises:
        SamaError: no such source, or its files are missing or wrong.
    """
    source = registered(SOURCES, options.name, "source")(options)
    for part in (source.train, source.test):
        if part is not None and not len(part):
            raise SamaError(f"data.source: source {options.name!r} has a part without an example")
    return source
