"""What of a source may be written down: URLs hold passwords, tokens and signatures, and records are passed on.

A run writes its recipe, its command line and the names of its files into its folder, the report and the model card.
So a secret never gets that far: it is refused where it stands in a URL as it is, and `${NAME}` in its place is filled
in from the environment only where the data are fetched. `shown` is the name of a source for everything else that is
written or printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, unquote_plus

from tunewell.errors import DataError

URL = re.compile(r"^([a-z][a-z0-9+.\-]+)://", re.IGNORECASE)
DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb", "snowflake",
             "bigquery", "redshift", "cockroachdb")  # fmt: skip
MASK = "***"
_NAME = re.compile(r"\$\{(\w+)\}")
_TELLING = ("password", "passwd", "passphrase", "pwd", "secret", "token", "signature", "apikey", "credential")
_TELLING_WORDS = {"key", "sig", "auth", "authorization", "sas", "pass", "jwt"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PORT = re.compile(r"\d{1,5}[/?#]")
_INNER = re.compile(r"(?i)\b(?:pwd|password)\s*=\s*(?!\$\{)[^;\s]")  # of an ODBC connection string


def is_database(source: str) -> bool:
    """Whether a source is a database's URL."""
    match = URL.match(source)
    return match is not None and match[1].lower().partition("+")[0] in DATABASES


def filled(source: str) -> str:
    """`${NAME}` from the environment.

    Raises:
        DataError: it is not set.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise DataError(
                f"the environment variable {found[1]} is not set",
                where=shown(source),
                expected="a value for ${" + found[1] + "}",
                remedy=f"export {found[1]}=...",
            )
        return os.environ[found[1]]

    return _NAME.sub(value, source)


def scrubbed(text: str, source: str) -> str:
    """What a library says of a source, without what was filled in."""
    values = {os.environ[name]: "${" + name + "}" for name in _NAME.findall(source) if os.environ.get(name)}
    for value in sorted(values, key=len, reverse=True):
        for form in {value, quote(value), quote(value, safe=""), unquote(value)}:
            text = text.replace(form, values[value])
    return text.replace(source, shown(source))


def refuse_secret(source: str) -> None:
    """Let nothing through that should not be written down.

    Raises:
        DataError: a password, token or signature in a URL.
    """
    if (found := secret_in(source)) is not None:
        what, remedy = found
        raise DataError(
            f"{what} in the URL would be written into the run's records",
            where=shown(source),
            expected="${NAME} in its place, filled in from the environment",
            remedy=remedy,
        )


def secret_in(source: str) -> tuple[str, str] | None:
    """A secret that stands in a source as it is: what it is, and how to give it instead.

    >>> secret_in("https://example.org/pub.csv?token=geheim")
    ('a secret', "export DATA_SECRET=..., then 'https://example.org/pub.csv?token=${DATA_SECRET}'")
    >>> secret_in("https://example.org/pub.csv?token=${TOKEN}&page=2"), secret_in("reviews.csv?token=1")
    (None, None)
    """
    if URL.match(source) is None:
        return None
    if (span := _login(source)) is not None and _literal(source[span[0] : span[1]]):
        return "a password", f"export DB_PASSWORD=..., then '{_put(shown(source), span, source)}'"
    query = list(_query(source))
    if not any(_is_secret(name, value) for _, name, value in query):
        return None
    at, name, _ = query[0]
    if len(query) == 1 and name:
        begin, what, how = at + len(name) + 1, "DATA_SECRET", "..."
    else:
        begin, what, how = at, "DATA_QUERY", "'...' (all that stands behind the ?)"
    at, name, value = query[-1]
    end = at + len(name) + bool(name) + len(value)
    return "a secret", f"export {what}={how}, then '{shown(source[:begin])}${{{what}}}{source[end:]}'"


def shown(source: str) -> str:
    """A source as it may be written and printed: `***` for a login's password and for what a URL's parameters are.

    >>> shown("https://example.org/pub.csv?token=geheim&x=${X}"), shown("mysql://me:pa/ss@host/db?password=p#reviews")
    ('https://example.org/pub.csv?token=***&x=${X}', 'mysql://me:***@host/db?password=***#reviews')
    >>> shown("data/re?views.csv")
    'data/re?views.csv'
    """
    if URL.match(source) is None:
        return source
    spans = [
        (at + len(name) + bool(name), at + len(name) + bool(name) + len(value)) for at, name, value in _query(source)
    ]
    if (login := _login(source)) is not None:
        spans = [login, *(s for s in spans if s[0] >= login[1])]
    for start, end in sorted(spans, reverse=True):
        if _literal(source[start:end]):
            source = f"{source[:start]}{MASK}{source[end:]}"
    return source


def shown_name(source: str) -> str:
    """The short name of a source, without what a URL asks for.

    >>> shown_name("https://example.org/a/pub.csv?token=geheim"), shown_name("data/reviews.csv")
    ('pub.csv', 'reviews.csv')
    >>> shown_name("postgresql://me:${P}@host/shop#SELECT a FROM b"), shown_name("sqlite:///x/shop.db#reviews")
    ('shop', 'shop.db')
    """
    plain = shown(source)
    if URL.match(source) is not None:
        plain = re.split(r"[?#]", plain.partition("://")[2])[0].rpartition("@")[2]
    return PurePosixPath(plain.replace("\\", "/")).name or "data"


def stem_of(source: str) -> str:
    """The short name up to its first dot, by which folders are called.

    >>> stem_of("data/reviews.csv.gz"), stem_of("https://example.org/pub.csv?token=geheim")
    ('reviews', 'pub')
    """
    return shown_name(source).split(".")[0]


# ---------------------------------------------------------------- where secrets stand


def _literal(text: str) -> bool:
    """Whether anything of it is not filled in from the environment."""
    return bool(_NAME.sub("", text))


def _login(source: str) -> tuple[int, int] | None:
    """Where a URL's password stands; a lone user name that looks like a key counts as one."""
    start = source.index("://") + 3
    rest = source[start:]
    if rest.startswith("["):
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, _ = authority.rpartition("@")
    if at:
        user, colon, password = login.partition(":")
        if colon:
            return (start + len(user) + 1, start + len(login)) if password else None
        return (start, start + len(user)) if _looks_like_key(user) else None
    # a password with / ? or # in it, as SQLAlchemy reads it: up to the @. Not `host:5432/db?mail=a@b`
    found = re.match(r"[^:/@?#]*:([^@]+)@", rest)
    if found is None:
        return None
    certain = is_database(source) and "@" in re.split(r"[?#]", rest, maxsplit=1)[0]
    return (start + found.start(1), start + found.end(1)) if certain or not _PORT.match(found[1]) else None


