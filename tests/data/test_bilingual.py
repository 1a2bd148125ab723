"""Gettext catalogues, translation memories and texts of user interfaces: what becomes a row, and what is refused."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from tunewell.data import bilingual
from tunewell.data.load import load
from tunewell.errors import DataError
from tunewell.recipe import Recipe
from tunewell.tasks.generation import translation as t

HEADER = 'msgid ""\nmsgstr ""\n"Language: pt_BR\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
PLURALS = '"Plural-Forms: nplurals=2; plural=(n > 1);\\n"\n'
CATALOGUE = (
    HEADER + PLURALS + '\n#: a.py:3\nmsgid "Hello"\nmsgstr "Olá"\n\n'
    '#, fuzzy\nmsgid "Old"\nmsgstr "Velho"\n\n'
    'msgctxt "menu"\nmsgid "Open \\"it\\"\\n"\n"now"\nmsgstr "Abrir"\n\n'
    'msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "%d arquivo"\nmsgstr[1] "%d arquivos"\n\n'
    'msgid "None"\nmsgstr ""\n\n#~ msgid "Gone"\n#~ msgstr "Foi"\n'
)


def po(path, text, encoding="utf-8"):
    pytest.importorskip("babel")
    path.write_bytes(text.encode(encoding))
    return path


def test_entries_of_a_catalogue(tmp_path):
    file = load(po(tmp_path / "a.po", CATALOGUE))
    assert file.format == "po" and list(file.dataset) == [
        {"source": "Hello", "target": "Olá", "context": None},
        {"source": 'Open "it"\nnow', "target": "Abrir", "context": "menu"},
        {"source": "%d file", "target": "%d arquivo", "context": None},
        {"source": "%d files", "target": "%d arquivos", "context": None},
    ]
    assert file.notices == (f"{tmp_path / 'a.po'}: skipped 1 obsolete, 1 fuzzy, 1 untranslated",)


def test_a_language_with_one_form_and_one_with_three(tmp_path):
    entry = '\nmsgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "一"\n'
    one = HEADER + '"Plural-Forms: nplurals=1; plural=0;\\n"\n' + entry
    rows = load(po(tmp_path / "zh.po", one)).dataset
    assert list(rows["source"]) == ["%d files"] and list(rows["target"]) == ["一"]
    three = HEADER + '"Plural-Forms: nplurals=3; plural=(n%10==1 ? 0 : n==2 ? 1 : 2);\\n"\n' + entry
    three += 'msgstr[1] "два"\nmsgstr[2] "много"\n'
    rows = load(po(tmp_path / "ru.po", three)).dataset
    assert list(rows["target"]) == ["一", "много"]


def test_encodings_of_a_catalogue(tmp_path):
    latin = CATALOGUE.replace("UTF-8", "ISO-8859-1")
    assert load(po(tmp_path / "a.po", latin, "latin-1")).dataset[0]["target"] == "Olá"
    assert load(po(tmp_path / "b.po", CATALOGUE, "utf-8-sig")).dataset[0]["target"] == "Olá"
    (tmp_path / "c.po.gz").write_bytes(gzip.compress(CATALOGUE.encode()))
    assert len(load(tmp_path / "c.po.gz").dataset) == 4


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ('msgid "a"\nmsgstr "b\n', ":2", "no line of a gettext catalogue"),
        ("source,target\na,b\n", ":1", "no line of a gettext catalogue"),
        ('msgid "a"\nmsgstr "b"\ntranslate "c"\n', ":3", "no line of a gettext catalogue"),
        (HEADER.replace("UTF-8", "klingon"), "", "unknown encoding `klingon`"),
        (HEADER + '\nmsgid "a"\nmsgid_plural "b"\nmsgstr[7] "c"\n', "", "is no gettext catalogue"),
        (HEADER + '"Plural-Forms: nplurals=many\\n"\n\nmsgid "a"\nmsgstr "b"\n', "", "is no gettext catalogue"),
        (HEADER, "", "has no translated entry"),
        (HEADER + '\nmsgid "a"\nmsgstr ""\n\n#, fuzzy\nmsgid "b"\nmsgstr "c"\n', "", "1 fuzzy, 1 untranslated"),
    ],
)
def test_what_is_no_catalogue(tmp_path, content, place, message):
    path = po(tmp_path / "a.po", content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert f"{path}{place}" in str(caught.value)


def test_a_catalogue_that_is_not_what_its_header_says(tmp_path):
    with pytest.raises(DataError, match="is not UTF-8, which its header promises") as caught:
        load(po(tmp_path / "a.po", CATALOGUE, "latin-1"))
    assert "a.po:9" in str(caught.value)


# ---------------------------------------------------------------- translation memories


def tmx(units: str, *, doctype: str = '<!DOCTYPE tmx SYSTEM "tmx14.dtd">') -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>{doctype}<tmx version="1.4"><header/><body>{units}</body></tmx>'


def unit(**texts: str) -> str:
    inner = "".join(f'<tuv xml:lang="{k.replace("_", "-")}"><seg>{v}</seg></tuv>' for k, v in texts.items())
    return f"<tu>{inner}</tu>"


def test_units_of_a_memory(tmp_path):
    body = unit(en_US="Open &amp; <bpt i='1'>&lt;b&gt;</bpt>save<ept i='1'>&lt;/b&gt;</ept>", de="Öffnen")
    body += unit(en_US="only") + unit(en_US=" ", de="leer") + unit(en_US="a", de="b", fr="c")
    body += "<tu><tuv xml:lang='en-US'><seg>x</seg></tuv><tuv lang='de'><seg>y</seg></tuv>"
    body += "<tuv xml:lang='de'><seg>z</seg></tuv></tu>"
    (tmp_path / "m.tmx").write_text(tmx(body), encoding="utf-8")
    file = load(tmp_path / "m.tmx")
    assert list(file.dataset) == [
        {"en-US": "Open & <b>save</b>", "de": "Öffnen", "fr": None},
        {"en-US": "a", "de": "b", "fr": "c"},
        {"en-US": "x", "de": "y", "fr": None},
    ]
    assert "2 units in a single language, 1 empty segments, 1 second translations" in file.notices[0]
    assert t.columns_of(file, Recipe(source="en", target="de")) == ("en-US", "de")  # en is en-US here
    (tmp_path / "u.tmx").write_bytes(tmx(unit(en="a", de="ü")).replace("UTF-8", "UTF-16").encode("utf-16"))
    assert load(tmp_path / "u.tmx").dataset[0]["de"] == "ü"


BOMB = '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE tmx [<!ENTITY f SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tmx(unit(en="&b;", de="b"), doctype=BOMB), "declares the entity `a`"),
        (tmx(unit(en="&f;", de="b"), doctype=FILE), "declares the entity `f`"),
        (tmx(unit(en="a", de="b"))[:-6], "is no well-formed XML"),
        (tmx("<tu><tuv><seg>a</seg></tuv></tu>"), "names no language"),
        ("<html><body>a</body></html>", "<html> and not <tmx>"),
        ("source;target\n", "is no well-formed XML"),
        (tmx("<tu>" * 80 + "</tu>" * 80), "nested more than 64 deep"),
        (tmx(unit(en="only English")), "has no translated entry"),
        (tmx(unit(en="a", de="b")).replace("UTF-8", "no-such-encoding"), "cannot be decoded|no well-formed XML"),
    ],
)
def test_what_is_no_memory(tmp_path, content, message):
    path = tmp_path / "m.tmx"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "m.tmx"
    path.write_text(tmx(unit(en="a" * 200, de="b")), encoding="utf-8")
    monkeypatch.setattr(bilingual, "MOST_SEGMENT", 100)
    with pytest.raises(DataError, match="longer than 100 characters"):
        load(path)
    monkeypatch.setattr(bilingual, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="is larger than"):
        load(path)


# ---------------------------------------------------------------- texts of user interfaces


def test_two_files_of_keys_are_joined(tmp_path):
    en = {"menu": {"open": "Open", "save": "Save", "n": 3}, "title": "Hello"}
    pt = {"menu": {"open": "Abrir", "close": "Fechar"}, "title": "Olá"}
    for name, value in (("en.json", en), ("pt.json", pt)):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    both = f"{tmp_path / 'en.json'},{tmp_path / 'pt.json'}"
    file = t.load_aligned(both, load, Recipe(source="en", target="pt"))
    assert list(file.dataset) == [
        {"key": "menu.open", "en": "Open", "pt": "Abrir"}, {"key": "title", "en": "Hello", "pt": "Olá"},
    ]  # fmt: skip
    assert [n.split(": ")[1] for n in file.notices] == ["1 keys have no translation in the other file"] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"other": "x"}', "no key of the one"),
        ("[1]", "holds a list"),
        ('{"a": ', "is no JSON"),
        (None, "no such file"),
    ],
)
def test_files_of_keys_that_cannot_be_joined(tmp_path, content, message):
    (tmp_path / "en.json").write_text('{"a": "b"}', encoding="utf-8")
    if content is not None:
        (tmp_path / "pt.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        t.load_aligned(f"{tmp_path / 'en.json'},{tmp_path / 'pt.json'}", load, Recipe())


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Puts a collected zip file in place of an asset's."""
    from tunewell import assets

    def put(files: dict[str, dict]) -> None:
        with zipfile.ZipFile(tmp_path / assets.COLLECTED, "w") as archive:
            for name, value in files.items():
                archive.writestr(name, json.dumps(value))

    monkeypatch.setattr(assets, "fetch", lambda name, **_: tmp_path)
    return put


