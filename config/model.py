"""What all configuration models share: closed, frozen, finite; and the small types they are made of."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

TEXT_LENGTH_MAX = 2000


class Closed(BaseModel):
    """A model that refuses unknown keys, never changes, and holds no NaN and no infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        str_max_length=TEXT_LENGTH_MAX,
        validate_default=True,
    )


class ExplainedError(ValueError):
    """What a model's own validator refuses, in both languages; `at` is where, below the model."""

    def __init__(self, message: str, message_zh: str, *, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message_zh, self.at = message_zh, at


# Strict: "yes" is no truth value and true is no number; the person who typed it meant something else.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]

# Ids that become a level of an MQTT topic or a part of a file name, hence so narrow.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
PlaceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
TagId = Annotated[str, Field(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$", max_length=64)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$", min_length=1, max_length=253)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class Names(Closed):
    """A text for people in both languages. A single string in the file stands for both."""

    zh: str = Field(min_length=1, description="in Chinese")
    en: str = Field(min_length=1, description="in English")

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, given: Any) -> Any:
        return {"zh": given, "en": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Both forms: the mapping, and the one string for both languages."""
        both = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string", "minLength": 1}, both]}

    def text(self, language: str) -> str:
        """Return the Chinese text for "zh", else the English one."""
        return self.zh if language == "zh" else self.en


GUIDANCE_LENGTH_MIN = 10
GUIDANCE_LENGTH_MIN_ZH = 6


class Guidance(Names):
    """What the operator does first. At least 10 characters, or 6 in Chinese."""

    @model_validator(mode="after")
    def _long_enough(self) -> Guidance:
        for text in (self.zh, self.en):
            chinese = any("\u4e00" <= char <= "\u9fff" for char in text)
            least = GUIDANCE_LENGTH_MIN_ZH if chinese else GUIDANCE_LENGTH_MIN
            if len(text.strip()) < least:
                raise PydanticCustomError(
                    "guidance_short",
                    "say what the operator does first, in at least {least} characters",
                    {"least": least},
                )
        return self


class Grade(IntEnum):
    """How grave an alarm is. Higher is graver."""

    BLUE = 1
    YELLOW = 2
    ORANGE = 3
    RED = 4

    @property
    def word(self) -> str:
        """The word in configuration files and messages: "blue" ... "red"."""
        return self.name.lower()

    @property
    def zh(self) -> str:
        """The colour in Chinese, one character."""
        return "蓝黄橙红"[self.value - 1]

    @property
    def en(self) -> str:
        """The colour in English."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Grade:
        """Return the grade of an English or Chinese colour word; raises KeyError on any other."""
        return _GRADE_OF[word.strip().lower()]


GRADES: tuple[Grade, ...] = tuple(Grade)
GRADE_WORDS: tuple[str, ...] = tuple(grade.word for grade in GRADES)
_GRADE_OF = (
    {grade.word: grade for grade in GRADES}
    | {grade.zh: grade for grade in GRADES}
    | {grade.zh + "色": grade for grade in GRADES}
)


def _grade(given: Any) -> Grade:
    if isinstance(given, Grade):
        return given
    if isinstance(given, str) and given.strip().lower() in _GRADE_OF:
        return Grade.of(given)
    raise PydanticCustomError("word", "not a grade", {"candidates": list(GRADE_WORDS), "given": str(given)[:100]})


def _grade_word(grade: Grade) -> str:
    return grade.word


GradeWord = Annotated[
    Grade,
    BeforeValidator(_grade),
    PlainSerializer(_grade_word, return_type=str),
    WithJsonSchema({"type": "string", "enum": list(GRADE_WORDS)}),
]


def custom_word_error(message: str, given: object, candidates: list[str]) -> PydanticCustomError:
    """An error about a word outside a fixed list; the loader turns the candidates into a hint."""
    return PydanticCustomError("word", cast(Any, message), {"candidates": candidates, "given": str(given)[:100]})
