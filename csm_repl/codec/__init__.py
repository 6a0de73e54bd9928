"""Sound to codes and back. Mimi is what CSM-1B uses; a model folder's `codec.json` can say otherwise."""

from csm_repl.codec.base import Codec, DecodeStream, chunk_sizes
from csm_repl.codec.deferred import deferred_stream
from csm_repl.codec.istft import IstftCodec
from csm_repl.codec.load import load_codec
from csm_repl.codec.mimi import MimiCodec

__all__ = [
    "Codec",
    "DecodeStream",
    "IstftCodec",
    "MimiCodec",
    "chunk_sizes",
    "deferred_stream",
    "load_codec",
]
