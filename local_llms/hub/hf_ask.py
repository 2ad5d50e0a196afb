"""Asks the Hugging Face hub about repositories and files, and says in our errors what it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from local_llms.errors import DownloadError, MissingDependency, OfflineError
from local_llms.hub.hf_cache import COMMIT, SHA256, endpoint, offline_variable
from local_llms.hub.names import HubName, check_path
from local_llms.hub.pip_download import hide_credentials

_LIBRARY = "local-llms"
_ETAG = re.compile(f"({SHA256.pattern}|{COMMIT.pattern})")
_ADDRESS = re.compile(r"https?://[^\s/]+(/\S*)?")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub knows it. ``etag`` is its SHA-256, or for a small one the SHA-1 that git gives it."""

    name: str
    url: str
    commit: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class HubListing:
    """The files of a repository at one commit; None stands for a file of which the hub told no more than its name."""

    commit: str
    files: Mapping[str, HubFile | None]


def ask_file(name: HubName, file: str, revision: str) -> HubFile:
    """What the hub says of one file of a repository.

    Raises OfflineError where the network is off or out of reach, MissingDependency, or DownloadError.
    """
    _require(name)
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    with hub_errors(name):
        url = hf_hub_url(name.repository, file, revision=revision, endpoint=endpoint())
        found = get_hf_file_metadata(
            url,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            endpoint=endpoint(),
            library_name=_LIBRARY,
            library_version=_version(),
        )
    commit, etag, size = found.commit_hash or "", found.etag or "", found.size or 0
    if not COMMIT.fullmatch(commit) or not _ETAG.fullmatch(etag) or size <= 0:
        raise DownloadError(
            f"{shown_endpoint()} does not tell the commit, the digest and the size of {file} in {name.repository}, as "
            "the hub does. Look at HF_ENDPOINT, and at proxies on the way."
        )
    # By its commit: what comes is the version that was asked about.
    return HubFile(file, hf_hub_url(name.repository, file, revision=commit, endpoint=endpoint()), commit, etag, size)


def ask_listing(name: HubName, revision: str) -> HubListing:
    """Which files a repository has. Names that are no plain paths are left out. Raises as ``ask_file``."""
    _require(name)
    from huggingface_hub import HfApi, constants, hf_hub_url

    with hub_errors(name):
        api = HfApi(endpoint=endpoint(), library_name=_LIBRARY, library_version=_version())
        try:
            found = api.model_info(
                name.repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _strange(name) from error
    commit = found.sha if isinstance(found.sha, str) else ""
    if not COMMIT.fullmatch(commit):
        raise _strange(name)
    files: dict[str, HubFile | None] = {}
    for entry in found.siblings or ():
        try:
            file = check_path(entry.rfilename)
        except (ValueError, AttributeError):
            continue
        etag, size = entry.lfs.sha256 if entry.lfs else entry.blob_id, entry.size
        told = isinstance(etag, str) and _ETAG.fullmatch(etag) and isinstance(size, int) and size >= 0
        url = hf_hub_url(name.repository, file, revision=commit, endpoint=endpoint())
        files[file] = HubFile(file, url, commit, str(etag), size or 0) if told else None
    return HubListing(commit, files)


def request_headers() -> dict[str, str]:
    """The headers of a download: who asks, and the user's token where there is one. They never go into a text."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers(library_name=_LIBRARY, library_version=_version())
    return {**headers, "Accept-Encoding": "identity"}


def shown_endpoint() -> str:
    """The hub's address as an error may show it."""
    return hide_credentials(endpoint())


@contextmanager
def hub_errors(name: HubName) -> Iterator[None]:
    """Turn what huggingface_hub raises into our errors. Its own texts, which hold addresses, are left out."""
    from huggingface_hub import errors

    # Its HTTP library is another one from version to version; the base of its errors is always of this name.
    bases: list[type[Any]] = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    transport: type[Exception] = bases[0]
    page = f"{shown_endpoint()}/{name.repository}"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise offline_error(name, "HF_HUB_OFFLINE") from None
    except errors.GatedRepoError:
        raise DownloadError(
            f"{name.repository} is open only to those who accepted its terms. Accept them on {page}, and set HF_TOKEN "
            'or run "hf auth login".'
        ) from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(
            f"There is no repository {name.repository} at {shown_endpoint()}, or it is a private one. Check the name; "
            'for a private one set HF_TOKEN or run "hf auth login".'
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{name.repository} has no such revision. Look at {page}/tree/main.") from None
    except errors.EntryNotFoundError:
        raise DownloadError(f"{name.repository} has no file {name.file}. Look at {page}/tree/main.") from None
    except errors.HfHubHTTPError as error:
        raise status_error(name, error.response.status_code) from None
    except errors.FileMetadataError:
        raise DownloadError(f"{shown_endpoint()} does not answer as the hub does. Look at HF_ENDPOINT.") from None
    except transport as error:
        raise unreachable(name, error) from None


def status_error(name: HubName, status: int) -> DownloadError:
    """The error for an HTTP status that ends a request."""
    if status in (401, 403):
        advice = 'Your token does not open it: set HF_TOKEN to one that does, or run "hf auth login".'
    elif status == 429:
        advice = "Too many requests came from here: wait some minutes. With HF_TOKEN set, more are allowed."
    elif status >= 500:
        advice = "The hub has a fault: try again later. What has arrived is kept."
    else:
        advice = f"Look at {shown_endpoint()}/{name.repository}."
    return DownloadError(f"{shown_endpoint()} answered {status} for {name}. {advice}")


def unreachable(name: HubName, error: BaseException) -> OfflineError:
    """The error for a hub that does not answer."""
    return OfflineError(
        f"{name} is not on this machine, and {shown_endpoint()} cannot be reached ({type(error).__name__}). Try again "
        "with a network: what has arrived is kept. A file that you have can be loaded by its path."
    )


def offline_error(name: HubName, variable: str) -> OfflineError:
    """The error for a model that is not here while the network is switched off."""
    return OfflineError(f"{name} is not on this machine, and {variable} is set. Unset it to fetch the model.")


def _strange(name: HubName) -> DownloadError:
    return DownloadError(
        f"{shown_endpoint()} does not tell which files {name.repository} has, as the hub does. Look at HF_ENDPOINT, "
        "and at proxies on the way."
    )


def _require(name: HubName) -> None:
    """Raises OfflineError, MissingDependency or DownloadError where nothing can be asked."""
    variable = offline_variable()
    if variable is not None:
        raise offline_error(name, variable)
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingDependency("huggingface_hub", extra="hub", purpose=f"Fetching {name}") from error
    if not _ADDRESS.fullmatch(endpoint()):
        raise DownloadError(f"HF_ENDPOINT is {shown_endpoint()!r}: it must begin with https:// or http://.")


def _version() -> str:
    return metadata.version("local-llms")
