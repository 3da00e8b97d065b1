"""What every section of the config is: frozen, bounded, and aware of the files that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class _InputFile:
    """Marks a field whose value names a file, a folder or a hub id that the stage reads."""


InputFile = Annotated[str, _InputFile()]


def _marks(field: FieldInfo) -> list[Any]:
    """Metadata of a field, also where it stands inside `| None`."""
    inner = [m for part in getattr(field.annotation, "__args__", ()) for m in _metadata(part)]
    return [*field.metadata, *inner]


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


class Section(BaseModel):
    """A group of knobs; an unknown key is an error and values do not change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    def input_files(self) -> Iterator[tuple[str, str | None]]:
        """What the section reads, by name, and the revision where it may be a hub id."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                yield from value.input_files()
            elif isinstance(value, tuple):
                for item in value:
                    if isinstance(item, Section):
                        yield from item.input_files()
            elif value is not None and any(isinstance(m, _InputFile) for m in _marks(field)):
                yield value, getattr(self, "revision", None)
