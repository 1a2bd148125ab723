"""A folder for the hub, looked through and uploaded: what would be seen there, by whom, and whether it may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewell.errors import HubError, RunFolderError
from tunewell.results import Record

OURS = ("export.json",)  # of this machine: names the run's folder
CARD = "README.md"
KNOWN = (".json", ".jinja", ".md", ".model", ".safetensors", ".txt")
LISTS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)  # words, which may look like paths
WEIGHTS = (".safetensors", ".model")
SECRETS = {
    "a token of the hub": r"\bhf_[A-Za-z0-9]{20,}",
    "a key of a service": r"\b(?:sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,})",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s@\"']+@",
}
ROOTS = "home|Users|root|mnt|tmp|var|opt|data|srv|work|workspace|private|content|scratch"
PATHS = re.compile(rf"(?<![\w.:/~-])(?:/(?:{ROOTS})/|~/|[A-Za-z]:\\+\w)[^\s\"')\]}}<>|,]*")


class Pushed(Record):
    """What goes to the hub, or went.

    Attributes:
        files: name -> size in bytes. notes: what the card could say and does not. url: of the upload, empty after a
            dry run.
    """

    repo_id: str
    private: bool
    dry_run: bool
    files: dict[str, int]
    notes: tuple[str, ...] = ()
    url: str = ""

    def lines(self) -> list[str]:
        """For people: each file with its size, then where to and who sees it."""
        width = max(map(len, self.files))
        seen = "private: you and those you let in" if self.private else "public: everybody"
        total = sum(self.files.values()) / 1e6
        return [
            *(f"  {name:<{width}}  {size / 1e6:>10,.3f} MB" for name, size in self.files.items()),
            f"{self.repo_id}, {seen}; {len(self.files)} files, {total:,.1f} MB",
            *(f"note: {note}" for note in self.notes),
            "nothing was uploaded (dry run)" if self.dry_run else f"uploaded: {self.url}",
        ]


def check_push(repo_id: str, *, dry_run: bool) -> str | None:
    """What can be known before a folder is made: the name is one, and there is a token. Needs no network.

    Returns:
        the token, or None for a dry run, which needs none.

    Raises:
        HubError: the name is no repository's, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(
            "is no name of a repository", where=f"--push {repo_id}", expected="OWNER/NAME of letters, digits, - _ ."
        ) from error
    if dry_run:
        return None
    token = get_token()
    if not token:
        raise HubError(
            "there is no token for the hub",
            where=f"--push {repo_id}",
            expected="a token with write access",
            remedy="`hf auth login`, or set HF_TOKEN; `--dry_run` needs none",
        )
    return token


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    echo: Callable[[str], None] = lambda line: None,
) -> Pushed:
    """Upload an export `--to hub`, when nothing in it should stay here.

    Args:
        folder: what `export(..., to="hub")` wrote. repo_id: OWNER/NAME, or NAME for the token's owner; made when it is
            not there.
        private: nobody else sees it. dry_run: all checks, no network and no upload.

    Raises:
        HubError: no token, no permission, no network, or the repository is public where `private` was asked for.
        RunFolderError: the card is missing or broken, or a file holds a secret or a path of this machine.
    """
    folder = Path(folder)
    token = check_push(repo_id, dry_run=dry_run)
    files = look_through(folder)
    notes = _card(folder / CARD)
    planned = Pushed(repo_id=repo_id, private=private, dry_run=dry_run, files=files, notes=notes)
    if dry_run:
        return planned
    echo(f"push: {len(files)} files to {repo_id}")
    url = _upload(folder, repo_id, token, private, list(files))
    return planned.model_copy(update={"url": url})