def test_home_assistants_texts(packaged):
    place = "homeassistant/components/{}/translations/{}.json"
    packaged({
        place.format("sun", "en"): {"state": {"up": "Above", "down": "Below"}},
        place.format("sun", "de"): {"state": {"up": "Oben"}},
        place.format("moon", "en"): {"state": {"up": "Above"}, "empty": " "},
        place.format("moon", "de"): {"state": {"up": "Oben"}},
        place.format("moon", "pt-BR"): {"other": "Fora"},
    })  # fmt: skip
    rows = load("homeassistant-ui").dataset
    assert rows.column_names == ["component", "key", "en", "de", "es", "fr", "pt", "zh"]
    assert [(r["component"], r["key"], r["en"], r["de"], r["fr"]) for r in rows] == [
        ("moon", "state.up", "Above", "Oben", None), ("sun", "state.down", "Below", None, None),
    ]  # fmt: skip


def test_jupyterlabs_texts(packaged):
    packaged({"x/locale/fr_FR/LC_MESSAGES/notebook.json": {
        "": {"language": "fr-FR", "domain": "notebook"}, "menu\x04Run": ["Exécuter"],
        "%1 cell": ["%1 cellule", "%1 cellules"], "Untranslated": [""], "None": [],
    }})  # fmt: skip
    assert list(load("jupyterlab-ui-fr").dataset) == [
        {"component": "notebook", "key": "menu\x04Run", "en": "Run", "fr": "Exécuter"},
        {"component": "notebook", "key": "%1 cell", "en": "%1 cell", "fr": "%1 cellule"},
    ]


def test_other_packaged_data_is_no_table():
    with pytest.raises(DataError, match="not a table to train on"):
        load("sts-b")


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "rows", "columns"), [("jupyterlab-ui-fr", 3242, "fr"), ("jupyterlab-ui-de", 1118, "de")]
)
def test_the_packaged_tables(name, rows, columns):
    from tunewell.errors import AssetError

    try:
        file = load(name)
    except AssetError as error:
        pytest.skip(f"cannot be fetched: {error.what}")
    assert len(file.dataset) == rows and columns in file.dataset.column_names
