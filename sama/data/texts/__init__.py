"""Texts with weak labels: the registry of text sources. A new source is one module and one line here."""

from types import MappingProxyType

from sama.data.registry import registered
from sama.data.texts import csv_file, hub, json_lines, synthetic, wrench
from sama.data.texts.base import TextOpener, TextOptions, TextPart, TextSource

__all__ = ["TEXT_SOURCES", "TextOptions", "TextPart", "TextSource", "open_texts"]

TEXT_SOURCES: MappingProxyType[str, TextOpener] = MappingProxyType(
    {
        "synthetic_texts": synthetic.open_synthetic,
        "wrench": wrench.open_wrench,
        "json_lines": json_lines.open_json_lines,
        "csv": csv_file.open_csv,
        "hub": hub.open_hub,
    }
)


def open_texts(options: TextOptions) -> TextSource:
    """Open the text source that `options.name` registers.

    Raises:
        SamaError: no such source, or its files are missing or wrong.
    """
    return registered(TEXT_SOURCES, options.name, "text source")(options)
