"""Tools: how each family describes them, writes calls and reads results; grammars of calls; calls read from answers.

How a family does it is data, the ``tools`` table of its template; nothing here has the name of a family in it.
"""

from local_llms.tools.choice import ToolUse
from local_llms.tools.format import format_of
from local_llms.tools.grammar import constraint_for
from local_llms.tools.history import as_dictionaries, spoken
from local_llms.tools.loose import told
from local_llms.tools.reader import CallArguments, CallStart, Piece, ReplyReader, TextPiece, read_reply

__all__ = [
    "CallArguments",
    "CallStart",
    "Piece",
    "ReplyReader",
    "TextPiece",
    "ToolUse",
    "as_dictionaries",
    "constraint_for",
    "format_of",
    "read_reply",
    "spoken",
    "told",
]
