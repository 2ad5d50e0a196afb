"""Gets model files and looks into them: fetch, verify, cache, and a bounded reader of GGUF headers."""

from local_llms.hub.fetching import cached, fetch
from local_llms.hub.gguf import GGUFArray, GGUFHeader, TensorInfo, read_header
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.progress import Progress

__all__ = ["GGUFArray", "GGUFHeader", "Progress", "TensorInfo", "cached", "check_gguf", "fetch", "read_header"]
