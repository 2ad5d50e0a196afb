"""Where the cache of the Hugging Face hub lies and how it is laid out, so that its files are shared with other tools.

``models--ORG--REPO/blobs/ETAG`` are the contents, ``snapshots/COMMIT/FILE`` links to them, and ``refs/REVISION`` holds
the commit that a branch or tag stood for. The ETag of a large file is its SHA-256. As documented in "Understand
caching" of huggingface_hub; the variables are read at each call, which the library does when it is imported.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from local_llms.hub.names import check_path

DEFAULT_ENDPOINT = "https://huggingface.co"
OFFLINE_VARIABLES = ("LOCAL_LLMS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_cache() -> Path:
    """The folder of the hub's cache: ``HF_HUB_CACHE``, else ``hub`` in ``HF_HOME``, else in the user's cache folder."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return _folder(given)
    home = os.environ.get("HF_HOME")
    if home:
        return _folder(home) / "hub"
    return _folder(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def endpoint() -> str:
    """The address of the hub: ``HF_ENDPOINT``, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def offline_variable() -> str | None:
    """The variable that switches the network off; None where none does."""
    on = ("1", "on", "yes", "true")
    return next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").strip().lower() in on), None)


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository's folder in the cache. Its names were checked."""

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str) -> Repository:
        """The folder of ``org/repo``; it may not exist."""
        return cls(name, hub_cache() / f"models--{name.replace('/', '--')}")

    def commit(self, revision: str) -> str | None:
        """The commit that a revision stood for when something was fetched last; None where nothing was."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            text = (self.folder / "refs" / revision).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if COMMIT.fullmatch(text) else None

    def snapshot(self, commit: str) -> Path:
        """The folder where the files of a commit are found."""
        return self.folder / "snapshots" / commit

    def pointer(self, commit: str, file: str) -> Path:
        """Where a file of a commit is found."""
        return self.snapshot(commit) / Path(*file.split("/"))

    def blob(self, etag: str) -> Path:
        """Where the content with that ETag is kept."""
        return self.folder / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """Where the content arrives. Other tools give theirs other names."""
        return self.folder / "blobs" / f"{etag}.local-llms.incomplete"

    @property
    def locks(self) -> Path:
        """The folder of this repository's locks, of this package and of other tools."""
        return self.folder.parent / ".locks" / self.folder.name

    def lock(self, what: str) -> Path:
        """The lock of whoever fetches a content, by its ETag, or a whole model."""
        return self.locks / f"{what}.local-llms.lock"

    def files(self, revision: str) -> list[str]:
        """The files of a revision that are here, by name."""
        commit = self.commit(revision)
        if commit is None:
            return []
        top = self.snapshot(commit)
        names = [path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()]
        return sorted(name for name in names if _is_checked(name))


def is_etag(text: str) -> bool:
    """Whether a text is an ETag of the hub: a SHA-256, or the SHA-1 that git gives to a small file."""
    return bool(SHA256.fullmatch(text) or COMMIT.fullmatch(text))


def etag_of(pointer: Path) -> str | None:
    """The ETag of the content that a pointer links to; None where it links to none, as on systems without links."""
    target = pointer.resolve()
    return target.name if target.parent.name == "blobs" and target != pointer else None


def _folder(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()


def _is_checked(name: str) -> bool:
    try:
        check_path(name)
    except ValueError:
        return False
    return True
