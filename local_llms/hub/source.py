"""Where a model's file comes from, as the catalog says it.

These are data: a catalog file is validated into them, and ``fetch`` turns them into a file on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from local_llms.hub.names import DEFAULT_REVISION, all_parts, check_file, check_repository, check_revision

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
"""A bare file name: no folder, no leading dot."""


class WheelMember(BaseModel):
    """One file inside a wheel: its path there, its size in bytes, and the SHA-256 of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(gt=0)
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        parts = value.split("/")
        if "\\" in value or ":" in value or any(part in ("", ".", "..") for part in parts):
            raise ValueError("must be a relative path with / between its parts, such as package/model.gguf")
        return value

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name


class PackageSource(BaseModel):
    """A model inside a wheel on the package index.

    Without a conversion the one member is the model file. With ``convert`` the members are what it is written from, and
    ``file`` names the result. ``file_size`` is about how many bytes that has: it depends on the library that writes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["package"] = "package"
    distribution: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=120)
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.+!]*$", max_length=60)
    wheel_size: int = Field(gt=0, description="Bytes to download.")
    members: tuple[WheelMember, ...] = Field(min_length=1)
    convert: Literal["none", "bert-gguf"] = "none"
    file: FileName | None = None
    file_size: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_model_file(self) -> Self:
        if self.convert == "none":
            if len(self.members) != 1:
                raise ValueError("members must be one file, the model itself, unless convert says what to make of them")
            if self.file is not None or self.file_size is not None:
                raise ValueError("file and file_size go with convert; without it the member's own are taken")
        elif self.file is None or self.file_size is None:
            raise ValueError("convert needs file and file_size, the name and size of what is written")
        return self

    @property
    def file_name(self) -> str:
        """Name of the model file in the cache."""
        return self.file or self.members[0].name

    @property
    def size(self) -> int:
        """Bytes of the model file; about, where it is converted."""
        return self.file_size or self.members[0].size

    @property
    def sha256(self) -> str | None:
        """Digest of the model file; None where it is converted, since then the members' digests are checked."""
        return self.members[0].sha256 if self.convert == "none" else None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"


class FileSource(BaseModel):
    """A model file or folder of the user's own.

    A relative path counts from the folder of the catalog file; ``~`` is expanded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["file"]
    path: Path

    @field_validator("path")
    @classmethod
    def _resolve(cls, value: Path, info: ValidationInfo) -> Path:
        folder = info.context.get("folder") if isinstance(info.context, dict) else None
        expanded = value.expanduser()
        return folder / expanded if isinstance(folder, Path) else expanded

    @property
    def size(self) -> int | None:
        """Bytes of the model file; None where it is not there."""
        return self.path.stat().st_size if self.path.is_file() else None

    @property
    def sha256(self) -> None:
        """A user's own file is not compared with anything."""
        return None


class HubSource(BaseModel):
    """A model in a repository on the Hugging Face hub.

    ``file`` is the model file; of a model in several GGUF files the first, whose name ends in ``-00001-of-…``. Without
    it the repository is the model: a folder as transformers, LitGPT or PEFT read it. ``revision`` is a branch, a tag or
    a commit. ``size`` and ``sha256`` are given where they are known, for a model in one file; what the hub says of
    every file is checked in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hub"]
    repository: Annotated[str, AfterValidator(check_repository)]
    file: Annotated[str, AfterValidator(check_file)] | None = None
    revision: Annotated[str, AfterValidator(check_revision)] = DEFAULT_REVISION
    size: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_file_has_a_digest(self) -> Self:
        several = self.file is None or len(all_parts(self.file)) > 1
        if several and (self.size is not None or self.sha256 is not None):
            raise ValueError("size and sha256 are for a model in one file; this one is in several")
        return self


AnySource = PackageSource | FileSource | HubSource
Source = Annotated[AnySource, Field(discriminator="kind")]


class Fetchable(Protocol):
    """What ``fetch`` needs to know of a model."""

    @property
    def name(self) -> str:
        """The model's name; it becomes a folder in the cache."""
        ...

    @property
    def sources(self) -> Sequence[AnySource]:
        """Where the file may come from, best first."""
        ...

    @property
    def notes(self) -> str:
        """What else there is to know, such as how one comes by a file that is nowhere to be fetched."""
        ...