def look_through(folder: Path) -> dict[str, int]:
    """The files that go, with their sizes in bytes.

    Raises:
        RunFolderError: naming each file with a secret, a path of this machine, or of a kind that no export writes.
    """
    if not (folder / "config.json").is_file():
        raise RunFolderError(
            "is no folder for the hub", where=str(folder), expected="one that `tunewell export RUN --to hub` wrote"
        )
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() or p.is_symlink()]
    files, found = {}, []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in OURS:
            continue
        if path.is_symlink() or path.suffix not in KNOWN or path.name.startswith("."):
            found.append(f"{name}: no file that an export writes")
            continue
        files[name] = path.stat().st_size
        if path.suffix not in WEIGHTS:
            found += [f"{name}: {what}" for what in _faults(path)]
    if found:
        raise RunFolderError(
            "holds what should stay here:\n" + "\n".join(f"  - {line}" for line in found),
            where=str(folder),
            expected="nothing but weights, tokenizer, configuration and card",
            remedy="remove it from the run (its recipe, labels or card) and export again",
        )
    return files


def _faults(path: Path) -> list[str]:
    """What is wrong with a file of text; a secret itself is not shown."""
    text = path.read_text(encoding="utf-8", errors="replace")
    out = [
        f"{kind} in line {text.count(chr(10), 0, match.start()) + 1}"
        for kind, pattern in SECRETS.items()
        if (match := re.search(pattern, text))
    ]
    if path.name not in LISTS and (match := PATHS.search(text)):
        out.append(f"a path of this machine in line {text.count(chr(10), 0, match.start()) + 1} ({match[0][:60]})")
    return out


def _card(path: Path) -> tuple[str, ...]:
    """Check the card's metadata; what is merely missing comes back."""
    import yaml

    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        front: Any = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        front = None
    if not isinstance(front, dict) or "pipeline_tag" not in front or "library_name" not in front:
        raise RunFolderError(
            "has no metadata that the hub can read",
            where=str(path),
            expected="a block between --- with pipeline_tag and library_name",
            remedy="`tunewell report RUN` writes the card anew, then export again",
        )
    missing = {"license": "no licence is named in the card (`license:`); it follows the base model's and the data's",
               "base_model": "no base model is named in the card: it was a folder of this machine"}  # fmt: skip
    return tuple(note for key, note in missing.items() if key not in front)


def _upload(folder: Path, repo_id: str, token: str | None, private: bool, files: list[str]) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    http: Any = HfHubHTTPError.__bases__[0]  # of the HTTP library in use
    network: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, http)
    api = HfApi(token=token)
    try:
        made = api.create_repo(repo_id, private=private, repo_type="model", exist_ok=True)
        whole = getattr(made, "repo_id", repo_id)
        if private and not api.repo_info(whole, repo_type="model").private:
            raise HubError(
                "is there already, and public", where=whole, expected="a private repository, as --private says",
                remedy="make it private in its settings, take another name, or leave --private out",
            )  # fmt: skip
        done = api.upload_folder(
            repo_id=whole, folder_path=folder, repo_type="model", allow_patterns=files,
            commit_message="Upload by tunewell",
        )  # fmt: skip
    except HfHubHTTPError as error:
        raise _refused(error, repo_id) from error
    except network as error:
        raise HubError(
            f"the hub cannot be reached ({type(error).__name__})",
            where=f"--push {repo_id}",
            expected="a connection to huggingface.co",
            remedy="the folder is written; the same command with --overwrite tries again",
        ) from error
    return str(getattr(done, "commit_url", "") or made)


def _refused(error: Any, repo_id: str) -> HubError:
    """An answer of the hub that is no yes, in words."""
    code = getattr(getattr(error, "response", None), "status_code", 0)
    if code in (401, 403):
        return HubError(
            f"the hub does not let this token write there ({code})",
            where=f"--push {repo_id}",
            expected="a token with write access to the owner's repositories",
            remedy="`hf auth whoami` says whose token it is; make one with the role `write`",
        )
    first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    return HubError(f"the hub answered {code}: {first[:200]}", where=f"--push {repo_id}", remedy="try again later")
