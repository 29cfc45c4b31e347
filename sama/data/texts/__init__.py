"""Texts with weak labels: the registry of text sources. A new source is one module and one line here."""

import difflib
from types import MappingProxyType

from sama.data.texts import csv_file, hub, json_lines, synthetic, wrench
from sama.data.texts.base import TextOpener, TextOptions, TextPart, TextSource
from sama.errors import SamaError

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
    if options.name not in TEXT_SOURCES:
        close = difflib.get_close_matches(options.name, TEXT_SOURCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TEXT_SOURCES)}"
        raise SamaError(f"data.source: unknown text source {options.name!r} ({hint})")
    return TEXT_SOURCES[options.name](options)
