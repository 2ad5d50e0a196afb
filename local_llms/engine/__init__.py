"""One engine per loaded model: requests come in, tokens go out.

Nothing here knows a framework, a template or a single backend.
"""

from local_llms.engine.engine import Engine
from local_llms.engine.request import Request, room_for
from local_llms.engine.stats import EngineStats
from local_llms.engine.stream import Stream
from local_llms.engine.thought import Thinking
from local_llms.engine.turns import Turns

__all__ = ["Engine", "EngineStats", "Request", "Stream", "Thinking", "Turns", "room_for"]
