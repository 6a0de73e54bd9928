"""What lies beside a WAV, as bytes: metadata as JSON, codes as .npy."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["codes_bytes", "json_bytes"]

# A raw line break never stands inside a JSON string, so this matches printed lists of numbers only.
_NUMBERS = re.compile(r"\[\n\s+(-?\d+(?:,\n\s+-?\d+)*)\n\s*\]")


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """`value` as indented UTF-8 JSON in the mapping's own order, lists of whole numbers on one line.

    What JSON has no word for is written as text: paths, and numbers that are not finite ('inf').
    """
    text = json.dumps(_plain(value), ensure_ascii=False, indent=2)
    text = _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text)
    # Undecodable input bytes reach us as lone surrogates; escaped they are valid JSON.
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def codes_bytes(codes: torch.Tensor) -> bytes:
    """Whole-number codes [K, T] as the content of a .npy file, int16 where they fit, else int32."""
    import numpy as np

    array = codes.detach().cpu().numpy()
    small = array.size == 0 or bool(np.abs(array).max() <= np.iinfo(np.int16).max)
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.int16 if small else np.int32), allow_pickle=False)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)
