"""What goes over the wire: requests, answers, errors, and their part in the OpenAPI document."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field

TEXTS = ["a lovely flight with a kind crew", "two hours late and nobody said a word"]
EXAMPLES = cast(Any, {"examples": [{"texts": TEXTS}, {"texts": TEXTS[:1], "top_k": 1}]})

ONE = cast(Any, {"examples": [{"texts": TEXTS[:1]}]})
MOST_EXPLAINED = 16  # texts a request


class PredictRequest(BaseModel):
    """Texts to label."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra=EXAMPLES,
    )

    texts: list[str] = Field(min_length=1, description="The texts; one without words gets a null prediction.")
    text_pairs: list[str] | None = Field(
        None,
        min_length=1,
        description="Second texts, one for each text: for a model of pairs, the contexts of questions, the inputs of "
        "instructions.",
    )
    model: str | None = Field(None, description="Name of the model; the first one when missing. See /models.")
    top_k: int | None = Field(
        None, ge=1, description="Probabilities of so many labels, or answers in a context, the likeliest first."
    )
    probabilities: bool = Field(True, description="Whether to give the probabilities of the labels.")


class Prediction(BaseModel):
    """The answer to one text."""

    prediction: str | list[str] | float | None = Field(
        description="The label; a list of labels (several labels a text); a number (regression); the answer found in a "
        "context, empty for none, or written; null without a text."
    )
    probabilities: dict[str, float] | None = Field(None, description="By label; not for regression.")
    probability: float | None = Field(None, description="Of an answer found in a context.")
    start: int | None = Field(None, description="Its first character there.")
    end: int | None = Field(None, description="The character behind it.")
    nbest: list[dict[str, Any]] | None = Field(
        None, description="The `top_k` likeliest answers in a context (1), each with text, probability, start and end."
    )


class PredictResponse(BaseModel):
    """The answers, one a text, in the order of the texts."""

    model: str
    version: str = Field(description="12 digits of the sha256 of the weights that answered.")
    predictions: list[Prediction]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "reviews",
                    "version": "53aa51172d14",
                    "predictions": [
                        {"prediction": "positive", "probabilities": {"negative": 0.03, "positive": 0.97}},
                        {"prediction": "negative", "probabilities": {"negative": 0.98, "positive": 0.02}},
                    ],
                }
            ]
        }
    )


class WhyRequest(BaseModel):
    """What is asked of a few texts."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=ONE)

    texts: list[str] = Field(min_length=1, max_length=MOST_EXPLAINED, description="Texts with words.")
    text_pairs: list[str] | None = Field(
        None, min_length=1, description="Second texts, one for each text, for a model of pairs."
    )
    model: str | None = Field(None, description="Name of the model; the first one when missing. See /models.")


class ExplainRequest(WhyRequest):
    """Texts whose answers are to be explained by their words."""

    method: str = Field("auto", description="Name of a method, as `tunewell explain --method` takes it.")
    target: str | None = Field(None, description="The label to explain; by default the likeliest one of each text.")
    budget: float = Field(5.0, gt=0, le=600, description="Seconds that `auto` may take; at most the service's timeout.")
    seed: int = Field(42, ge=0, description="Of sampled methods.")


class ExplainResponse(BaseModel):
    """One explanation a text: words, signed scores and their measured faithfulness, as `tunewell explain --json`."""

    model: str
    version: str
    explanations: list[dict[str, Any]]


class InfluenceRequest(WhyRequest):
    """Texts whose answers are to be traced to training rows."""

    label: str | None = Field(None, description="Trace the output of this label; by default of the predicted one.")
    method: str = Field("auto", description="Name of a method, as `tunewell influence --method` takes it.")
    top: int = Field(5, ge=1, le=100, description="Rows each way.")


class InfluenceResponse(BaseModel):
    """The training rows for and against each answer, as `tunewell influence --json`."""

    model: str
    version: str
    attributions: list[dict[str, Any]]


class ModelInfo(BaseModel):
    """One model of the service."""

    name: str
    version: str
    task: str
    labels: list[str]
    multi_label: bool
    text_pairs: bool
    max_length: int = Field(description="Tokens that the model reads; the rest of a text is cut off.")
    precision: str
    loaded: float = Field(description="Unix time.")


class ModelsResponse(BaseModel):
    """The models by name; the first is the default."""

    models: list[ModelInfo]


class ReloadRequest(BaseModel):
    """Which model to load again; all without a name."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{}, {"model": "reviews"}]})

    model: str | None = None


class Health(BaseModel):
    """Alive and able to answer."""

    status: str
    models: list[str]


class Problem(BaseModel):
    """What was found, where, what was expected, and what to do."""

    what: str
    where: str = ""
    expected: str = ""
    remedy: str = ""


class ErrorResponse(BaseModel):
    """Every error comes in this form."""

    error: Problem


ERRORS = {
    400: "The body is not JSON.",
    401: "The API key is missing or wrong.",
    403: "Reloading over HTTP needs an API key.",
    404: "No such model or page.",
    405: "Not with this method.",
    408: "The body did not arrive in time.",
    409: "A model could not be loaded again, or its training rows cannot be told.",
    413: "The body is too large.",
    422: "The request is not as it should be.",
    429: "The queue is full; Retry-After tells when to come again.",
    503: "The service is shutting down.",
    504: "No answer in time.",
}


HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to call.", "required": True, "schema": {"const": "Bearer"}}},
    429: {
        "Retry-After": {
            "description": "Whole seconds until there should be room.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route for the OpenAPI document."""
    return {
        code: {"model": ErrorResponse, "description": ERRORS[code]}
        | ({"headers": HEADERS[code]} if code in HEADERS else {})
        for code in codes
    }


def body_of(model: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """The request body of a route that reads it itself."""
    schema = model.model_json_schema()
    content: dict[str, Any] = {"schema": schema}
    if examples := schema.get("examples"):
        content["examples"] = {f"example {i}": {"value": value} for i, value in enumerate(examples, 1)}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}
