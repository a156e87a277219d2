"""Why a download from the Hugging Face hub failed, in a line, with what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrf.bundle.json_file import BundleError


def fetch(
    download: Callable[[], str], repo: str, *, revision: str | None = None, file: str | None = None
) -> Path:
    """Run a download.

    Args:
        download: gives the path of what was fetched.
        repo, revision, file: what it fetches, for messages.

    Raises:
        BundleError: when it fails, saying why.
    """
    _check_home()
    try:
        return Path(download())
    except Exception as error:  # failures of network, disk and hub share no base class
        raise BundleError(_reason(error, repo, revision, file)) from error


def _check_home() -> None:
    """The hub's package would keep its files in a folder named `~` where there is no home.

    Raises:
        BundleError: when nothing says where they belong.
    """
    named = any(os.environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"))
    if not named and os.path.expanduser("~") == "~":  # noqa: PTH111  (pathlib's raises)
        raise BundleError(
            "there is no home folder here (HOME is not set), so no place for what the hub sends: "
            "set HF_HOME to a folder"
        )


def _reason(error: Exception, repo: str, revision: str | None, file: str | None) -> str:
    from huggingface_hub import errors, get_token

    what = (f"{repo}/{file}" if file else repo) + (f" at revision {revision!r}" if revision else "")
    causes = list(_chain(error))

    def one(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    codes = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    if 401 in codes and get_token():
        return (
            f"the hub refuses the token that is used for {repo}: it has expired or is wrong; "
            "run `hf auth login` again, or unset HF_TOKEN"
        )
    if one(errors.GatedRepoError):
        return f"{repo} is gated: accept its terms on the hub and run `hf auth login`"
    if one(errors.RepositoryNotFoundError) or 401 in codes:
        return f"the hub has no {repo}; if it is private, run `hf auth login`"
    if one(errors.RevisionNotFoundError):
        return f"{repo} has no branch, tag or commit {revision!r}"
    if 403 in codes:
        return f"the hub does not let this token read {repo}; use one that may, or accept the terms of {repo}"
    if 429 in codes:
        return f"the hub limits how often it is asked, and refuses {what} for now; try again in some minutes"
    if server := [code for code in codes if isinstance(code, int) and code >= 500]:
        return f"the hub is out of order (it answers {server[0]} for {what}); try again later"
    if one(errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{repo} has no file {file!r}"
    if disk := next((cause for cause in causes if getattr(cause, "errno", None) in _DISK), None):
        return f"cannot keep {what} on this machine: {_DISK[disk.errno]}"  # type: ignore[attr-defined]
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{what} is not in the local cache and the hub cannot be reached: connect once "
            "(and unset HF_HUB_OFFLINE), or give a local path"
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"could not download {what}: {first}; try again or give a local path"


_WHERE = "set HF_HOME to another folder"
_DISK = {
    errno.ENOSPC: f"the disk is full; free some of it, or {_WHERE}",
    errno.EDQUOT: f"the quota is used up; free some of it, or {_WHERE}",
    errno.EROFS: f"the folder of the hub's cache is read-only; {_WHERE}",
    errno.EACCES: f"the folder of the hub's cache may not be written; {_WHERE}",
    errno.EPERM: f"the folder of the hub's cache may not be written; {_WHERE}",
}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
