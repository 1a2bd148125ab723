"""The recipe: everything a run needs, as one YAML file or the same keys as flags.

Every key, its default, its range and its help live in this file and nowhere else: the command line,
the commented file that `tunewell init` writes and the reference in the docs are made from it.
Nothing heavy is imported here; a recipe is validated as a whole before anything is loaded, and all
mistakes are reported together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from tunewell.augment.names import MLM, TRANSLATORS
from tunewell.augment.names import NAMES as OPERATIONS
from tunewell.augment.names import mistakes as unfit_operations
from tunewell.recipe_rules import contradictions
from tunewell.strategies import STRATEGIES, check_combination
from tunewell.strategies.sdft import check_template
from tunewell.tasks.polarity import parse as parse_polarity
from tunewell.tasks.verbaliser import parse as parse_verbaliser
from tunewell.unlabelled import METHODS
from tunewell.unlabelled.fits import check_methods

SECTIONS = {
    "data": "Data",
    "model": "Model",
    "unlabelled": "Texts without labels",
    "answers": "Questions, translations and instructions",
    "retention": "Keeping what the base model knows",
    "strategies": "Settings of single strategies",
    "training": "Training",
    "output": "Output",
}
DEFAULT_MODEL = "all-MiniLM-L6-v2"
AUTO_MODEL = "auto"  # the best of those at hand, see tunewell.rank
RECIPE = "a recipe in YAML"


def _list(value: Any) -> Any:
    """`a,b` and `a` are lists too, so that flags can carry lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Polarity = Annotated[dict[str, str] | Literal["keep"], BeforeValidator(parse_polarity)]
Verbaliser = Annotated[dict[str, list[str]] | Literal["auto"], BeforeValidator(parse_verbaliser)]
StringList = Annotated[list[str], BeforeValidator(_list)]
_Number = Annotated[float, Field(gt=0, le=1), Tag("function-number")]
Rate = Annotated[
    _Number | Annotated[Literal["auto"], Tag("function-auto")],
    Discriminator(lambda value: "function-auto" if value == "auto" else "function-number"),
]


def _key(default: Any, section: str, help: str, **limits: Any) -> Any:
    return Field(default, description=help, json_schema_extra={"section": section}, validate_default=False, **limits)


