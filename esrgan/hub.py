"""Weight files in repositories of the Hugging Face Hub: their references, such as ``hf:owner/name``, and downloads.

``huggingface_hub`` downloads them to its own cache, from which they are read again without a network.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from esrgan.errors import WeightsError
from esrgan.extras import require_extra
from esrgan.text import one_line
from esrgan.weight_formats import WEIGHT_SUFFIXES

PREFIX = "hf:"
WEIGHTS_NAME = "model.safetensors"
_MAX_NAMES = 10  # of files that a message lists
_REFS = re.compile(r"refs/\w+/[^/]+")  # the only revisions that may have "/" in a reference
_REFERENCE = re.compile(rf"hf:(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>{_REFS.pattern}|[^/]+))?(?:/(?P<filename>.+))?")


@dataclass(frozen=True)
class HubFile:
    """A weight file in a repository.

    Attributes:
        repo: The repository, as "owner/name".
        filename: The file's path in the repository.
        revision: A branch, tag or commit; None is the default branch. In a reference, "/" in the name of a branch is
            written as "%2F", except in "refs/pr/1".

    Example:
        >>> from esrgan.hub import HubFile
        >>> HubFile.parse("hf:owner/name@v1.0/weights/4x.pth")
        HubFile(repo='owner/name', filename='weights/4x.pth', revision='v1.0')
    """

    repo: str
    filename: str = WEIGHTS_NAME
    revision: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("repo", self.repo), ("filename", self.filename), ("revision", self.revision or "")):
            if not isinstance(value, str):
                raise TypeError(f"{name}: expected a text, got {type(value).__name__}")

    @classmethod
    def parse(cls, reference: str) -> HubFile:
        """Return the file of a reference ``hf:owner/name``, to which ``@revision`` and ``/file`` may be appended.

        Raises:
            WeightsError: If the reference has another form.
        """
        match = _REFERENCE.fullmatch(reference.replace("\\", "/"))  # paths of Windows have backslashes
        if match is None:
            raise WeightsError(f"{reference}: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE")
        revision = match["revision"] and urllib.parse.unquote(match["revision"])
        return cls(match["repo"], match["filename"] or WEIGHTS_NAME, revision)

    def __str__(self) -> str:
        revision = (self.revision or "").replace("%", "%25")
        if not _REFS.fullmatch(revision):
            revision = revision.replace("/", "%2F")
        return f"{PREFIX}{self.repo}{'@' if revision else ''}{revision}/{self.filename}"

    def download(self, *, only_cached: bool = False) -> Path:
        """Return the path of the file in the cache of ``huggingface_hub``, after downloading it if it is new.

        Without a network, or with ``HF_HUB_OFFLINE=1`` or ``only_cached``, the cached file is used.

        Raises:
            WeightsError: If the file is not a weight file, or there is no such repository, revision or file, or it can
                be neither downloaded nor found in the cache.
            EsrganError: If the extra ``[hub]`` is not installed.
        """
        if not self.filename.lower().endswith(WEIGHT_SUFFIXES):
            expected = ", ".join(WEIGHT_SUFFIXES)
            hint = "; write / in the name of a branch as %2F" if self.revision else ""
            raise WeightsError(
                f"{self}: expected a file whose name ends in one of {expected}, got {self.filename}{hint}"
            )
        require_extra("hub")
        import huggingface_hub
        from huggingface_hub import errors

        try:
            path = Path(
                huggingface_hub.hf_hub_download(
                    self.repo, self.filename, revision=self.revision, local_files_only=only_cached
                )
            )
            with path.open("rb") as file:
                is_page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        except errors.GatedRepoError as error:
            reason = "its authors ask for a registration; follow the steps on its page, then run `hf auth login`"
            raise WeightsError(f"{self}: {reason}") from error
        except errors.RepositoryNotFoundError as error:
            reason = f"no such repository {self.repo}; check its name, or run `hf auth login` if it is private"
            raise WeightsError(f"{self}: {reason}") from error
        except errors.RevisionNotFoundError as error:
            raise WeightsError(f"{self}: no such branch, tag or commit; check the revision") from error
        except errors.LocalEntryNotFoundError as error:  # also the parent of the next error
            reason = f"not in the cache, and {_describe_answer(error.__cause__)}"
            if only_cached:
                reason = f"not downloaded yet, and a dry run downloads nothing; run `esrgan info {self}` first"
            raise WeightsError(f"{self}: {reason}") from error
        except errors.EntryNotFoundError as error:
            raise WeightsError(f"{self}: no such file; {self._suggest_files()}") from error
        except Exception as error:  # an invalid name, a full disk, or one of the HTTP client, which varies by version
            reason = one_line(str(error) or type(error).__name__, 200)
            raise WeightsError(f"{self}: cannot be downloaded: {reason}; check the name, or try again") from error
        if is_page:
            remedy = f"delete {path.resolve()} and try again"
            raise WeightsError(f"{self}: expected a weight file, got a web page, perhaps of a login; {remedy}")
        return path

    def _suggest_files(self) -> str:
        """Return which weight files the repository has instead."""
        from huggingface_hub import HfApi

        try:
            files = HfApi().list_repo_files(self.repo, revision=self.revision)
        except Exception:  # as above
            return "its page lists the files"
        weights = [file for file in files if file.lower().endswith(WEIGHT_SUFFIXES)]
        names = ", ".join(one_line(file) for file in weights[:_MAX_NAMES])
        more = f" and {len(weights) - _MAX_NAMES:,} more" if len(weights) > _MAX_NAMES else ""
        return f"the repository has {names}{more}" if weights else "the repository has no weight files"


def _describe_answer(error: BaseException | None) -> str:
    """Return what the Hugging Face Hub answered when a file could not be looked up, and what to do."""
    from huggingface_hub import errors

    if status := getattr(getattr(error, "response", None), "status_code", None):
        return f"the Hugging Face Hub answers with error {status}; try again later"
    if isinstance(error, errors.FileMetadataError):
        return (
            "the answer is not that of the Hugging Face Hub; log in to the network, or check HF_ENDPOINT and the proxy"
        )
    return "the Hugging Face Hub cannot be reached; check the network connection"
