"""What an estimate is of, and whether it may be compared: values of their own, in tables as in code."""

from __future__ import annotations

from enum import StrEnum

from unetscope.base import InvalidArgument


class Quantity(StrEnum):
    """What is estimated: of one layer M, or of the skip S and the upsampled path U that meet at a merge.

    X is the image, Y its label or mask, ↓S the skip pooled to the next lower resolution. `I` is mutual information in bits;
    `I_V` is usable information in bits a pixel, by a family of probes V.

    Source: Lee & Bajić, ISBI 2021 (I); Xu et al., ICLR 2020 (I_V).

    Raises: InvalidArgument for a text that names no quantity.

    >>> Quantity("I_V(M→Y)").unit, Quantity.INPUT == "I(X;M)"
    ('bits a pixel', True)
    """

    INPUT = "I(X;M)"
    LABEL = "I(Y;M)"
    SKIP_GIVEN_UPSAMPLED = "I(Y;S|U)"
    UPSAMPLED_GIVEN_SKIP = "I(Y;U|S)"
    SHARED = "I(Y;S;U)"
    USABLE = "I_V(M→Y)"
    USABLE_SKIP_GIVEN_UPSAMPLED = "I_V(S→Y|U)"
    USABLE_UPSAMPLED_GIVEN_SKIP = "I_V(U→Y|S)"
    USABLE_SHARED = "I_V(S;U→Y)"
    USABLE_SKIP_GIVEN_POOLED = "I_V(S→Y|U,↓S)"

    @classmethod
    def _missing_(cls, value: object) -> Quantity:
        raise InvalidArgument(f"quantity must be one of {', '.join(cls)}, got {value!r}")

    def __repr__(self) -> str:
        return repr(self.value)  # in errors and in the text of an estimate as in the table

    @property
    def is_usable(self) -> bool:
        """Whether it is usable information, which is measured on held-out images and needs no label scheme."""
        return self in _USABLE

    @property
    def of_layer(self) -> bool:
        """Whether it is of one layer, not of the two streams of a merge."""
        return self in _OF_LAYER

    @property
    def unit(self) -> str:
        """The unit in which its estimates are given."""
        return "bits a pixel" if self.is_usable else "bits"

    @property
    def ceiling_name(self) -> str:
        """The formula of the largest value that its estimates can take."""
        return "H_V(Y|∅)" if self.is_usable else "log₂ N" if self is Quantity.INPUT else "H(Y)"


_OF_LAYER = frozenset({Quantity.INPUT, Quantity.LABEL, Quantity.USABLE})
_USABLE = frozenset(
    {
        Quantity.USABLE,
        Quantity.USABLE_SKIP_GIVEN_UPSAMPLED,
        Quantity.USABLE_UPSAMPLED_GIVEN_SKIP,
        Quantity.USABLE_SHARED,
        Quantity.USABLE_SKIP_GIVEN_POOLED,
    }
)


class Status(StrEnum):
    """Whether an estimate may be compared with those of other layers, and if not, why.

    ABSENT: there is no number. SATURATED: the number is at its ceiling, where layers cannot be ranked. OUT_OF_DOMAIN: the
    number describes these images alone; with more images it would change. OK: none of these.
    """

    OK = "ok"
    SATURATED = "saturated"
    OUT_OF_DOMAIN = "out of domain"
    ABSENT = "absent"
