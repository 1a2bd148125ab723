"""`tunewell export --to hub --push`: what would be seen there is looked through; nothing goes that should stay."""

from __future__ import annotations

import json
import shutil
import socket
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import HubError, RunFolderError
from tunewell.export.push import look_through, push

CARD = "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n\n# mine\n"


@pytest.fixture
def folder(tiny_classifier: Path, tmp_path: Path) -> Path:
    """What `--to hub` leaves: the model, its card and the record of the export."""
    out = tmp_path / "for-the-hub"
    shutil.copytree(tiny_classifier, out)
    (out / "README.md").write_text(CARD, encoding="utf-8")
    (out / "export.json").write_text('{"source": "/home/jane/runs/reviews"}', encoding="utf-8")
    return out


class FakeApi:
    """A hub of one repository, which remembers what it was asked."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    public = False
    fails: Exception | None = None

    def __init__(self, token: str | None = None) -> None:
        self.calls.append(("token", {"token": token}))

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        if self.fails is not None:
            raise self.fails
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"jane/{repo_id}")

    def repo_info(self, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **options: Any) -> Any:
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url="https://huggingface.co/jane/reviews/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_made_up")
    monkeypatch.setattr(FakeApi, "calls", [])
    return FakeApi


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("somebody has asked the network")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_a_dry_run_lists_all_and_asks_nobody(folder: Path, no_network: None, monkeypatch: Any) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    done = push(folder, "jane/reviews", private=True, dry_run=True)
    assert set(done.files) == {p.name for p in folder.iterdir()} - {"export.json"}
    assert done.files["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    text = "\n".join(done.lines())
    assert "jane/reviews, private: you and those you let in; " in text
    assert "note: no licence is named in the card" in text
    assert text.endswith("nothing was uploaded (dry run)")
    assert "public: everybody" in "\n".join(push(folder, "jane/reviews", dry_run=True).lines())


def test_what_is_uploaded(folder: Path, hub: type[FakeApi]) -> None:
    done = push(folder, "reviews", private=True)
    names = [name for name, _ in hub.calls]
    assert names == ["token", "create_repo", "upload_folder"]
    made, sent = hub.calls[1][1], hub.calls[2][1]
    assert made == {"repo_id": "reviews", "private": True, "repo_type": "model", "exist_ok": True}
    assert sent["repo_id"] == "jane/reviews"
    assert sorted(sent["allow_patterns"]) == sorted(done.files)
    assert "export.json" not in sent["allow_patterns"]
    assert done.url.endswith("/commit/1")


def test_a_public_repository_is_not_taken_for_a_private_one(folder: Path, hub: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(FakeApi, "public", True)
    with pytest.raises(HubError, match="is there already, and public"):
        push(folder, "jane/reviews", private=True)
    assert "upload_folder" not in [name for name, _ in hub.calls]


def answer(code: int) -> Exception:
    """What huggingface_hub raises at an answer of the hub."""
    from huggingface_hub.errors import HfHubHTTPError

    http = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
    request = http.Request("POST", "https://huggingface.co/api/repos/create")
    return HfHubHTTPError(f"{code} Error: no", response=http.Response(code, request=request))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(403), r"does not let this token write there \(403\)"),
        (answer(401), r"does not let this token write there \(401\)"),
        (answer(500), r"the hub answered 500: 500 Error: no"),
        (ConnectionError("no route"), r"the hub cannot be reached \(ConnectionError\)"),
        (TimeoutError(), r"the hub cannot be reached \(TimeoutError\)"),
    ],
)
def test_the_hub_says_no(folder: Path, hub: Any, monkeypatch: Any, error: Exception, said: str) -> None:
    monkeypatch.setattr(FakeApi, "fails", error)
    with pytest.raises(HubError, match=said) as found:
        push(folder, "jane/reviews")
    assert found.value.exit_code == 2


def test_the_http_librarys_own_errors_are_the_network(folder: Path, hub: Any, monkeypatch: Any) -> None:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    http = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
    for error in (http.ConnectError("name not known"), OfflineModeIsEnabled("offline")):
        monkeypatch.setattr(FakeApi, "fails", error)
        with pytest.raises(HubError, match="cannot be reached"):
            push(folder, "jane/reviews")


def test_without_a_token(folder: Path, hub: Any, monkeypatch: Any) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(HubError, match="no token for the hub") as found:
        push(folder, "jane/reviews")
    assert "HF_TOKEN" in str(found.value)
    assert hub.calls == []


@pytest.mark.parametrize("name", ["a/b/c", "me/re views", "-x", ""])
def test_a_name_that_is_none(folder: Path, name: str) -> None:
    with pytest.raises(HubError, match="is no name of a repository"):
        push(folder, name, dry_run=True)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", '{"_name_or_path": "/home/jane/base"}', r"json: a path of this machine in line 1 \(/home/jane"),
        ("config.json", '{"a": 1,\n"b": "C:\\\\Users\\\\jane"}', "in line 2"),
        ("README.md", f"{CARD}~/secret/reviews.csv", r"a path of this machine"),
        ("README.md", f"{CARD}hf_{'a1' * 15}", r"README\.md: a token of the hub in line 7"),
        ("config.json", '"postgresql://me:hush@host/shop"', "a password in an address"),
        ("tokenizer.json", "-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("chat_template.jinja", "AKIA" + "A1" * 8, "a key of a service"),
        (".env", "x", r"\.env: no file that an export writes"),
        ("optimizer.pt", "x", r"optimizer\.pt: no file that an export writes"),
    ],
)  # fmt: skip
def test_what_should_stay_here_is_refused(folder: Path, file: str, text: str, said: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=said) as found:
        push(folder, "jane/reviews", dry_run=True)
    assert "hush" not in str(found.value) and "a1a1" not in str(found.value)


def test_what_only_looks_like_a_path(folder: Path) -> None:
    harmless = f"{CARD}See https://example.org/home/jane, and/or 1/2, path/to/this/folder, runs/tmp/x.\n"
    (folder / "README.md").write_text(harmless, encoding="utf-8")
    assert "README.md" in look_through(folder)


@pytest.mark.parametrize("card", [None, "# mine", "---\n: [\n---\n", "---\nlicense: mit\n---\n"])
def test_a_card_that_the_hub_cannot_read(folder: Path, card: str | None) -> None:
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(RunFolderError, match="no metadata that the hub can read"):
        push(folder, "jane/reviews", dry_run=True)


def test_the_command(folder: Path, tmp_path: Path, no_network: None) -> None:
    (folder / "export.json").unlink()
    out = tmp_path / "out"
    words = ["export", str(folder), "--to", "hub", "-o", str(out), "--push", "jane/reviews", "--dry_run"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "model.safetensors " in done.output and "nothing was uploaded (dry run)" in done.output
    assert json.loads((out / "export.json").read_text())["push"] is None
    done = CliRunner().invoke(app, [*words, "--overwrite", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["push"]["repo_id"] == "jane/reviews"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--push", "a/b"], "--push goes with --to hub"),
        (["--to", "hub", "--dry_run"], "--dry_run goes with --push OWNER/NAME"),
        (["--to", "hub", "--private"], "--private goes with --push OWNER/NAME"),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["export", "runs/none", *words])
    assert done.exit_code == 2
    assert said in done.output