def _put(plain: str, span: tuple[int, int], source: str) -> str:
    return f"{plain[: span[0]]}${{DB_PASSWORD}}{plain[span[0] + len(MASK) :]}"


def _query(source: str) -> Iterator[tuple[int, str, str]]:
    """Where each parameter of a URL begins, its name ("" without =) and its value."""
    login = _login(source)
    begin = login[1] if login is not None else source.index("://") + 3
    end = source.find("#", begin)
    at = source.find("?", begin, end if end >= 0 else len(source))
    if at < 0:
        return
    at += 1
    for part in re.split(r"([&;])", source[at : end if end >= 0 else len(source)]):
        if part not in ("", "&", ";"):
            name, sign, value = part.partition("=")
            yield (at, name, value) if sign else (at, "", part)
        at += len(part)


def _is_secret(name: str, value: str) -> bool:
    if not _literal(value):
        return False
    plain = unquote(name)
    telling = any(t in plain.lower() for t in _TELLING) or bool(
        {w.lower() for w in _WORD.findall(plain)} & _TELLING_WORDS
    )
    return telling or _looks_like_key(_NAME.sub("", unquote(value))) or bool(_INNER.search(unquote_plus(value)))


def _looks_like_key(text: str) -> bool:
    """Whether 20 letters and digits or more stand together, some of each."""
    return any(re.search("[A-Za-z]", p) and re.search(r"\d", p) for p in re.findall(r"[A-Za-z0-9]{20,}", text))
