"""Gets model files and looks into them: fetch, verify, cache, and a bounded reader of GGUF headers."""

from local_llms.hub.fetching import cached, cached_named, fetch, fetch_named
from local_llms.hub.gguf import GGUFArray, GGUFHeader, TensorInfo, read_header
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.inventory import KeptModel, kept_model, kept_models, remove_unfinished
from local_llms.hub.names import PREFIX, HubName, parse_hub_name
from local_llms.hub.peft import changes_vocabulary
from local_llms.hub.progress import Progress
from local_llms.hub.storage import size_of

__all__ = [
    "PREFIX",
    "GGUFArray",
    "GGUFHeader",
    "HubName",
    "KeptModel",
    "Progress",
    "TensorInfo",
    "cached",
    "cached_named",
    "changes_vocabulary",
    "check_gguf",
    "fetch",
    "fetch_named",
    "kept_model",
    "kept_models",
    "parse_hub_name",
    "read_header",
    "remove_unfinished",
    "size_of",
]
