"""Gets model files and looks into them: fetch, verify, cache, and a bounded reader of GGUF headers."""

from local_llms.hub.fetching import cached, cached_named, fetch, fetch_named
from local_llms.hub.gguf import GGUFArray, GGUFHeader, TensorInfo, read_header
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.names import PREFIX, HubName, parse_hub_name
from local_llms.hub.progress import Progress

__all__ = [
    "PREFIX",
    "GGUFArray",
    "GGUFHeader",
    "HubName",
    "Progress",
    "TensorInfo",
    "cached",
    "cached_named",
    "check_gguf",
    "fetch",
    "fetch_named",
    "parse_hub_name",
    "read_header",
]
