"""Secrets in URLs: refused as they are, filled in from the environment, and nowhere in what is written or printed."""

from __future__ import annotations

import http.server
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.data.load import load
from tunewell.data.secrets import refuse_secret, scrubbed, secret_in, shown
from tunewell.errors import DataError, RecipeError
from tunewell.recipe_file import load_recipe

SIGNED = (
    "https://bucket.s3.amazonaws.com/pub.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAgeheim"
    "&X-Amz-Signature=geheim"
)
SECRET = [
    "https://host/pub.csv?token=geheim",
    "https://host/pub.csv?page=2&access_token=geheim",
    "https://host/pub.csv?sv=2024-11-04&sr=b&sig=geheim",  # Azure SAS
    SIGNED,
    "https://host/pub.csv?geheim1234567890abcdefghij",
    "https://host/pub.csv?a=geheim1234567890abcdefghij",
    "https://me:geheim@host/pub.csv",
    "https://geheim1234567890abcdefghij@host/pub.csv",
    "postgresql://me:geheim@host/db#t",
    "postgresql://me:geheim/1@host/db#t",
    "postgresql://me:1/geheim@host/db#t",
    "postgresql://me:geheim#1@host/db#t",
    "postgresql://me:geheim?1@host/db#t",
    "postgresql://me:geheim@1@host/db#t",
    "postgresql://me@host/db?password=geheim#t",
    "postgresql://me@host/db?sslpassword=geheim&sslmode=require#t",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3Dgeheim#t",
    "mssql+pyodbc:///?odbc_connect=DRIVER=x;UID=me;PWD=geheim#t",
    "snowflake://me@account/db?authenticator=oauth&token=geheim#t",
    "sqlite+pysqlcipher://:geheim@/my.db#t",
]
HARMLESS = [
    "reviews.csv?token=1",
    "https://host/pub.csv",
    "https://host:8000/a@b.csv",
    "http://[::1]:8000/a@b.csv",
    "https://host/export?format=csv&gid=123456789&path=data/2024/reviews_final.csv",
    "https://host/api?persistentId=doi:10.7910/DVN/ABCDEF",
    "https://host/pub.csv?token=${TOKEN}",
    "https://host/pub.csv?${QUERY}",
    "https://me:${PASSWORD}@host/pub.csv",
    "postgresql://me:${DB_PASSWORD}@host/db#SELECT a FROM t WHERE token = 'me@host'",
    "postgresql://host:5432/db#SELECT a FROM t WHERE mail = 'me@host' AND a = b?",
    "postgresql://host:5432/db?application_name=me@host#t",
    "postgresql://me@host:5432/db?sslmode=require#t",
    "sqlite:////data/a:b@c.db#SELECT text FROM t WHERE password = 'x'",
    "s3://bucket/a:b@c.csv",
]


@pytest.mark.parametrize("source", SECRET)
def test_a_secret_in_a_url_is_refused_and_not_repeated(source: str) -> None:
    with pytest.raises(DataError) as told:
        refuse_secret(source)
    assert "would be written into the run's records" in str(told.value)
    assert "${" in told.value.remedy
    with pytest.raises(RecipeError) as in_recipe:
        load_recipe(train=source)
    for said in (str(told.value), str(in_recipe.value), shown(source)):
        assert "geheim" not in said


@pytest.mark.parametrize("source", HARMLESS)
def test_others_pass(source: str) -> None:
    assert secret_in(source) is None
    assert load_recipe(train=source).train == source


@pytest.mark.parametrize("source", SECRET)
def test_the_remedy_is_let_through(source: str) -> None:
    found = secret_in(source)
    assert found is not None
    assert secret_in(found[1].partition("then '")[2].removesuffix("'")) is None, found


@pytest.mark.parametrize("source", [*SECRET, *HARMLESS])
def test_what_is_shown_stays_as_it_is_when_shown_again(source: str) -> None:
    assert shown(shown(source)) == shown(source)


def test_what_a_library_says_of_a_filled_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "ge/heim+1")
    said = "403, url='https://host/pub.csv?token=ge/heim+1', also ge%2Fheim%2B1"
    assert scrubbed(said, "https://host/pub.csv?token=${TOKEN}") == (
        "403, url='https://host/pub.csv?token=${TOKEN}', also ${TOKEN}"
    )


@pytest.fixture
def site(serving):
    """A server that gives its one file to those who know the token, and 403 to others."""
    rows = "text,label\n" + "".join(f"{'good' if i % 2 else 'bad'} seat {i},{i % 2}\n" for i in range(80))

    class Keeper(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/pub.csv?token=geheim&page=zwei"
            body = rows.encode() if known else b"no"
            self.send_response(200 if known else 403)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the server's own name for it

        def log_message(self, *_: object) -> None:
            pass

    return f"{serving(Keeper)}/pub.csv"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_file_of_a_run_holds_the_secret(
    site: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    more = [
        "--model", str(tiny_model), "--probes", "none", "--explain", "0", "--num_train_epochs", "1",
        "--max_length", "32", "--output_dir", str(out),
    ]  # fmt: skip
    result = CliRunner().invoke(app, ["run", "--train", f"{site}?token=geheim", *more])
    assert result.exit_code == 2
    assert "geheim" not in result.output
    assert not out.exists()

    monkeypatch.setenv("TOKEN", "wrong")
    result = CliRunner().invoke(app, ["run", "--train", f"{site}?token=${{TOKEN}}&page=zwei", *more])
    assert result.exit_code == 2
    assert "may not be read: the server answers 403" in result.stderr
    assert "wrong" not in result.output

    monkeypatch.setenv("TOKEN", "geheim")
    result = CliRunner().invoke(app, ["run", "--train", f"{site}?token=${{TOKEN}}&page=zwei", *more])
    assert result.exit_code == 0, result.output
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"recipe.yaml", "environment.json", "report.html", "predictions.csv"} <= {path.name for path in files}
    for path in [*files, *(tmp_path / "cache").rglob("*.csv")]:
        assert b"geheim" not in path.read_bytes(), path
    as_given = {"recipe.yaml", "environment.json", "report.html"}  # the recipe and the command; not the card
    assert {path.name for path in files if b"zwei" in path.read_bytes()} == as_given
    assert "train: http://127.0.0.1" in (out / "recipe.yaml").read_text()
    assert "token=${TOKEN}" in (out / "recipe.yaml").read_text()  # so that it can be run again
    card = (out / "model" / "README.md").read_text()
    assert "name: pub.csv\n" in card
    assert "TOKEN" not in card


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_parameter_that_does_not_look_like_a_secret_is_masked_in_names(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError) as told:
        load(f"{site}?page=zwei")
    assert told.value.where == f"{site}?page=***"