class Recipe(BaseModel):
    """One validated recipe. Keys are spelled as in `transformers.TrainingArguments` where one exists."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    # data
    train: str | None = _key(
        None,
        "data",
        "Training data: CSV, TSV, JSON, JSONL, Parquet, Arrow, XLSX, .po, .tmx, a URL, a database, a `datasets` "
        "folder, a packaged table or a hub id.",
    )
    validation: str | None = _key(None, "data", "Validation data; split off `train` when missing.")
    test: str | None = _key(None, "data", "Test data; split off `train` when missing.")
    text: str | None = _key(None, "data", "Column with the text; inferred when missing.")
    text_pair: str | None = _key(None, "data", "Column with a second text, for tasks on pairs.")
    label: StringList | None = _key(
        None, "data", "Column with the label; several columns of 0/1 (`a,b,c`) for multi-label."
    )
    question: str | None = _key(None, "data", "Column with the question, for question-answering.")
    context: str | None = _key(None, "data", "Column with the text that holds the answer.")
    answers: str | None = _key(None, "data", "Column with the answers: texts, or {text, answer_start} as in SQuAD.")
    source: str | None = _key(None, "data", "Column with the text to translate; for instructions, the prompt.")
    target: str | None = _key(None, "data", "Column with its translation; for instructions, the answer.")
    messages: str | None = _key(None, "data", "Column with conversations, a list of {role, content}.")
    group: str | None = _key(None, "data", "Column whose values must not be shared between splits (author, document).")
    task: Literal[
        "auto",
        "text-classification",
        "text-regression",
        "sentiment",
        "question-answering",
        "text-generation",
        "translation",
    ] = _key("auto", "data", "What to learn; `auto` infers it from columns and labels and says so.")
    aspect: str | None = _key(
        None, "data", "For sentiment: column with what the opinion is about, read as the second text."
    )
    sentiment: Literal["auto", "classes", "scores"] = _key(
        "auto", "data", "For sentiment: classes in order, or scores; `auto` takes numbers with fractions as scores."
    )
    polarity: Polarity | None = _key(
        None,
        "data",
        "For sentiment: which labels are which class (`<3=negative,3=neutral,>3=positive`); `keep` takes numbers as "
        "classes. By default told by the labels: stars, signs, words.",
    )
    multi_label: bool | None = _key(None, "data", "Several labels a row; inferred from lists or several label columns.")
    label_separator: str | None = _key(None, "data", "Splits a label cell into several labels (`news|sport` with `|`).")
    validation_size: float = _key(
        0.1,
        "data",
        "Share of `train` split off for validation when none is given; 0 takes no rows away, as `fewshot` does by "
        "itself: then nothing is stopped early, calibrated or chosen by its score.",
        ge=0,
        lt=1,
    )
    test_size: float = _key(0.2, "data", "Share of `train` split off for test when none is given.", gt=0, lt=1)
    max_train_samples: int | None = _key(None, "data", "Use a seeded sample of at most this many training rows.", ge=1)
    encoding: str = _key("auto", "data", "Character encoding of text files; `auto` detects it and says so.")
    duplicates: Literal["keep", "drop"] = _key(
        "keep", "data", "Exact duplicates within the training rows; dropped ones are counted in the account."
    )
    augment: StringList = _key(
        ["none"],
        "data",
        "Changed copies of the training rows, kept only where they help on validation: " + ", ".join(OPERATIONS) + "; "
        "`auto` takes cheap ones that suit the script. The run then tunes twice, with and without.",
    )
    augment_factor: int = _key(1, "data", "`augment`: changed copies of each training row.", ge=1, le=50)
    augment_share: float = _key(0.1, "data", "`augment`: share of a text's words that is changed.", gt=0, le=1)
    augment_agree: bool = _key(
        True,
        "data",
        "`augment`: leave out copies to which a linear probe on the base model's embeddings gives another label.",
    )
    augment_similar: float = _key(
        0.5,
        "data",
        "`augment`: leave out copies with a lower cosine to their original's embedding, and those that the base model "
        "cannot tell from it; 0 keeps all.",
        ge=0,
        lt=1,
    )
    augment_mlm: str = _key(MLM, "data", "`augment: masked`: the masked language model that proposes words.")
    augment_translators: StringList = _key(
        list(TRANSLATORS),
        "data",
        "`augment: backtranslate`: a model into another language and one back: assets, folders, hub ids or runs.",
    )
    strict: bool = _key(False, "data", "Stop when the check finds an error (exit code 3).")

    # model
    model: str = _key(
        DEFAULT_MODEL,
        "model",
        "Base model: asset name, local folder or hub id (safetensors only); `auto` ranks those at hand, see `rank`.",
    )
    revision: str | None = _key(None, "model", "Revision of a hub model.")
    framework: Literal["pytorch", "tensorflow"] = _key(
        "pytorch",
        "model",
        "What tunes: `tensorflow` (an extra) tunes encoders of the BERT family, GPT-2 and Llama in fp32, and is held "
        "to PyTorch's logits before and after.",
    )
    trust_remote_code: bool = _key(False, "model", "Run code that comes with the model. Only for sources you trust.")
    max_length: int | None = _key(
        None,
        "model",
        "Longest input in tokens; by default the 99.5 % quantile of the data within the model's window.",
        ge=4,
    )

    classify_by: Literal["head", "likelihood"] = _key(
        "head",
        "model",
        "How a decoder tells classes: `head` on its last token, or `likelihood` of the class's name as its answer.",
    )

    # texts without labels
    unlabelled: str | None = _key(
        None,
        "unlabelled",
        "A file of texts without labels, in any format that `train` takes: methods that learn from them are tried, and "
        "used only where they help.",
    )
    unlabelled_methods: StringList = _key(
        ["auto"],
        "unlabelled",
        "What to try: " + ", ".join(METHODS) + "; each costs a tuning or more. `auto`: all that fit the base model.",
    )
    unlabelled_samples: int = _key(
        10_000, "unlabelled", "Use a seeded sample of at most this many texts without labels.", ge=1
    )
    unlabelled_threshold: float | None = _key(
        None,
        "unlabelled",
        "Least confidence of a guessed label, calibrated but for consistency. Default: the surer half of each class; "
        "for consistency the running mean of the model's confidence.",
        ge=0,
        lt=1,
    )
    unlabelled_rounds: int = _key(
        1, "unlabelled", "`self_training`: how often a teacher labels and a new student learns from it.", ge=1, le=5
    )
    unlabelled_epochs: float = _key(
        1.0, "unlabelled", "`pretraining`: passes over the texts before tuning.", gt=0, le=100
    )
    unlabelled_pretraining: Literal["auto", "mlm", "simcse", "tsdae"] = _key(
        "auto",
        "unlabelled",
        "`pretraining`: masked words (`mlm`), telling texts apart (`simcse`), or writing a text again from the "
        "embedding of a part of it (`tsdae`). `auto`: masked words where the base model has its head for them, else "
        "simcse.",
    )
    unlabelled_weight: float = _key(
        1.0, "unlabelled", "`consistency`: weight of its term, relative to the task's loss.", ge=0
    )
    unlabelled_consistency: Literal["hard", "soft"] = _key(
        "hard",
        "unlabelled",
        "`consistency`: the changed text shall have the class that the model gives the text (FixMatch), or all of its "
        "answer, sharpened (`soft`; UDA).",
    )
    unlabelled_tsa: Literal["none", "linear", "log", "exp"] = _key(
        "none",
        "unlabelled",
        "`consistency`: labelled rows that the model is surer of than this schedule allows do not count "
        "(training-signal annealing): exp lets signal in late, for few rows, log early.",
    )
    unlabelled_rule: Literal["likely", "sure"] = _key(
        "likely",
        "unlabelled",
        "When a method is used: its score is better by a standard error of the difference (`likely`), or beyond chance "
        "(`sure`: 95 % interval and test).",
    )

    # questions, translations and instructions
    doc_stride: int = _key(128, "answers", "Tokens that two windows of a long context share.", ge=0)
    max_answer_length: int = _key(30, "answers", "Longest answer to a question, in tokens.", ge=1)
    n_best_size: int = _key(20, "answers", "Answers to a question that are kept with their probabilities.", ge=1)

    overlength: Literal["truncate", "drop", "error"] = _key(
        "truncate", "answers", "What happens to instructions longer than max_length; an answer is never cut silently."
    )
    packing: bool | None = _key(
        None,
        "answers",
        "Instructions of a batch stand behind one another instead of being padded, and never see each other; "
        "by default wherever the model gives the same answers that way.",
    )
    max_target_length: int | None = _key(
        None, "answers", "Longest target of an encoder-decoder in tokens; by default the 99.5 % quantile.", ge=2
    )
    source_prefix: str | None = _key(
        None, "answers", "Put before every source; by default nothing (T5 wants one), for decoders an instruction."
    )
    source_lang: str | None = _key(None, "answers", "Language of the sources, as the model's tokenizer calls it.")
    target_lang: str | None = _key(None, "answers", "Language of the targets, as the model's tokenizer calls it.")
    max_new_tokens: int = _key(128, "answers", "Longest answer that is written, in tokens.", ge=1)
    num_beams: int = _key(1, "answers", "Beams of the search; 1 writes greedily.", ge=1, le=64)
    length_penalty: float = _key(1.0, "answers", "Above 1 the beam search prefers longer answers.", ge=-10, le=10)
    no_repeat_ngram_size: int = _key(0, "answers", "No run of so many tokens is written twice; 0 allows it.", ge=0)
    do_sample: bool = _key(
        False, "answers", "Draw tokens by their probability, with the recipe's seed, instead of taking the likeliest."
    )
    temperature: float = _key(
        1.0, "answers", "With do_sample: below 1 likely tokens are drawn more often, above 1 less.", gt=0, le=10
    )
    top_p: float = _key(
        1.0, "answers", "With do_sample: draw among the likeliest tokens that make up this probability.", gt=0, le=1
    )
    top_k: int = _key(0, "answers", "With do_sample: draw among so many of the likeliest tokens; 0 for all.", ge=0)
    generation_samples: int = _key(
        200, "answers", "Test rows on which answers are written and scored at most; half of it on validation.", ge=1
    )

    # retention
    strategy: StringList | None = _key(
        None,
        "retention",
        "How weights change and what protects them: "
        + ", ".join(STRATEGIES)
        + "; several compose (`distill,average`); `auto` searches for one that keeps enough. "
        "Default: plain, or distill,average when `keep` is set.",
    )
    keep: float | None = _key(
        None, "retention", "Floor on the mean retention of the base model's abilities (0.98 keeps 98 %).", gt=0, le=1
    )
    keep_worst: float | None = _key(None, "retention", "Floor on the retention of the worst probe.", gt=0, le=1)
    monitor: Literal["watch", "stop", "rollback", "off"] | None = _key(
        None,
        "retention",
        "While tuning, estimate from a few general texts what is kept: `watch` shows it, `stop` ends tuning where it "
        "falls below `keep`, `rollback` also goes back to the last state above. Default: watch, where packaged "
        "probes are measured.",
    )
    probes: StringList = _key(
        ["auto"],
        "retention",
        "Probes of the retention suite; `auto` takes all that fit the model; `none` measures nothing.",
    )
    probe_files: StringList = _key(
        [], "retention", "Your own probes: files with text_a, text_b, score (similarity) or text, label (topics)."
    )
    general_text: str | None = _key(
        None,
        "retention",
        "General text for `distill`, `rehearse` and others: a file with one text a line, or a data file. Default: "
        "packaged sentences.",
    )
    general_samples: int = _key(4000, "retention", "How many general texts `distill` and `rehearse` use.", ge=16)
    distill_weight: float = _key(
        1.0, "retention", "Weight of the distillation term, relative to the task's loss.", ge=0
    )
    average_alphas: list[float] = _key(
        [0.5, 0.75, 0.9, 1.0],
        "retention",
        "Interpolation points tried by `average`: 0 is the base model, 1 the tuned one.",
    )
    max_cost: float = _key(
        4.0, "retention", "What `strategy: auto` may spend on tuning, as a multiple of plain tuning's time.", ge=1
    )
    lines_alphas: list[float] = _key(
        [0.0, 0.25, 0.5, 0.75],
        "strategies",
        "Shares of its change that the first layer keeps, tried by `lines`; the last layer keeps all.",
    )
    pattern: str | None = _key(
        None,
        "strategies",
        "`prompt`: how a text is asked about, with {text}, {mask} and for pairs {text_pair}; by default "
        "`{text} It was {mask}.` for sentiment, `{text} This is about {mask}.` for other classes.",
    )
    verbaliser: Verbaliser | None = _key(
        None,
        "strategies",
        "`prompt`: the words of each class (`good=great|fine,bad=awful`), or `auto` to search them; by default told by "
        "the labels' names, and searched where a name is not one token.",
    )
    fewshot_steps: int | None = _key(
        None, "strategies", "`fewshot`: optimiser steps; by default chosen by the number of rows a class.", ge=1
    )
    fewshot_names: bool = _key(
        True,
        "strategies",
        "`fewshot`: names of classes that are words are further texts of their class, where cross-validation on the "
        "training rows says that they help.",
    )
    freeze: str = _key(
        "embeddings",
        "strategies",
        "What `freeze` holds: embeddings, last_K (all but the last K layers), head_only, bitfit, gradual.",
        pattern=r"^(embeddings|head_only|bitfit|gradual|last_[1-9][0-9]*)$",
    )
    llrd_decay: float = _key(
        0.8, "strategies", "`llrd`: the learning rate of a layer over that of the one above.", gt=0, le=1
    )
    l2sp_weight: float = _key(0.1, "strategies", "`l2sp`: weight of the pull to the base model's weights.", ge=0)
    ewc_weight: float = _key(
        20.0, "strategies", "`ewc`: weight of the pull, by Fisher information, to the base model's weights.", ge=0
    )
    mas_weight: float = _key(
        20.0, "strategies", "`mas`: weight of the pull, by sensitivity, to the base model's weights.", ge=0
    )
    ewc_fisher: Literal["auto", "embeddings", "likelihood"] = _key(
        "auto",
        "strategies",
        "`ewc`: whose Fisher information: that of pooled embeddings, or of the language model's own likelihood; "
        "`auto` takes likelihood for decoders, embeddings for encoders.",
    )
    gpm_threshold: float = _key(
        0.9,
        "strategies",
        "`gpm`: share of the energy of general text's inputs that is held; 0 holds nothing.",
        ge=0,
        le=1,
    )
    anchor_weight: float = _key(
        1.0, "strategies", "`anchor`: weight of the distance to the base model on the task's own inputs.", ge=0
    )
    rehearse_weight: float = _key(
        0.5, "strategies", "`rehearse`: weight of general text, relative to the task's loss.", ge=0
    )
    rehearse_text: Literal["general", "self"] = _key(
        "general", "strategies", "`rehearse`: general text as it is, or texts that the base model writes itself."
    )
    sdft_template: str | None = _key(
        None,
        "strategies",
        "`sdft`: how the base model is asked to rewrite an answer, with {instruction} and {answer} (or {response}); by "
        "default the template of the paper.",
    )
    sdft_min_similarity: float = _key(
        0.6,
        "strategies",
        "`sdft`: token F1 with the original from which a rewritten answer is taken; answers that end in a final one "
        "must end in the same instead.",
        ge=0,
        le=1,
    )
    sdft_length_ratio: float = _key(
        2.0, "strategies", "`sdft`: how many times longer or shorter a rewritten answer may be.", ge=1
    )
    sdft_max_new_tokens: int = _key(256, "strategies", "`sdft`: longest rewritten answer, in tokens.", ge=1)
    sdft_temperature: float = _key(
        0.0,
        "strategies",
        "`sdft`: 0 takes the likeliest words; above it they are drawn, with the recipe's seed.",
        ge=0,
        le=10,
    )
    recadam_pull: float = _key(
        5000.0, "strategies", "`recadam`: strength of the pull to the base model's weights; 0 switches it off.", ge=0
    )
    recadam_k: float = _key(0.1, "strategies", "`recadam`: how fast it goes over from recalling to learning.", gt=0)
    recadam_t0: float = _key(
        0.25,
        "strategies",
        "`recadam`: share of the steps after which recalling and learning weigh the same.",
        ge=0,
        le=1,
    )
    lora_variant: Literal["lora", "dora", "rslora", "pissa", "olora", "corda", "eva", "oft", "osf"] = _key(
        "lora", "strategies", "`lora`: the kind of adapter."
    )
    lora_rank: int = _key(
        8,
        "strategies",
        "`lora`: rank of the adapters; for `oft` the size of a rotation, for `osf` directions tuned.",
        ge=1,
    )
    lora_alpha: float = _key(16.0, "strategies", "`lora`: scale of the adapters, divided by the rank.", ge=0)
    lora_targets: StringList = _key(
        ["all-linear"], "strategies", "`lora`: layers with an adapter: all-linear, attention, or names (`query,value`)."
    )
    lora_rate_factor: float = _key(
        10.0, "strategies", "`lora`: the adapters' learning rate over `learning_rate`.", gt=0
    )
    load_in_4bit: bool = _key(
        False, "strategies", "`lora`: the frozen weights in 4 bits while tuning (QLoRA); needs tunewell[quantize]."
    )
    ema_decay: float = _key(0.99, "strategies", "`ema`: share of the average that stays at a step.", ge=0, lt=1)
    swa_start: float = _key(
        0.5, "strategies", "`swa`: share of the steps after which weights are averaged; 1 for never.", ge=0, le=1
    )
    sam_rho: float = _key(0.05, "strategies", "`sam`: distance to the point where gradients are taken.", ge=0)
    mixup_alpha: float = _key(
        0.2,
        "strategies",
        "`mixup`: shares of two rows are drawn from Beta(alpha, alpha); 0 mixes nothing.",
        ge=0,
        le=100,
    )

    # training
    learning_rate: Rate | None = _key(
        None,
        "training",
        "Peak learning rate of AdamW; by default 0.04 / hidden size (1e-4 for MiniLM, 5e-5 for BERT-base). `auto` "
        "tunes at three or four rates and takes the best on validation.",
    )
    optim: Literal["adamw", "schedule_free_adamw", "prodigy"] = _key(
        "adamw",
        "training",
        "Optimiser: AdamW; without a schedule (Defazio et al., 2024); or Prodigy, which finds its rate by itself. The "
        "latter two need tunewell[optim].",
    )
    head_rate_factor: float = _key(
        10.0, "training", "A head that was just drawn learns this many times faster than the encoder.", ge=1, le=100
    )
    num_train_epochs: float = _key(3.0, "training", "Passes over the training rows.", gt=0, le=1000)
    max_steps: int = _key(-1, "training", "Stop after this many steps; -1 for no limit.", ge=-1)
    per_device_train_batch_size: int = _key(
        16,
        "training",
        "Rows a batch; batches of long rows hold fewer, so that none passes 128 tokens a row.",
        ge=1,
    )
    gradient_accumulation_steps: int = _key(1, "training", "Batches whose gradients are added up before a step.", ge=1)
    auto_find_batch_size: bool = _key(
        False,
        "training",
        "Where a batch would not fit into free memory, more and smaller ones a step: it sees as many rows.",
    )
    activation_checkpointing: bool = _key(
        False,
        "training",
        "Layers' answers are not kept for the backward pass but computed again: less memory, a forward pass more.",
    )
    fsdp: bool = _key(
        False,
        "training",
        "Under `torchrun` each process holds its part of weights, gradients and AdamW's moments (FSDP2), not all.",
    )
    per_device_eval_batch_size: int = _key(64, "training", "Rows a batch in evaluation and prediction.", ge=1)
    warmup_ratio: float = _key(
        0.1, "training", "Share of the steps over which the rate climbs to its peak.", ge=0, le=1
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = _key(
        "linear", "training", "How the rate falls after the warm-up."
    )
    guard: Literal["off", "watch", "act"] = _key(
        "watch",
        "training",
        "`watch`: a tuning that a too high rate throws out goes back to its last good state at half the rate; `act`: "
        "the rate is also changed where the loss oscillates or creeps.",
    )
    weight_decay: float = _key(0.01, "training", "AdamW's weight decay.", ge=0, le=1)
    attention_dropout: float | None = _key(
        None,
        "training",
        "Dropout of attention weights while tuning; by default the model's own. 0 tunes faster on long texts.",
        ge=0,
        lt=1,
    )
    max_grad_norm: float = _key(1.0, "training", "Gradients are clipped to this norm; 0 for no clipping.", ge=0)
    loss: Literal["auto", "cross_entropy", "focal", "bce", "mse", "mae", "huber"] = _key(
        "auto", "training", "Loss; `auto`: cross_entropy for classes, bce for multi-label, mse for scores."
    )
    label_smoothing_factor: float = _key(0.0, "training", "Label smoothing of the cross-entropy.", ge=0, lt=1)
    focal_gamma: float = _key(2.0, "training", "Focusing parameter of the focal loss (Lin et al., 2017).", ge=0)
    class_weight: Literal["none", "balanced"] = _key(
        "none", "training", "`balanced` weights classes by n / (classes · count), as scikit-learn does."
    )
    metric: str = _key(
        "auto", "training", "Headline metric; `auto`: f1_macro for classes, f1_micro for multi-label, r2 for scores."
    )
    early_stopping_patience: int = _key(
        3, "training", "Evaluations without a better validation score before stopping; 0 never stops early.", ge=0
    )
    evals_per_epoch: int = _key(1, "training", "Validation measurements (and checkpoints) an epoch.", ge=1, le=100)
    bf16: bool | None = _key(None, "training", "bf16 autocast; by default where the processor or GPU has it.")
    seed: int = _key(
        42, "training", "Seed of everything random: splits, order, head, dropout, bootstrap.", ge=0, le=2**32 - 1
    )
    seeds: int = _key(
        1, "training", "Tunings with this and the following seeds; the report shows how far they differ.", ge=1, le=100
    )
    threads: int | None = _key(None, "training", "Processor threads; by default all cores.", ge=1)

    # output
    output_dir: str | None = _key(None, "output", "Run folder; by default runs/<name of the training file>.")
    overwrite_output_dir: bool = _key(False, "output", "Start afresh in a folder that holds another run.")
    report_to: StringList = _key(["none"], "output", "Trackers: tensorboard, mlflow, wandb, trackio, none.")
    explain: int = _key(
        12, "output", "Test rows whose deciding words the report shows, and tests; 0 for none.", ge=0, le=1000
    )
    calibrate: Literal["auto", "temperature", "isotonic", "none"] = _key(
        "auto",
        "output",
        "Map of the probabilities, fitted on validation, that `predict` and `serve` apply; answers stay the same. "
        "`auto` takes the one with the least cross-validated log loss, or none where nothing is gained.",
    )
    lang: Literal["en", "zh"] = _key("en", "output", "Language of the report.")
    save_total_limit: int = _key(2, "output", "Checkpoints kept while training; the best is never deleted.", ge=1)

    @field_validator("strategy")
    @classmethod
    def _known_strategies(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (problems := check_combination(value)):
            raise ValueError("; ".join(problems))
        return value

    @field_validator("sdft_template")
    @classmethod
    def _fillable(cls, value: str | None) -> str | None:
        if problems := check_template(value):
            raise ValueError("; ".join(problems))
        return value

    @field_validator("augment")
    @classmethod
    def _known_operations(cls, value: list[str]) -> list[str]:
        if problems := unfit_operations(value, none=True):
            raise ValueError("; ".join(problems))
        return value

    @field_validator("augment_translators")
    @classmethod
    def _there_and_back(cls, value: list[str]) -> list[str]:
        if len(value) != 2:
            raise ValueError("expected two models: one into another language and one back")
        return value

    @field_validator("unlabelled_methods")
    @classmethod
    def _known_methods(cls, value: list[str]) -> list[str]:
        if problems := check_methods(value):
            raise ValueError("; ".join(problems))
        return value

    @model_validator(mode="after")
    def _combinations(self) -> Recipe:
        if problems := contradictions(self):
            raise ValueError("; ".join(problems))
        return self

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies in force, defaults applied."""
        if self.strategy is not None:
            return tuple(self.strategy)
        return ("distill", "average") if (self.keep or self.keep_worst) else ("plain",)

    def to_yaml(self) -> str:
        """The effective recipe, every key in its section, ready to run again."""
        values, lines = self.model_dump(), []
        for section, title in SECTIONS.items():
            lines.append(f"# {title}")
            for name in keys_of(section):
                lines.append(f"{name}: {yaml_value(values[name])}")
            lines.append("")
        return "\n".join(lines)


def yaml_value(value: Any) -> str:
    """One value on one line, as YAML.

    >>> yaml_value(["a", "b"]), yaml_value(None), yaml_value(5e-05)
    ('[a, b]', 'null', '5.0e-05')
    """
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def keys_of(section: str) -> list[str]:
    """Names of the keys of a section, in order."""
    return [n for n, f in Recipe.model_fields.items() if (f.json_schema_extra or {}).get("section") == section]  # type: ignore[union-attr]
